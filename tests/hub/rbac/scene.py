"""A hub with people who trust each other differently, and everything that anybody may do there."""

import asyncio
import re
from collections.abc import Awaitable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from typing import Any, TypeVar

import httpx
from hub.web.site import form_of
from hub.world import World, open_world
from sqlalchemy import update
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.app import create_public_app
from carrel_hub.auth.links import create_link
from carrel_hub.auth.rights import Rights as Held
from carrel_hub.auth.rights import narrowed, owner_rights
from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import Group, RouteCounter, Server, Service, Token, User, UserGroup
from carrel_hub.rbac import identify_scopes, is_within, owner_scopes, service_identify_scopes
from carrel_hub.routing.changes import new_epoch
from carrel_hub.startup import apply_settings

T = TypeVar("T")

TABLES = [table for table in SQLModel.metadata.sorted_tables if table.name != "identity_counter"]
"""What is put back; the number that tells of changed rights only grows."""

_ID = re.compile(r"!(?:user|server)=u([0-9]+)")
SECRET = "s" * 40
PEOPLE = ("alice", "bob", "carol", "mallory")
ROLES: list[dict[str, Any]] = [
    {"name": "staff", "groups": ["staff"], "scopes": ["read:hub", "servers!group=team"]},
    {"name": "reader", "users": ["bob"], "scopes": ["list:users", "custom:notes:read"]},
    # Rights over, and of, somebody who does not exist.
    {"name": "waiting", "users": ["carol", "mallory"], "scopes": ["servers!user=ghost"]},
    {"name": "ghostly", "users": ["ghost"], "scopes": ["read:metrics"]},
]
SETTINGS: dict[str, Any] = {
    "allow_named_servers": True,
    "roles": ROLES,
    "custom_scopes": {"custom:notes:read": {"description": "read notes"}},
    "extra_user_scopes": [
        "shares!user", "read:users:name", "read:groups:name", "access:services!service=grader",
    ],
    "groups": {"team": {"users": ["bob"]}, "staff": {"users": ["carol"]}, "class": {}},
    "services": [
        {
            "name": "grader",
            "api_token": SECRET,
            "url": "http://127.0.0.1:9",
            "oauth_client_allowed_scopes": ["read:users!user", "tokens!user", "shares!user"],
        }
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Rights:
    """What everybody may do at one moment, with ids in place of names that can change.

    Attributes:
        users, services, tokens: By the id of each.
        members: Of the groups that are there.
        limits: Of each user, service and token, what a thing that is just made may do in any case.
    """

    users: dict[int, frozenset[str]]
    services: dict[int, frozenset[str]]
    tokens: dict[int, frozenset[str]]
    members: dict[str, set[str]]
    limits: dict[tuple[str, int], frozenset[str]] = field(default_factory=dict)

    def each(self) -> Iterable[tuple[tuple[str, int], frozenset[str]]]:
        for kind in ("users", "services", "tokens"):
            for number, scopes in getattr(self, kind).items():
                yield (kind, number), scopes


class Scene:
    """The hub, its people, and mallory, who has a browser as well."""

    def __init__(self) -> None:
        self._runner = asyncio.Runner()
        self._stack = AsyncExitStack()
        self.world: World = self.run(self._open())
        self._begin = self.run(self._rows())

    def run(self, work: Awaitable[T]) -> T:
        async def wait() -> T:
            return await work

        return self._runner.run(wait())

    def close(self) -> None:
        self.run(self._stack.aclose())
        self._runner.close()

    def reset(self) -> None:
        """Have everything as it was at first."""
        self.run(self._restore())

    async def _rows(self) -> dict[str, list[dict[str, Any]]]:
        async with self.world.hub.database.engine.connect() as connection:
            return {
                table.name: [
                    dict(row) for row in (await connection.execute(table.select())).mappings()
                ]
                for table in SQLModel.metadata.sorted_tables
            }

    async def _restore(self) -> None:
        async with self.world.hub.database.engine.begin() as connection:
            for table in reversed(TABLES):
                await connection.execute(table.delete())
            for table in TABLES:
                if rows := self._begin[table.name]:
                    await connection.execute(table.insert(), rows)
            await connection.execute(update(RouteCounter).values(epoch=new_epoch()))

    async def _open(self) -> World:
        world = await self._stack.enter_async_context(open_world(**SETTINGS))
        await apply_settings(world.hub)
        transport = httpx.ASGITransport(create_public_app(world.hub))
        self.api = httpx.AsyncClient(transport=transport, base_url="http://hub/hub/api")
        self.browser = httpx.AsyncClient(transport=transport, base_url="http://hub")
        for client in (self.api, self.browser):
            self._stack.push_async_callback(client.aclose)
        self.secrets: dict[str, str] = {}
        for name in (*PEOPLE, "root-of-hub"):
            await self._add(world, name)
        for name in ("lab", "desk"):
            await self.call(self.secrets["alice"], "PUT", f"/users/alice/servers/{name}")
        await self.call(self.secrets["mallory"], "PUT", "/users/mallory/servers/own")
        shared = {"group": "team", "scopes": ["access:servers", "servers"]}
        await self.call(self.secrets["alice"], "POST", "/shares/alice/lab", shared)
        return world

    async def _add(self, world: World, name: str) -> None:
        from carrel_hub.users.accounts import get_or_create_user

        async with world.hub.database.write() as db:
            admin, at = name == "root-of-hub", world.clock.now()
            user = await get_or_create_user(db, name, at=at, account=name, admin=admin)
            self.secrets[name] = (await issue_token(db, world.hub, user, actor="hub")).secret
            link = await create_link(db, world.hub, user)
        if name == "mallory":
            page = await self.browser.get(link.path)
            form = form_of(page, "sign-in")
            assert (await self.browser.post(form["action"], data=form["fields"])).status_code == 302

    async def narrowed_root(self, scopes: list[str]) -> str:
        """Return a token of the administrator's that may these things alone."""
        async with self.world.hub.database.write() as db:
            root = (await db.exec(select(User).where(User.name == "root-of-hub"))).one()
            new = await issue_token(db, self.world.hub, root, actor="hub", scopes=scopes)
        return new.secret

    async def call(
        self, secret: str, method: str, path: str, body: object = None
    ) -> httpx.Response:
        headers = {"Authorization": f"token {secret}"}
        reply = await self.api.request(method, path, json=body, headers=headers)
        assert reply.status_code < 500, f"{method} {path} {body}: {reply.text}"
        return reply

    async def rights(self) -> Rights:
        """Return everything that everybody may do now."""
        async with self.world.hub.database.read() as db:
            users = (await db.exec(select(User))).all()
            services = (await db.exec(select(Service))).all()
            servers = (await db.exec(select(Server))).all()
            names = {user.id: user.name for user in users}
            ids = {user.name: f"u{user.id}" for user in users}
            places = {f"{names[one.user_id]}/{one.name}": one.id for one in servers}
            groups = await self._groups(db, names)
            found = Rights({}, {}, {}, {g: {ids[name] for name in m} for g, m in groups.items()})
            held: dict[tuple[str, int | None], tuple[User | Service, Held]] = {}
            people: list[User | Service] = [*users, *services]
            for owner in people:
                kind = "users" if isinstance(owner, User) else "services"
                rights = Held((await owner_rights(db, self.world.hub, owner)).scopes, groups)
                held[kind, owner.id] = owner, rights
                getattr(found, kind)[owner.id] = by_id(rights.scopes, ids, places)
                if isinstance(owner, User):
                    own = owner_scopes(owner.name, admin=False, granted=self._usual)
                    found.limits[kind, owner.id or 0] = by_id(own, ids, places)
            for token in (await db.exec(select(Token))).all():
                key = ("users", token.user_id) if token.user_id else ("services", token.service_id)
                owner, rights = held[key]
                named = service_identify_scopes if isinstance(owner, Service) else identify_scopes
                may = narrowed(token.scopes, owner, rights)
                found.tokens[token.id or 0] = by_id(may, ids, places)
                found.limits["tokens", token.id or 0] = by_id(named(owner.name), ids, places)
        return found

    @property
    def _usual(self) -> tuple[str, ...]:
        return self.world.hub.settings.role_book.scopes("user")

    async def _groups(
        self, db: AsyncSession, names: Mapping[int | None, str]
    ) -> dict[str, set[str]]:
        groups = {one.id: one.name for one in (await db.exec(select(Group))).all()}
        found: dict[str, set[str]] = {name: set() for name in groups.values()}
        for link in (await db.exec(select(UserGroup))).all():
            found[groups[link.group_id]].add(names[link.user_id])
        return found


def by_id(
    scopes: Iterable[str], ids: Mapping[str, str], places: Mapping[str, str]
) -> frozenset[str]:
    """Return scopes with the ids of users and servers in place of their names."""
    found = set()
    for text in scopes:
        name, _, target = text.partition("!")
        kind, _, value = target.partition("=")
        if kind == "user":
            text = f"{name}!user={ids.get(value, f'?{value}')}"
        elif kind == "server":
            owner = value.partition("/")[0]
            text = f"{name}!server={ids.get(owner, f'?{owner}')}/{places.get(value, f'?{value}')}"
        found.add(text)
    return frozenset(found)


def raised(before: Rights, now: Rights, subject: frozenset[str]) -> list[str]:
    """Return who may more than they, or the subject of the requests between, might before.

    Over what there was: what is new belongs to who made it.
    """
    found, held = [], dict(before.each())
    for key, scopes in now.each():
        limit = held.get(key, frozenset()) | subject | now.limits.get(key, frozenset())
        for text in sorted(scopes):
            user = _ID.search(text)
            if "?" in text or (user is not None and int(user[1]) not in before.users):
                continue
            if not is_within([text], limit, now.members):
                found.append(f"{key}: {text}")
    return found
