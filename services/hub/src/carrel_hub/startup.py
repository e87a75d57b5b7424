"""What the settings say is there from the start, made so each time a hub starts.

Users and groups are added to and never taken away from; services are exactly those that the
settings name, beside those that were made over the API; who is blocked loses what they have,
and sign-ins end with the shared password that they were made with.
"""

import structlog
from sqlalchemy.exc import IntegrityError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.rules import (
    administrators_named,
    anybody_allowed,
    blocked_names,
    people_named,
)
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.auth.shared_passwords import end_stale_sessions
from carrel_hub.context import Hub
from carrel_hub.db.models import Group, Service, User, UserGroup
from carrel_hub.errors import ConflictError
from carrel_hub.events import HUB_ACTOR
from carrel_hub.groups.store import add_members, create_groups, find_group, remove_members
from carrel_hub.routing.changes import revoke
from carrel_hub.services.bodies import WantedService
from carrel_hub.services.launch import service_token
from carrel_hub.services.managed import want_services
from carrel_hub.services.settings import ServiceSettings
from carrel_hub.services.store import delete_service, find_service, put_service
from carrel_hub.spawns.service import request_stop
from carrel_hub.users.accounts import find_user, get_or_create_user
from carrel_hub.users.changes import active_servers, forget_access, set_admin
from carrel_shared.wire.routes import Revocation

log = structlog.get_logger(__name__)

_TRIES = 3


class StartupError(Exception):
    """The settings and the database contradict each other; the message says where."""


async def apply_settings(hub: Hub) -> None:
    """Bring the database to what the settings say, in one transaction.

    Raises:
        StartupError: They cannot be brought together.
    """
    for event, advice in doubts(hub.settings.auth):
        log.warning(event, advice=advice)
    for left in reversed(range(_TRIES)):
        try:
            await _apply(hub)
        except (ConflictError, IntegrityError) as error:
            if left:  # another hub that starts in this moment may have been quicker
                continue
            reason = error.message if isinstance(error, ConflictError) else str(error.orig)
            raise StartupError(reason) from error
        return


async def _apply(hub: Hub) -> None:
    async with hub.database.write() as session:
        await _make_people(session, hub)
        await _make_groups(session, hub)
        await _make_services(session, hub)
        await want_services(session, hub)
        await _take_from_the_blocked(session, hub)
        await end_stale_sessions(session, hub)


def doubts(auth: AuthSettings) -> list[tuple[str, str]]:
    """Return what in the settings of signing in is likely not meant: an event and advice. Pure."""
    found = []
    if auth.authenticator == "dummy":
        found.append(("sign_in_is_open", "dummy believes every name; it is for tests alone"))
    if auth.checks_passwords and not anybody_allowed(auth, console_users=False):
        found.append(("nobody_may_sign_in", "name people in allowed_users, or set allow_all"))
    short = sorted(
        text for text in (*auth.allowed_users, *auth.admin_users) if len(text.strip()) == 1
    )
    if short:
        found.append(("names_of_one_letter", f"a text in place of a list? {', '.join(short)}"))
    if auth.authenticator == "shared-password":
        if auth.user_password is None:
            found.append(("no_user_password", "only those with a group's password may sign in"))
        if auth.admin_password is not None and not auth.admin_users:
            found.append(("admin_password_unused", "admin_users names nobody who could use it"))
    return found


async def _make_people(session: AsyncSession, hub: Hub) -> None:
    settings, at = hub.settings, hub.clock.now()
    admins = administrators_named(settings.auth)
    names = {*people_named(settings.auth)}
    names.update(name for role in settings.roles for name in role.users)
    names.update(name for group in settings.groups.values() for name in group.users)
    known = set((await session.exec(select(User.name).where(col(User.name).in_(names)))).all())
    for name in sorted(names - (known - admins)):
        await get_or_create_user(session, name, at=at, admin=name in admins)


async def _make_groups(session: AsyncSession, hub: Hub) -> None:
    settings, at = hub.settings, hub.clock.now()
    named = {name for role in settings.roles for name in role.groups} | settings.groups.keys()
    named |= settings.auth.group_passwords.keys()
    for name in sorted(named):
        group = await find_group(session, name)
        wanted = settings.groups.get(name)
        if group is None:
            [group] = await create_groups(session, [name], [], at=at, actor=HUB_ACTOR)
            if wanted is not None and wanted.properties:
                group.properties = wanted.properties
                session.add(group)
        if wanted is not None and wanted.users:
            statement = select(User).where(col(User.name).in_(wanted.users)).order_by(col(User.id))
            users = (await session.exec(statement)).all()
            await add_members(session, group, users, at=at, actor=HUB_ACTOR)


async def _make_services(session: AsyncSession, hub: Hub) -> None:
    entries = {entry.name: entry for entry in hub.settings.services}
    statement = select(Service).where(col(Service.from_settings))
    for row in (await session.exec(statement)).all():
        if row.name not in entries:
            await delete_service(session, hub, row, actor=HUB_ACTOR)
    for entry in entries.values():
        found = await find_service(session, entry.name)
        if found is not None and not found.from_settings:
            raise ConflictError(
                f"services: {entry.name!r} was made over the API already; delete it there, or give"
                " the one in the settings another name"
            )
        wanted = _wanted(hub, entry)
        await put_service(session, hub, wanted, actor=HUB_ACTOR, from_settings=True)


def _elsewhere(hub: Hub, entry: ServiceSettings) -> str:
    """Return the host that a service is reached on by its relay; nothing where there is none."""
    here = {peer.name for peer in hub.settings.agents}
    return entry.host if entry.host is not None and entry.host not in here else ""


def _wanted(hub: Hub, entry: ServiceSettings) -> WantedService:
    token = entry.api_token.get_secret_value() if entry.api_token else None
    if entry.command is not None:
        token = service_token(hub.settings, entry)
    return WantedService(
        name=entry.name,
        admin=entry.admin,
        url=entry.url,
        info=entry.info,
        display=entry.display,
        api_token=token,
        command=entry.command or [],
        host=_elsewhere(hub, entry),
        client_id=entry.oauth_client_id,
        redirect_uri=entry.oauth_redirect_uri,
        allowed_scopes=hub.settings.role_book.full(entry.oauth_client_allowed_scopes),
        no_confirm=entry.oauth_no_confirm,
    )


async def _take_from_the_blocked(session: AsyncSession, hub: Hub) -> None:
    for name in blocked_names(hub.settings.auth):
        user = await find_user(session, name)
        if user is None:
            continue
        await set_admin(session, hub, user, False, actor=HUB_ACTOR)
        await forget_access(session, user)
        groups = (
            await session.exec(
                select(Group)
                .join(UserGroup, col(UserGroup.group_id) == col(Group.id))
                .where(UserGroup.user_id == user.id)
            )
        ).all()
        for group in groups:
            book, at = hub.settings.role_book, hub.clock.now()
            await remove_members(session, group, [user], book, at=at, actor=HUB_ACTOR)
        for row in await active_servers(session, user):
            reason = f"{name} is blocked in the hub's settings"
            await request_stop(session, hub, row, actor=HUB_ACTOR, reason=reason)
        await revoke(session, Revocation(user=name))
