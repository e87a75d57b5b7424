"""`{hub}api/groups`: groups and who is in them."""

from typing import Annotated

from fastapi import Depends, Request, Response
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Group
from carrel_hub.deps import HubDep
from carrel_hub.errors import NotFoundError
from carrel_hub.events import record
from carrel_hub.groups.bodies import (
    good_group_name,
    named_members,
    new_groups,
    new_members,
    new_properties,
)
from carrel_hub.groups.models import GROUP_KEYS, group_model
from carrel_hub.groups.store import (
    add_members,
    create_groups,
    delete_group,
    find_group,
    find_users,
    group_subject,
    list_groups,
    member_names,
    remove_members,
)
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import GroupResource, Scope, authorise, authorise_any, extent
from carrel_hub.shares.store import scopes_of_group
from carrel_hub.users.access import refuse_over_admins, refuse_to_raise
from carrel_hub.users.bodies import json_body
from carrel_hub.users.paging import page_reply, read_page

router = LateRouter()

SubjectDep = Annotated[Subject, Depends(current_subject)]


@router.get("/groups")
async def get_groups(request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """The groups the caller may list, in pages."""
    seen = extent(subject, Scope.LIST_GROUPS, {"group"})
    page = read_page(request)
    async with hub.database.read() as session:
        groups, total = await list_groups(session, seen, page)
        users = await member_names(session, groups)
    models = [
        group_model(group, users.get(group.id or 0, ()), subject, hub.settings.role_book)
        for group in groups
    ]
    return JSONResponse(page_reply(request, page, models, total))


@router.post("/groups")
async def post_groups(request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Make several groups with the same users."""
    authorise(subject, Scope.ADMIN_GROUPS)
    names, members = new_groups(json_body(await request.body()))
    return JSONResponse(await _create(hub, subject, names, members), status_code=201)


@router.get("/groups/{name}")
async def get_group(name: str, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """One group, as far as the caller may see it."""
    authorise_any(subject, [*GROUP_KEYS], GroupResource(name))
    async with hub.database.read() as session:
        group = await _group(session, name)
        return JSONResponse(await _model(session, hub, group, subject))


@router.post("/groups/{name}")
async def post_group(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Make one group."""
    authorise(subject, Scope.ADMIN_GROUPS, GroupResource(name))
    members = new_members(json_body(await request.body()))
    [model] = await _create(hub, subject, [good_group_name(name)], members)
    return JSONResponse(model, status_code=201)


@router.delete("/groups/{name}", status_code=204)
async def remove_group(name: str, hub: HubDep, subject: SubjectDep) -> Response:
    """Delete a group; its users stay."""
    authorise(subject, Scope.DELETE_GROUPS, GroupResource(name))
    async with hub.database.write() as session:
        group = await _group(session, name)
        book, at = hub.settings.role_book, hub.clock.now()
        await delete_group(session, group, book, at=at, actor=subject.actor)
    return Response(status_code=204)


@router.post("/groups/{name}/users")
async def join(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Put users into a group."""
    return await _change_members(name, request, hub, subject, joining=True)


@router.delete("/groups/{name}/users")
async def leave(name: str, request: Request, hub: HubDep, subject: SubjectDep) -> JSONResponse:
    """Take users out of a group."""
    return await _change_members(name, request, hub, subject, joining=False)


@router.put("/groups/{name}/properties")
async def put_properties(
    name: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """Replace what is kept with a group."""
    authorise(subject, Scope.GROUPS, GroupResource(name))
    raw = await request.body()
    async with hub.database.write() as session:
        group = await _group(session, name)
        group.properties = new_properties(json_body(raw))
        session.add(group)
        actor, subject_of_it = subject.actor, group_subject(name)
        record(session, "group.properties_changed", actor, subject_of_it, at=hub.clock.now())
        await session.flush()
        return JSONResponse(await _model(session, hub, group, subject))


async def _change_members(
    name: str, request: Request, hub: HubDep, subject: Subject, *, joining: bool
) -> JSONResponse:
    authorise(subject, Scope.GROUPS, GroupResource(name))
    raw = await request.body()
    async with hub.database.write() as session:
        group = await _group(session, name)
        members = named_members(json_body(raw))
        users = await find_users(session, members, hub.settings.auth)
        actor, at = subject.actor, hub.clock.now()
        if joining:
            granted = hub.settings.role_book.granted_by_group(name)
            granted += await scopes_of_group(session, group)
            for user in users:  # who has rights over the group's members gets them over the new one
                refuse_over_admins(subject, user, "put into a group")
                refuse_to_raise(subject, granted, user.name)
            await add_members(session, group, users, at=at, actor=actor)
        else:
            book = hub.settings.role_book
            await remove_members(session, group, users, book, at=at, actor=actor)
        return JSONResponse(await _model(session, hub, group, subject))


async def _create(
    hub: HubDep, subject: Subject, names: list[str], members: list[str]
) -> list[dict[str, object]]:
    async with hub.database.write() as session:
        users = await find_users(session, members, hub.settings.auth)
        for user in users:
            refuse_over_admins(subject, user, "put into a group")
            for name in names:
                granted = hub.settings.role_book.granted_by_group(name)
                refuse_to_raise(subject, granted, user.name)
        actor = subject.actor
        groups = await create_groups(session, names, users, at=hub.clock.now(), actor=actor)
        found = await member_names(session, groups)
        book = hub.settings.role_book
        return [group_model(group, found.get(group.id or 0, ()), subject, book) for group in groups]


async def _group(session: AsyncSession, name: str) -> Group:
    group = await find_group(session, name)
    if group is None:
        raise NotFoundError("")
    return group


async def _model(
    session: AsyncSession, hub: Hub, group: Group, subject: Subject
) -> dict[str, object]:
    users = await member_names(session, [group])
    return group_model(group, users.get(group.id or 0, ()), subject, hub.settings.role_book)
