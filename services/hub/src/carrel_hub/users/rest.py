"""`{hub}api/user`, `{hub}api/users/NAME`: who somebody is; and the old ways to ask that."""

from typing import Annotated, Any

from fastapi import Depends, Request

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest
from carrel_hub.auth.subjects import (
    Subject,
    SubjectKind,
    current_subject,
    find_token,
    require_somebody,
    token_subject,
)
from carrel_hub.context import Hub
from carrel_hub.deps import HubDep
from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.json_response import JsonResponse
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, identify_scopes, service_identify_scopes
from carrel_hub.rbac.decisions import NO_CREDENTIALS
from carrel_hub.services.models import service_model
from carrel_hub.users.access import require_any
from carrel_hub.users.bodies import wants_stopped
from carrel_hub.users.models import USER_KEYS, Widened, user_model
from carrel_hub.users.shown import show_user

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]

_READ_ANY = [scope for scope in USER_KEYS if scope is not Scope.ADMIN_AUTH_STATE]


@router.get("/user")
async def whoami(
    request: Request, subject: Annotated[Subject, Depends(require_somebody)]
) -> JsonResponse:
    """Who the caller is and what they may do: the endpoint every client asks first."""
    model = await identity_model(
        hub_of(request), subject, with_stopped=wants_stopped(request.query_params)
    )
    token = subject.token
    model["token_id"] = f"a{token.id}" if token is not None else None
    model["session_id"] = token.session_hash if token is not None else None
    model["scopes"] = sorted(subject.scopes)
    return JsonResponse(model)


@router.get("/authorizations/token/{token}")
async def whose_token(
    token: str, hub: HubDep, subject: Annotated[Subject, Depends(require_somebody)]
) -> JsonResponse:
    """Whose token that is; only for those who have one themselves. `GET /user` is the way today."""
    if subject.kind is not SubjectKind.TOKEN:
        raise ForbiddenError(NO_CREDENTIALS)
    if len(token) > MAX_SECRET_LENGTH:
        raise NotFoundError("")
    async with hub.database.read() as session:
        found = await find_token(session, hub, digest(token))
        if found is None:
            raise NotFoundError("")
        bearer = await token_subject(session, hub, *found)
    return JsonResponse(await identity_model(hub, bearer, with_stopped=False))


async def identity_model(hub: Hub, subject: Subject, *, with_stopped: bool) -> dict[str, Any]:
    """Return somebody as they may see themselves, at least their name and groups."""
    roles = hub.settings.role_book
    if subject.service is not None:
        widened = Widened(subject.scopes | service_identify_scopes(subject.name), subject.members)
        base_url = hub.settings.base_url
        return service_model(subject.service, widened, base_url=base_url, roles=roles)
    assert subject.user is not None  # noqa: S101 - nobody was refused before
    shown = await show_user(hub.database, subject.user.id or 0, with_stopped=with_stopped)
    if shown is None:  # gone in this moment
        raise ForbiddenError(NO_CREDENTIALS)
    return user_model(
        shown.user,
        shown.servers,
        Widened(subject.scopes | identify_scopes(subject.name), subject.members),
        hub.settings,
        groups=shown.groups,
        with_stopped=with_stopped,
    )


@router.get("/users/{name}")
async def get_user(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JsonResponse:
    """One user, as far as the caller may see them."""
    require_any(subject, _READ_ANY, Resource(name))
    with_stopped = wants_stopped(request.query_params)
    shown = await show_user(hub.database, name, with_stopped=with_stopped)
    if shown is None:
        raise NotFoundError("")
    return JsonResponse(
        user_model(
            shown.user,
            shown.servers,
            subject,
            hub.settings,
            groups=shown.groups,
            with_stopped=with_stopped,
        )
    )
