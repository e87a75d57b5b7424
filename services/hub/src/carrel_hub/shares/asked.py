"""What the endpoints about shares have in common: the server that is asked for, and lists."""

from dataclasses import replace
from typing import Annotated, Any

from fastapi import Depends, Request
from fastapi.responses import JSONResponse
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject, current_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server
from carrel_hub.errors import ForbiddenError, NotFoundError
from carrel_hub.groups.store import find_group
from carrel_hub.rbac import GroupResource, Resource, Scope, expand, is_within, may
from carrel_hub.shares.bodies import Recipient
from carrel_hub.shares.scopes import DEFAULT, pinned, shared_names
from carrel_hub.shares.store import With
from carrel_hub.spawns.service import find_server, named_server
from carrel_hub.users.accounts import find_user
from carrel_hub.users.models import never_started
from carrel_hub.users.paging import Page, page_reply

SubjectDep = Annotated[Subject, Depends(current_subject)]


async def asked_server(session: AsyncSession, owner: str, name: str) -> Server:
    """Return a server that must be there, as everybody's default server is.

    Raises:
        NotFoundError: It is not.
    """
    user = await find_user(session, owner)
    server = None if user is None else await find_server(session, user, name)
    if server is None:
        if user is not None and not name:
            return never_started(user)
        raise NotFoundError(f"No such server: {owner}/{name}")
    return server


async def offered_server(
    session: AsyncSession, hub: Hub, subject: Subject, owner: str, name: str
) -> Server:
    """Return a server that is to be shared, with a row of its own.

    Raises:
        NotFoundError: It is not there.
    """
    server = await asked_server(session, owner, name)
    user = await find_user(session, owner)
    if server.id or user is None:
        return server
    return await named_server(session, hub, user, name, actor=subject.actor)


def grantable_names(
    hub: Hub, subject: Subject, server: Resource, scopes: list[str] | None
) -> list[str]:
    """Return the names of the scopes that a subject wants to share of a server, and may.

    Raises:
        InvalidRequestError: They cannot be shared.
        ForbiddenError: The subject does not have one of them.
    """
    names = shared_names(DEFAULT if scopes is None else scopes, server, hub.settings.role_book)
    for text in pinned(names, server):
        if not is_within(expand([text]), subject.scopes, subject.members):
            raise ForbiddenError(f"You cannot share {text}, which you do not have yourself")
    return names


def require_to_name(subject: Subject, recipient: Recipient) -> None:
    """Refuse to say, by sharing, whether there is a user or a group that one may not know of.

    Raises:
        ForbiddenError: The recipient is one.
    """
    scope, resource = (
        (Scope.READ_GROUPS_NAME, GroupResource(recipient.name))
        if recipient.is_group
        else (Scope.READ_USERS_NAME, Resource(recipient.name))
    )
    if not may(subject, scope, resource):
        raise ForbiddenError(f"Sharing with somebody by name needs {scope}")


def may_name_somebody(subject: Subject) -> bool:
    """Whether there can be anybody but themselves that a subject may share with by name."""
    own = f"{Scope.READ_USERS_NAME}!user={subject.name}"
    names = (Scope.READ_USERS_NAME, Scope.READ_GROUPS_NAME)
    return any(text.partition("!")[0] in names and text != own for text in subject.scopes)


async def find_recipient(session: AsyncSession, recipient: Recipient) -> With | None:
    """Return the user or the group of that name."""
    if recipient.is_group:
        return await find_group(session, recipient.name)
    return await find_user(session, recipient.name)


def list_reply(request: Request, page: Page, models: list[Any], total: int) -> JSONResponse:
    """Return a list, which says where it stands whatever the caller accepts."""
    return JSONResponse(page_reply(request, replace(page, described=True), models, total))
