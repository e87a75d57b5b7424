"""Who passes, hub and proxy together: visitors, and the end of access while sockets are open."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest
from integration.joined import Joined, Person, join
from proxy.wire import Client, Message, eventually, ok, read_request
from sqlmodel import select

from carrel_hub.auth.sessions import end_session
from carrel_hub.auth.tokens import issue_token, revoke_token
from carrel_hub.db.models import BrowserSession, Group, Token, User
from carrel_hub.groups.store import add_members, create_groups, remove_members
from carrel_hub.rbac import RoleBook
from carrel_hub.users.changes import set_admin
from carrel_proxy.core.websocket import accept_for

KEY = "dGhlIHNhbXBsZSBub25jZQ=="
HANDSHAKE = (
    "Connection: Upgrade",
    "Upgrade: websocket",
    "Sec-WebSocket-Version: 13",
    f"Sec-WebSocket-Key: {KEY}",
)


@pytest.fixture
async def joined(short_dir: Path) -> AsyncIterator[Joined]:
    async with join(short_dir) as made:
        made.upstream.script = lambda reader, writer: serve(made, reader, writer)
        yield made


async def serve(joined: Joined, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A target whose `/events` do not end, be they a stream or a WebSocket."""
    while True:
        request = await read_request(reader)
        joined.upstream.requests.append(request)
        if not request.target.endswith("/events"):
            writer.write(ok())
            continue
        if request.one("upgrade"):
            accept = accept_for(KEY.encode()).decode()
            writer.write(
                b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                + f"Sec-WebSocket-Accept: {accept}\r\n\r\n".encode()
            )
        else:
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        await reader.read()
        return


async def hold(stack: AsyncExitStack, joined: Joined, *fields: str) -> list[Client]:
    """Open a stream and a WebSocket to the server of alice."""
    found = []
    for more, status in (((), 200), (HANDSHAKE, 101)):
        client = await stack.enter_async_context(joined.connection())
        client.get("/user/alice/events", *fields, *more, host=f"127.0.0.1:{joined.port}")
        assert (await client.head()).status == status
        found.append(client)
    return found


def cookie_of(person: Person) -> str:
    """Return the field with a person's cookie for a server."""
    (cookie,) = (c for c in person.client.cookies.jar if c.name.startswith("carrel-session-"))
    return f"Cookie: {cookie.name}={cookie.value}"


async def row_of(joined: Joined, name: str) -> User:
    async with joined.hub.database.read() as db:
        return (await db.exec(select(User).where(User.name == name))).one()


def names(joined: Joined) -> list[str]:
    def name(request: Message) -> str:
        return str(json.loads(request.one("x-carrel-user") or "{}")["name"])

    return [name(request) for request in joined.upstream.requests]


async def test_a_visitor_passes_as_themselves_with_a_cookie_of_their_own(joined: Joined) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    admin = await joined.signed_in("root-of-all", admin=True)
    await alice.go(f"{joined.origin}/user/alice/lab")
    question = await admin.go(f"{joined.origin}/user/alice/lab")
    assert "the server of alice" in question.text
    await admin.press(question, "allow")
    assert set(names(joined)) == {"alice", "root-of-all"}
    assert cookie_of(alice) != cookie_of(admin)
    last = joined.upstream.requests[-1]
    assert json.loads(last.one("x-carrel-user") or "")["admin"] is True


async def test_somebody_without_a_right_does_not_pass(joined: Joined) -> None:
    await joined.server("alice")
    bob = await joined.signed_in("bob")
    assert (await bob.go(f"{joined.origin}/user/alice/lab")).status_code == 403
    assert joined.upstream.requests == []


async def sign_out(joined: Joined, person: Person) -> None:
    del person
    async with joined.hub.database.write() as db:
        user = (await db.exec(select(User).where(User.name == "alice"))).one()
        session = (
            await db.exec(select(BrowserSession).where(BrowserSession.user_id == user.id))
        ).one()
        await end_session(db, session, user, at=joined.hub.clock.now())


async def take_the_token(joined: Joined, person: Person) -> None:
    del person
    async with joined.hub.database.write() as db:
        alice = (await db.exec(select(User).where(User.name == "alice"))).one()
        for token in (await db.exec(select(Token).where(Token.client_id != None))).all():  # noqa: E711
            await revoke_token(
                db, joined.hub, token, actor="user:alice", owner=alice, reason="enough"
            )


ENDS: list[Callable[[Joined, Person], Awaitable[None]]] = [sign_out, take_the_token]


