"""Measure how soon an open WebSocket is cut after the hub has committed that its access ends.

    python tests/bench/revocations.py [--rounds 100]

A real hub and a real proxy, a database on disk, one WebSocket and one stream for each round. The
time goes from the return of the transaction to the end of both connections; p99 is to be below 1 s.
"""

import argparse
import asyncio
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.remove(str(Path(__file__).resolve().parent))  # there `proxy` is another module

from integration.joined import Joined, join
from integration.test_access import hold, serve
from sqlmodel import select

from carrel_hub.auth.sessions import begin_session, end_session
from carrel_hub.auth.subjects import hub_signer
from carrel_hub.auth.tokens import NewToken, issue_token, revoke_token
from carrel_hub.db.models import BrowserSession, Token, User
from carrel_hub.routing.changes import decide_anew
from carrel_hub.users.changes import set_admin

End = Callable[[Joined, NewToken], Awaitable[None]]


async def by_token(joined: Joined, token: NewToken) -> None:
    async with joined.hub.database.write() as db:
        row = (await db.exec(select(Token).where(Token.id == token.row.id))).one()
        owner = await db.get_one(User, row.user_id)
        await revoke_token(db, joined.hub, row, actor="user:x", owner=owner, reason="enough")


async def by_session(joined: Joined, token: NewToken) -> None:
    async with joined.hub.database.write() as db:
        hashed = token.row.session_hash
        session = (
            await db.exec(select(BrowserSession).where(BrowserSession.session_hash == hashed))
        ).one()
        user = await db.get_one(User, token.row.user_id)
        await end_session(db, session, user, at=joined.hub.clock.now())


async def by_role(joined: Joined, token: NewToken) -> None:
    """The visitor is an administrator no longer: the hub is asked before anything is cut."""
    async with joined.hub.database.write() as db:
        user = await db.get_one(User, token.row.user_id)
        await set_admin(db, joined.hub, user, False, actor="user:x")


async def by_server(joined: Joined, token: NewToken) -> None:
    """Everybody's access to the server is decided anew, after the visitor's right has gone."""
    async with joined.hub.database.write() as db:
        user = await db.get_one(User, token.row.user_id)
        user.admin = False
        db.add(user)
        owner = (await db.exec(select(User).where(User.name == "alice"))).one()
        await decide_anew(db, [owner.id])


ENDS: dict[str, End] = {
    "session": by_session,
    "token": by_token,
    "user (role)": by_role,
    "server": by_server,
}


async def visitors_token(joined: Joined) -> NewToken:
    """Have an administrator with a session, and a token that belongs to it."""
    await joined.user("visitor", admin=True)
    async with joined.hub.database.write() as db:
        user = (await db.exec(select(User).where(User.name == "visitor"))).one()
        user.admin = True
        session = await begin_session(db, joined.hub, hub_signer(joined.hub), user, how="link")
        theirs = session.row.session_hash
        return await issue_token(db, joined.hub, user, actor="user:visitor", session_hash=theirs)


async def once(joined: Joined, end: End) -> float:
    token = await visitors_token(joined)
    async with AsyncExitStack() as stack:
        held = await hold(stack, joined, f"Authorization: token {token.secret}")
        await end(joined, token)
        began = time.perf_counter()
        for client in held:
            await client.rest()
        return time.perf_counter() - began


async def measure(rounds: int) -> None:
    with tempfile.TemporaryDirectory(prefix="crv-", dir="/tmp") as directory:
        async with join(Path(directory)) as joined:
            joined.upstream.script = lambda reader, writer: serve(joined, reader, writer)
            await joined.server("alice")
            for name, end in ENDS.items():
                times = sorted([await once(joined, end) for _ in range(rounds)])
                p99 = times[min(int(len(times) * 0.99), len(times) - 1)]
                print(
                    f"{name:12} median {statistics.median(times) * 1000:6.1f} ms"
                    f"   p99 {p99 * 1000:6.1f} ms   longest {times[-1] * 1000:6.1f} ms"
                )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=100)
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    asyncio.run(measure(options.rounds))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
