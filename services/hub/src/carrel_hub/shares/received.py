"""`{hub}api/users/NAME/shared` and `groups/NAME/shared`: what they were given, and its end."""

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from sqlmodel import col
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Group, Share, User
from carrel_hub.deps import HubDep
from carrel_hub.errors import NotFoundError
from carrel_hub.groups.store import find_group
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import GroupResource, Resource, Scope, authorise
from carrel_hub.shares.asked import SubjectDep, asked_server, list_reply
from carrel_hub.shares.models import Shared, share_model
from carrel_hub.shares.store import With, find_share, list_shares, of_user, revoke_share
from carrel_hub.users.accounts import find_user
from carrel_hub.users.paging import read_page

router = LateRouter()

_OF_USER = "/users/{user_name}/shared"
_OF_GROUP = "/groups/{group_name}/shared"
_DEFAULT, _NAMED = "/{owner}/", "/{owner}/{name}"


@router.get(_OF_USER)
async def get_shared_with_user(
    user_name: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """The servers that somebody was given, by name or by a group, in pages."""
    authorise(subject, Scope.READ_USERS_SHARES, Resource(user_name))
    page = read_page(request)
    async with hub.database.read() as session:
        user = await _user(session, user_name)
        shares, total = await list_shares(session, of_user(user), page)
    return list_reply(request, page, [share_model(one, hub.settings) for one in shares], total)


@router.get(_OF_USER + _DEFAULT)
@router.get(_OF_USER + _NAMED)
async def get_share_with_user(
    user_name: str, owner: str, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """What somebody was given of a server, by name."""
    authorise(subject, Scope.READ_USERS_SHARES, Resource(user_name))
    async with hub.database.read() as session:
        shared = await _shared(session, await _user(session, user_name), owner, name)
    return JSONResponse(share_model(shared, hub.settings))


@router.delete(_OF_USER + _DEFAULT, status_code=204)
@router.delete(_OF_USER + _NAMED, status_code=204)
async def leave_as_user(
    user_name: str, owner: str, hub: HubDep, subject: SubjectDep, name: str = ""
) -> Response:
    """Give back what somebody was given of a server."""
    authorise(subject, Scope.USERS_SHARES, Resource(user_name))
    async with hub.database.write() as session:
        await leave(session, hub, subject, await _user(session, user_name), owner, name)
    return Response(status_code=204)


@router.get(_OF_GROUP)
async def get_shared_with_group(
    group_name: str, request: Request, hub: HubDep, subject: SubjectDep
) -> JSONResponse:
    """The servers that a group was given, in pages."""
    authorise(subject, Scope.READ_GROUPS_SHARES, GroupResource(group_name))
    page = read_page(request)
    async with hub.database.read() as session:
        group = await _group(session, group_name)
        where = [col(Share.group_id) == group.id]
        shares, total = await list_shares(session, where, page)
    return list_reply(request, page, [share_model(one, hub.settings) for one in shares], total)


@router.get(_OF_GROUP + _DEFAULT)
@router.get(_OF_GROUP + _NAMED)
async def get_share_with_group(
    group_name: str, owner: str, hub: HubDep, subject: SubjectDep, name: str = ""
) -> JSONResponse:
    """What a group was given of a server."""
    authorise(subject, Scope.READ_GROUPS_SHARES, GroupResource(group_name))
    async with hub.database.read() as session:
        shared = await _shared(session, await _group(session, group_name), owner, name)
    return JSONResponse(share_model(shared, hub.settings))


@router.delete(_OF_GROUP + _DEFAULT, status_code=204)
@router.delete(_OF_GROUP + _NAMED, status_code=204)
async def leave_as_group(
    group_name: str, owner: str, hub: HubDep, subject: SubjectDep, name: str = ""
) -> Response:
    """Give back what a group was given of a server."""
    authorise(subject, Scope.GROUPS_SHARES, GroupResource(group_name))
    async with hub.database.write() as session:
        await leave(session, hub, subject, await _group(session, group_name), owner, name)
    return Response(status_code=204)


async def leave(
    session: AsyncSession, hub: Hub, subject: Subject, who: With, owner: str, name: str
) -> None:
    """Give back everything that somebody was given of a server.

    Raises:
        NotFoundError: Nothing was.
    """
    shared = await _shared(session, who, owner, name)
    at, actor = hub.clock.now(), subject.actor
    await revoke_share(session, shared.server, who, None, at=at, actor=actor)


async def _shared(session: AsyncSession, who: With, owner: str, name: str) -> Shared:
    try:
        server = await asked_server(session, owner, name)
    except NotFoundError:
        server = None
    shared = None if server is None else await find_share(session, server, who)
    if shared is None:
        raise NotFoundError(f"No share of {owner}/{name} with {who.name}")
    return shared


async def _user(session: AsyncSession, name: str) -> User:
    user = await find_user(session, name)
    if user is None:
        raise NotFoundError(f"No such user: {name}")
    return user


async def _group(session: AsyncSession, name: str) -> Group:
    group = await find_group(session, name)
    if group is None:
        raise NotFoundError("")
    return group
