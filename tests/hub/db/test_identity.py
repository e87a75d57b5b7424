"""Who may do what is remembered, and forgotten at once here and within a second elsewhere."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import httpx
import pytest
from hub.world import World, open_world
from sqlalchemy import event, text
from sqlmodel import SQLModel, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.app import create_public_app
from carrel_hub.auth.cookies import LOGIN_COOKIE
from carrel_hub.auth.known import LOOK_SECONDS, MOST, Known
from carrel_hub.auth.sessions import begin_session, end_session
from carrel_hub.auth.subjects import hub_signer
from carrel_hub.auth.tokens import issue_token, revoke_token
from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.identity import NUMBER, WITHOUT_RIGHTS, changes_rights
from carrel_hub.db.models import BrowserSession, Group, Service, Share, Token, User
from carrel_hub.groups.store import add_members, create_groups, remove_members
from carrel_hub.services.store import delete_service
from carrel_hub.spawns.service import ensure_server
from carrel_hub.startup import apply_settings
from carrel_hub.users.changes import delete_user, rename_user, set_admin
from carrel_shared.tasks import TaskOwner

ROLES = [{"name": "staff", "scopes": ["list:users"], "groups": ["staff"]}]
PREFIX = "hub-login"


@dataclass
class Two:
    """Two hubs on one database, and somebody who asks both."""

    world: World
    other: Hub
    here: httpx.AsyncClient
    there: httpx.AsyncClient

    async def scopes(self, client: httpx.AsyncClient) -> set[str] | None:
        """What the asker may do, as one hub says; None when it knows nobody."""
        reply = await client.get("/hub/api/user")
        return set(reply.json()["scopes"]) if reply.status_code == 200 else None


@asynccontextmanager
async def two_hubs(headers: dict[str, str], world: World) -> AsyncIterator[Two]:
    hub = world.hub
    database = Database(hub.settings.effective_database_url)
    other = Hub(hub.settings, database, hub.clock, TaskOwner())

    def client(asked: Hub) -> httpx.AsyncClient:
        transport = httpx.ASGITransport(create_public_app(asked))
        return httpx.AsyncClient(transport=transport, base_url="http://hub", headers=headers)

    try:
        async with client(hub) as here, client(other) as there:
            yield Two(world, other, here, there)
    finally:
        await other.tasks.close()
        await database.close()


Change = Callable[[AsyncSession, Hub, User], Awaitable[None]]


async def token_revoked(db: AsyncSession, hub: Hub, user: User) -> None:
    [row] = (await db.exec(select(Token).where(Token.user_id == user.id))).all()
    await revoke_token(db, hub, row, actor="test", owner=user, reason="enough")


async def no_admin(db: AsyncSession, hub: Hub, user: User) -> None:
    await set_admin(db, hub, user, False, actor="test")


async def disabled(db: AsyncSession, _hub: Hub, user: User) -> None:
    user.disabled = True
    db.add(user)


async def renamed(db: AsyncSession, hub: Hub, user: User) -> None:
    await rename_user(db, hub, user, "alicia", actor="test", keep_access=True)


async def deleted(db: AsyncSession, hub: Hub, user: User) -> None:
    await delete_user(db, hub, user, actor="test")


async def out_of_the_group(db: AsyncSession, hub: Hub, user: User) -> None:
    group = (await db.exec(select(Group))).one()
    book, at = hub.settings.role_book, hub.clock.now()
    await remove_members(db, group, [user], book, at=at, actor="test")


async def no_longer_shared(db: AsyncSession, _hub: Hub, _user: User) -> None:
    await db.delete((await db.exec(select(Share))).one())


async def by_hand(db: AsyncSession, _hub: Hub, _user: User) -> None:
    await (await db.connection()).execute(text("DELETE FROM tokens"))


CHANGES: dict[str, tuple[Change, str | None]] = {
    "token revoked": (token_revoked, None),
    "no administrator any more": (no_admin, "admin:users"),
    "disabled": (disabled, None),
    "renamed": (renamed, "read:users:name!user=alice"),
    "deleted": (deleted, None),
    "out of the group": (out_of_the_group, "list:users"),
    "no longer shared": (no_longer_shared, "access:servers!server=bob/"),
    "by hand": (by_hand, None),
}
"""What happens, and which scope goes; None when all do."""


async def alice(world: World, change: str) -> tuple[User, str]:
    """Make somebody who has what the change takes away, and return their token."""
    hub, at = world.hub, world.clock.now()
    admin = change == "no administrator any more"
    async with hub.database.write() as db:
        user = User(name="alice", admin=admin, created=at)
        bob = User(name="bob", created=at)
        db.add_all([user, bob])
        await db.flush()
        if change == "out of the group":
            [group] = await create_groups(db, ["staff"], [], at=at, actor="test")
            await add_members(db, group, [user], at=at, actor="test")
        if change == "no longer shared":
            server = await ensure_server(db, bob, at=at)
            share = Share(server_id=server.id, user_id=user.id, created=at)
            share.scopes = ["access:servers"]
            db.add(share)
        new = await issue_token(db, hub, user, actor="test")
    return user, new.secret


@pytest.mark.parametrize("name", CHANGES)
async def test_a_change_counts_at_once_here_and_soon_elsewhere(name: str) -> None:
    change, scope = CHANGES[name]
    async with open_world(roles=ROLES) as world:
        user, secret = await alice(world, name)
        async with two_hubs({"Authorization": f"token {secret}"}, world) as two:
            for client in (two.here, two.there):
                before = await two.scopes(client)
                assert before is not None
                assert scope is None or scope in before
            async with world.hub.database.write() as db:
                await change(db, world.hub, await db.get_one(User, user.id))
            here = await two.scopes(two.here)
            assert here is None if scope is None else scope not in (here or {scope})
            world.clock.advance(LOOK_SECONDS)
            there = await two.scopes(two.there)
            assert there is None if scope is None else scope not in (there or {scope})


async def test_signing_out_counts_at_once_here_and_soon_elsewhere() -> None:
    async with open_world() as world:
        hub = world.hub
        user, _ = await alice(world, "")
        signer = hub_signer(hub)
        async with hub.database.write() as db:
            new = await begin_session(db, hub, signer, user, how="link")
        cookie = {"Cookie": f"{LOGIN_COOKIE}={signer.sign(PREFIX, new.secret)}"}
        async with two_hubs(cookie, world) as two:
            assert await two.scopes(two.here)
            assert await two.scopes(two.there)
            async with hub.database.write() as db:
                row = (await db.exec(select(BrowserSession))).one()
                await end_session(db, row, user, at=world.clock.now())
            assert await two.scopes(two.here) is None
            world.clock.advance(LOOK_SECONDS)
            assert await two.scopes(two.there) is None


async def test_a_service_that_goes_takes_its_token_along() -> None:
    service = {"name": "robot", "api_token": "r" * 40, "admin": True}
    async with open_world(services=[service]) as world:
        await apply_settings(world.hub)
        async with two_hubs({"Authorization": f"token {'r' * 40}"}, world) as two:
            assert await two.scopes(two.here)
            assert await two.scopes(two.there)
            async with world.hub.database.write() as db:
                row = (await db.exec(select(Service))).one()
                await delete_service(db, world.hub, row, actor="test")
            assert await two.scopes(two.here) is None
            world.clock.advance(LOOK_SECONDS)
            assert await two.scopes(two.there) is None


async def test_what_is_remembered_expires_in_time() -> None:
    async with open_world() as world:
        hub = world.hub
        user, _ = await alice(world, "")
        async with hub.database.write() as db:
            life = timedelta(seconds=LOOK_SECONDS / 2)
            new = await issue_token(db, hub, user, actor="test", expires_in=life)
        async with two_hubs({"Authorization": f"token {new.secret}"}, world) as two:
            assert await two.scopes(two.here)
            world.clock.advance(LOOK_SECONDS / 2)
            assert await two.scopes(two.here) is None


async def test_a_new_right_is_there_at_once() -> None:
    async with open_world(roles=ROLES) as world:
        user, secret = await alice(world, "")
        async with two_hubs({"Authorization": f"token {secret}"}, world) as two:
            assert "list:users" not in (await two.scopes(two.here) or ())
            async with world.hub.database.write() as db:
                at = world.clock.now()
                [group] = await create_groups(db, ["staff"], [], at=at, actor="test")
                await add_members(db, group, [user], at=at, actor="test")
            assert "list:users" in (await two.scopes(two.here) or ())


async def test_who_is_known_is_not_read_again(world: World) -> None:
    _, secret = await alice(world, "")
    asked: list[str] = []
    async with two_hubs({"Authorization": f"token {secret}"}, world) as two:
        await two.scopes(two.here)

        @event.listens_for(world.hub.database._reader.sync_engine, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, *_others: Any) -> None:
            if "FROM tokens" in statement:
                asked.append(statement)

        for _ in range(5):
            assert await two.scopes(two.here)
        assert asked == []


async def test_only_so_many_are_remembered(world: World) -> None:
    known: Known[int] = Known(world.hub.database, world.clock)
    loaded: list[int] = []

    async def find(number: int) -> None:
        async def load(_db: AsyncSession) -> int:
            loaded.append(number)
            return number

        assert await known.find(str(number), load) == number

    for number in [*range(MOST), 0, MOST]:  # 0 is used again, so 1 has to go
        await find(number)
    loaded.clear()
    for number in (0, MOST, 1):
        await find(number)
    assert loaded == [1]


@pytest.mark.parametrize(
    ("statement", "may"),
    [
        ("UPDATE users SET last_activity=? WHERE users.id = ?", False),
        ("UPDATE users SET last_activity=$1::TIMESTAMP WITH TIME ZONE WHERE users.id = $2", False),
        ("UPDATE users SET admin=?, last_activity=? WHERE users.id = ?", True),
        ("UPDATE tokens SET last_activity=?", False),
        ("UPDATE tokens SET scopes=? WHERE id = ?", True),
        ("UPDATE servers SET state=?, progress_message=? WHERE servers.id = ?", False),
        ("UPDATE servers SET name=?, display_name=? WHERE servers.id = ?", True),
        ("UPDATE route_counter SET number=(number + ?) RETURNING number", False),
        ("INSERT INTO tokens (token_hash) VALUES (?)", False),
        ("INSERT INTO users (name) VALUES (?) ON CONFLICT (name) DO UPDATE SET admin = 1", True),
        ("INSERT INTO user_groups (group_id, user_id) VALUES (?, ?)", True),
        ('INSERT INTO "something_new" (id) VALUES (?)', True),
        ("DELETE FROM servers WHERE servers.id = ?", True),
        ("DELETE FROM events WHERE id < ?", False),
        ("  delete from tokens", True),
        ("WITH old AS (SELECT 1) DELETE FROM tokens", True),
        ("SELECT * FROM tokens", False),
        ("SAVEPOINT sa_savepoint_1", False),
    ],
)
def test_what_changes_rights(statement: str, may: bool) -> None:
    assert changes_rights(statement) is may


def test_every_table_was_thought_about() -> None:
    with_rights = {
        *("browser_sessions", "groups", "servers", "services", "shares", "tokens"),
        *("user_groups", "users"),
    }
    assert SQLModel.metadata.tables.keys() - WITHOUT_RIGHTS == with_rights


async def test_what_is_undone_changes_nothing(world: World) -> None:
    await alice(world, "")
    database = world.hub.database

    async def number() -> int:
        return await database.fetch_one(NUMBER) or 0

    async def fail() -> None:
        async with database.write() as db:
            await (await db.connection()).execute(text("DELETE FROM tokens"))
            raise KeyError

    before = await number()
    with pytest.raises(KeyError):
        await fail()
    async with database.write() as db:
        await (await db.connection()).execute(text("DELETE FROM tokens WHERE id = 999"))
    assert await number() == before
    async with database.write() as db:
        await (await db.connection()).execute(text("DELETE FROM tokens"))
    assert await number() == before + 1
