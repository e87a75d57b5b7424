"""What scripts of earlier JupyterHubs ask for: whose a cookie is, and access for administrators."""

from typing import Annotated

from fastapi import Depends, Request

from carrel_hub.auth.cookies import LOGIN_COOKIE
from carrel_hub.auth.digest import digest
from carrel_hub.auth.sessions import find_session, signed_secret
from carrel_hub.auth.subjects import (
    Subject,
    SubjectKind,
    current_subject,
    hub_signer,
    is_refused,
    require_somebody,
)
from carrel_hub.deps import HubDep
from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.json_response import JsonResponse
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise
from carrel_hub.rbac.decisions import NO_CREDENTIALS
from carrel_hub.users.rest import identity_model

router = LateRouter()


@router.get("/authorizations/cookie/{cookie_name}")
@router.get("/authorizations/cookie/{cookie_name}/{cookie_value}")
async def whose_cookie(
    cookie_name: str,
    request: Request,
    hub: HubDep,
    subject: Annotated[Subject, Depends(require_somebody)],
    cookie_value: str | None = None,
) -> JsonResponse:
    """Whose sign-in a cookie of the hub's is; only for those who have a token (contract 2.13).

    Without a value in the path it is the body.
    """
    if subject.kind is not SubjectKind.TOKEN:
        raise ForbiddenError(NO_CREDENTIALS)
    value = (await request.body()).decode("latin-1") if cookie_value is None else cookie_value
    known = cookie_name.removeprefix("__Host-") == LOGIN_COOKIE
    secret = signed_secret(value, hub_signer(hub)) if known else None
    if secret is None:
        raise NotFoundError("")
    async with hub.database.read() as session:
        found = await find_session(session, digest(secret))
    if found is None or found[0].expires_at <= hub.clock.now() or is_refused(hub, found[1]):
        raise NotFoundError("")
    bearer = Subject(SubjectKind.COOKIE, found[1], session=found[0])
    return JsonResponse(await identity_model(hub, bearer, with_stopped=False))


@router.post("/users/{name}/admin-access")
async def admin_access(name: str, subject: Annotated[Subject, Depends(current_subject)]) -> None:
    """Never given: what an administrator may do is said by scopes.

    Raises:
        ForbiddenError: Always.
    """
    authorise(subject, Scope.SERVERS, Resource(name))
    raise ForbiddenError(
        "Administrators' access cannot be given: access to servers is the scope access:servers"
    )