@pytest.mark.parametrize("end", ENDS)
async def test_what_ends_access_ends_what_is_open(
    end: Callable[[Joined, Person], Awaitable[None]], joined: Joined
) -> None:
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    await alice.go(f"{joined.origin}/user/alice/lab")
    async with AsyncExitStack() as stack:
        held = await hold(stack, joined, cookie_of(alice))
        await end(joined, alice)
        for client in held:
            await client.rest()
        client = await stack.enter_async_context(joined.connection())
        client.get("/user/alice/api", cookie_of(alice))
        assert (await client.response()).status == 403


async def test_an_api_token_that_is_deleted_ends_what_it_opened(joined: Joined) -> None:
    await joined.server("alice")
    user = await row_of(joined, "alice")
    async with joined.hub.database.write() as db:
        token = await issue_token(db, joined.hub, user, actor="user:alice")
    async with AsyncExitStack() as stack:
        held = await hold(stack, joined, f"Authorization: token {token.secret}")
        headers = {"Authorization": f"token {token.secret}"}
        address = f"{joined.origin}/hub/api/users/alice/tokens/a{token.row.id}"
        assert (await joined.person().client.delete(address, headers=headers)).status_code == 204
        for client in held:
            await client.rest()


async def test_whoever_is_no_longer_an_administrator_keeps_what_is_their_own(
    joined: Joined,
) -> None:
    """What is open is asked about, and only what is no longer allowed is cut."""
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    admin = await joined.signed_in("root-of-all", admin=True)
    await alice.go(f"{joined.origin}/user/alice/lab")
    await admin.press(await admin.go(f"{joined.origin}/user/alice/lab"), "allow")
    async with AsyncExitStack() as stack:
        owners = await hold(stack, joined, cookie_of(alice))
        visitors = await hold(stack, joined, cookie_of(admin))
        async with joined.hub.database.write() as db:
            for name in ("alice", "root-of-all"):
                user = (await db.exec(select(User).where(User.name == name))).one()
                user.admin = True
                await set_admin(db, joined.hub, user, False, actor="user:x")
        for client in visitors:
            await client.rest()
        await joined.until_current()
        await eventually(lambda: not joined.proxy.guard._asking)
        assert {grant.user for grant in joined.proxy.edge.grants()} == {"alice"}
        assert len(owners) == len(list(joined.proxy.edge.grants()))


async def test_a_group_that_is_left_ends_what_it_allowed(joined: Joined) -> None:
    """A token of an administrator's for the servers of one group, and of nobody else."""
    await joined.server("alice")
    await joined.user("root-of-all", admin=True)
    admin, alice = await row_of(joined, "root-of-all"), await row_of(joined, "alice")
    at = joined.hub.clock.now()
    async with joined.hub.database.write() as db:
        (group,) = await create_groups(db, ["pupils"], [alice], at=at, actor="user:x")
        token = await issue_token(
            db, joined.hub, admin, actor="user:x", scopes=["access:servers!group=pupils"]
        )
    async with AsyncExitStack() as stack:
        held = await hold(stack, joined, f"Authorization: token {token.secret}")
        async with joined.hub.database.write() as db:
            found = await db.get_one(Group, group.id)
            await remove_members(db, found, [alice], RoleBook(), at=at, actor="user:x")
        for client in held:
            await client.rest()
        async with joined.hub.database.write() as db:
            found = await db.get_one(Group, group.id)
            await add_members(db, found, [alice], at=at, actor="user:x")


async def test_two_tabs_one_signs_out(joined: Joined) -> None:
    """ADV-03: the other polls meanwhile, and no answer of it makes the browser signed in again."""
    await joined.server("alice")
    alice = await joined.signed_in("alice")
    await alice.go(f"{joined.origin}/user/alice/lab")
    statuses: list[int] = []
    stop = asyncio.Event()

    async def poll() -> None:
        cookie = dict([cookie_of(alice).split(": ", 1)])
        async with asyncio.timeout(60):
            while not stop.is_set():
                try:
                    reply = await joined.person().client.get(
                        f"{joined.origin}/user/alice/api/kernels", headers=cookie
                    )
                except httpx.RemoteProtocolError:
                    continue  # cut off in the moment of signing out
                statuses.append(reply.status_code)
                assert "set-cookie" not in reply.headers

    async with asyncio.TaskGroup() as group:
        group.create_task(poll())
        await eventually(lambda: len(statuses) > 3)
        await alice.go(f"{joined.origin}/hub/logout")
        await eventually(lambda: statuses[-1] == 403)
        before = len(statuses)
        await eventually(lambda: len(statuses) > before + 3)
        stop.set()
    assert set(statuses[before:]) == {403}
