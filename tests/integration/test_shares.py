"""Shared servers, hub and proxy together: who comes in, and how soon they are out again."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
from integration.joined import Joined, Person, join
from integration.test_access import cookie_of, hold, names, row_of, serve
from proxy.wire import Client, eventually

from carrel_hub.auth.tokens import issue_token
from carrel_hub.db.models import User

SHARES = "/hub/api/shares/alice/"
GUESTS = "/hub/api/groups/guests"


@pytest.fixture
async def joined(short_dir: Path) -> AsyncIterator[Joined]:
    roles = [{"name": "helper", "users": ["helper"], "scopes": ["access:servers!group=pupils"]}]
    scopes = ["shares!user", "read:users:name", "read:groups:name"]
    async with join(short_dir, extra_user_scopes=scopes, roles=roles) as made:
        made.upstream.script = lambda reader, writer: serve(made, reader, writer)
        await made.server("alice")
        yield made


async def call(joined: Joined, name: str, method: str, path: str, json: object = None) -> None:
    """Call the API as somebody, with a new token of theirs."""
    user = await row_of(joined, name)
    async with joined.hub.database.write() as db:
        token = await issue_token(db, joined.hub, user, actor="user:x")
    headers = {"Authorization": f"token {token.secret}"}
    client = joined.person().client
    reply = await client.request(method, f"{joined.origin}{path}", json=json, headers=headers)
    assert reply.status_code in (200, 201, 204), reply.text


async def visiting(joined: Joined, person: Person) -> None:
    """Have somebody in whose server it is not."""
    question = await person.go(f"{joined.origin}/user/alice/lab")
    assert "the server of alice" in question.text
    await person.press(question, "allow")


async def share_with_bob(joined: Joined) -> None:
    await call(joined, "alice", "POST", SHARES, {"user": "bob"})


async def share_with_group(joined: Joined) -> None:
    await joined.user("root-of-all", admin=True)
    await call(joined, "root-of-all", "POST", GUESTS, {"users": ["bob"]})
    await call(joined, "alice", "POST", SHARES, {"group": "guests"})


async def revoke(joined: Joined) -> None:
    await call(joined, "alice", "PATCH", SHARES, {"user": "bob"})


async def revoke_all(joined: Joined) -> None:
    await call(joined, "alice", "DELETE", SHARES)


async def give_back(joined: Joined) -> None:
    await call(joined, "bob", "DELETE", "/hub/api/users/bob/shared/alice/")


async def revoke_of_group(joined: Joined) -> None:
    await call(joined, "alice", "PATCH", SHARES, {"group": "guests"})


async def leave_group(joined: Joined) -> None:
    await call(joined, "root-of-all", "DELETE", f"{GUESTS}/users", {"users": ["bob"]})


async def delete_group(joined: Joined) -> None:
    await call(joined, "root-of-all", "DELETE", GUESTS)


Change = Callable[[Joined], Awaitable[None]]
ENDS: list[tuple[Change, Change]] = [
    (share_with_bob, revoke), (share_with_bob, revoke_all), (share_with_bob, give_back),
    (share_with_group, revoke_of_group), (share_with_group, leave_group),
    (share_with_group, delete_group),
]  # fmt: skip


@pytest.mark.parametrize(("begin", "end"), ENDS)
async def test_a_share_lets_in_and_its_end_cuts_what_is_open(
    begin: Change, end: Change, joined: Joined
) -> None:
    alice, bob = await joined.signed_in("alice"), await joined.signed_in("bob")
    assert (await bob.go(f"{joined.origin}/user/alice/lab")).status_code == 403
    await begin(joined)
    await visiting(joined, bob)
    assert names(joined)[-1] == "bob"
    await alice.go(f"{joined.origin}/user/alice/lab")
    async with AsyncExitStack() as stack:
        owners = await hold(stack, joined, cookie_of(alice))
        visitors = await hold(stack, joined, cookie_of(bob))
        await end(joined)
        await all_at_rest(visitors)
        client = await stack.enter_async_context(joined.connection())
        client.get("/user/alice/api", cookie_of(bob))
        assert (await client.response()).status == 403
        await joined.until_current()
        await eventually(lambda: not joined.proxy.guard._asking)
        assert {grant.user for grant in joined.proxy.edge.grants()} == {"alice"}
        assert len(owners) == len(list(joined.proxy.edge.grants())), "the owner notices nothing"
    assert (await bob.go(f"{joined.origin}/user/alice/lab")).status_code == 403


async def all_at_rest(clients: list[Client]) -> None:
    async with asyncio.timeout(60):
        for client in clients:
            await client.rest()


async def test_a_token_passes_by_a_share_and_by_a_group_that_its_role_names(
    joined: Joined,
) -> None:
    """Group members are looked up for the proxy as they are for the API."""
    await joined.user("bob")
    await joined.user("helper")
    await joined.user("root-of-all", admin=True)
    await share_with_group(joined)
    for name in ("bob", "helper"):
        user: User = await row_of(joined, name)
        async with joined.hub.database.write() as db:
            token = await issue_token(db, joined.hub, user, actor="user:x")
        headers = {"Authorization": f"token {token.secret}"}
        address, client = f"{joined.origin}/user/alice/api/kernels", joined.person().client
        if name == "helper":
            assert (await client.get(address, headers=headers)).status_code == 403
            pupils = "/hub/api/groups/pupils"
            await call(joined, "root-of-all", "POST", pupils, {"users": ["alice"]})
            joined.proxy.verdicts.recheck_all()  # a no counts for two seconds
        assert (await client.get(address, headers=headers)).status_code == 200, name
        assert names(joined)[-1] == name


async def test_leaving_a_group_ends_what_its_role_opened(short_dir: Path) -> None:
    roles = [{"name": "staff", "groups": ["staff"], "scopes": ["access:servers"]}]
    async with join(short_dir, roles=roles) as joined:
        joined.upstream.script = lambda reader, writer: serve(joined, reader, writer)
        await joined.server("alice")
        bob = await joined.signed_in("bob")
        await joined.user("root-of-all", admin=True)
        staff = "/hub/api/groups/staff"
        await call(joined, "root-of-all", "POST", staff, {"users": ["bob"]})
        await visiting(joined, bob)
        async with AsyncExitStack() as stack:
            visitors = await hold(stack, joined, cookie_of(bob))
            await call(joined, "root-of-all", "DELETE", f"{staff}/users", {"users": ["bob"]})
            await all_at_rest(visitors)
