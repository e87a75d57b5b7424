"""`{hub}api/users`: listing, making, changing and deleting people."""

from typing import Annotated, Any

from fastapi import Depends, Request, Response

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.deps import HubDep
from carrel_hub.errors import ConflictError, InvalidRequestError, NotFoundError
from carrel_hub.hosts.standing import known_names
from carrel_hub.json_response import JsonResponse
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise, extent, is_administrator
from carrel_hub.users.access import (
    refuse_new_admins,
    refuse_over_admins,
    refuse_spoken_name,
    refuse_to_raise,
)
from carrel_hub.users.accounts import find_user
from carrel_hub.users.activity import note_activity
from carrel_hub.users.bodies import json_body, new_users, user_changes, wants_stopped
from carrel_hub.users.changes import (
    begin_deletion,
    delete_user,
    rename_user,
    set_admin,
    stop_servers,
)
from carrel_hub.users.creation import create_users, existing_names, good_name
from carrel_hub.users.listing import with_details
from carrel_hub.users.models import Sight, user_model
from carrel_hub.users.paging import page_reply, read_page
from carrel_hub.users.shown import show_page

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]


@router.get("/users")
async def get_users(request: Request, hub: HubDep, subject: SubjectDep) -> JsonResponse:
    """The users the caller may list, in pages."""
    seen = extent(subject, Scope.LIST_USERS, {"user", "group"})
    page = read_page(request)
    query = request.query_params
    with_stopped = wants_stopped(query)
    listed, total = await show_page(
        hub.database,
        seen,
        page,
        state=query.get("state") or None,
        name_filter=query.get("name_filter", ""),
        sort=query.get("sort", "id"),
        with_stopped=with_stopped,
    )
    sight = Sight(subject)
    models = [
        user_model(
            one.user,
            one.servers,
            subject,
            hub.settings,
            groups=one.groups,
            with_stopped=with_stopped,
            sight=sight,
        )
        for one in listed
    ]
    return JsonResponse(page_reply(request, page, [m for m in models if m], total))


@router.post("/users")
async def post_users(request: Request, hub: HubDep, subject: SubjectDep) -> JsonResponse:
    """Make several users. Those who exist are left out."""
    authorise(subject, Scope.ADMIN_USERS)
    wanted, admin = new_users(json_body(await request.body()))
    if admin:
        refuse_new_admins(subject)
    names = list(dict.fromkeys(good_name(name, hub.settings.auth) for name in wanted))
    for name in names:
        refuse_to_raise(subject, hub.settings.role_book.granted_by_name(name), name)
    return await _create(hub, subject, names, admin)


@router.post("/users/{name}")
async def post_user(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JsonResponse:
    """Make one user."""
    authorise(subject, Scope.ADMIN_USERS, Resource(name))
    body = user_changes(json_body(await request.body()) or {})
    good = good_name(name, hub.settings.auth)
    authorise(subject, Scope.ADMIN_USERS, Resource(good))
    refuse_to_raise(subject, hub.settings.role_book.granted_by_name(good), good)
    if body.admin:
        refuse_new_admins(subject)
    return await _create(hub, subject, [good], bool(body.admin), one=True)


@router.patch("/users/{name}")
async def patch_user(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JsonResponse:
    """Rename a user, or make them an administrator or one no longer."""
    authorise(subject, Scope.ADMIN_USERS, Resource(name))
    raw, actor = await request.body(), subject.actor
    async with hub.database.write() as session:
        user = await find_user(session, name)
        if user is None:
            raise NotFoundError("")
        body = user_changes(json_body(raw))
        refuse_over_admins(subject, user, "change")
        if body.admin:
            refuse_new_admins(subject)
        if body.name is not None and (good := good_name(body.name, hub.settings.auth)) != user.name:
            refuse_to_raise(subject, hub.settings.role_book.granted_by_name(good), good)
            refuse_spoken_name(subject, hub.settings.role_book, good)
            await rename_user(
                session, hub, user, good, actor=actor, keep_access=is_administrator(subject)
            )
        if body.admin is not None:
            await set_admin(session, hub, user, body.admin, actor=actor)
        await session.flush()
        [listed] = await with_details(session, [user])
    model = user_model(user, listed.servers, subject, hub.settings, groups=listed.groups)
    return JsonResponse({**model, "auth_state": None})


@router.delete("/users/{name}", status_code=204)
async def remove_user(name: str, hub: HubDep, subject: SubjectDep) -> Response:
    """Delete a user, stopping their servers first."""
    authorise(subject, Scope.DELETE_USERS, Resource(name))
    if subject.is_user(name):
        raise InvalidRequestError("You cannot delete yourself")
    async with hub.database.read() as session:
        user = await find_user(session, name)
    if user is None:
        raise NotFoundError("")
    refuse_over_admins(subject, user, "delete")
    actor = subject.actor
    async with hub.database.write() as session:
        await begin_deletion(session, hub, user, actor=actor)
    reason = f"{subject.name} deleted the user {name}"
    await stop_servers(hub, user, actor=actor, reason=reason)
    async with hub.database.write() as session:
        user = await find_user(session, name)
        if user is not None:
            refuse_over_admins(subject, user, "delete")
            await delete_user(session, hub, user, actor=actor)
    return Response(status_code=204)


@router.post("/users/{name}/activity")
async def post_activity(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> Response:
    """Report that a user or a server was in use."""
    authorise(subject, Scope.USERS_ACTIVITY, Resource(name))
    await note_activity(hub, name, await request.body())
    return Response(status_code=200, headers={"content-type": "text/plain"})


async def _create(
    hub: HubDep, subject: Subject, names: list[str], admin: bool, *, one: bool = False
) -> JsonResponse:
    async with hub.database.write() as session:
        existing = await existing_names(session, names)
        new = [name for name in names if name not in existing]
        if not new:
            raise ConflictError(f"User {', '.join(sorted(existing))[:500]} already exists")
        users = await create_users(
            session,
            new,
            configured=await known_names(session, hub.settings),
            admin=admin,
            at=hub.clock.now(),
            actor=subject.actor,
        )
    models: list[dict[str, Any]] = [user_model(user, (), subject, hub.settings) for user in users]
    return JsonResponse(models[0] if one else models, status_code=201)
