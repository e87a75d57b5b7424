"""Several workers are one proxy: what one knows all know, and who dies is replaced."""

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from proxy.process.program import SECONDS, Program, carrel, chp, is_alive, load_on, until
from proxy.wire import connect, open_upstream

pytestmark = pytest.mark.anyio


async def by_worker(program: Program, ask: Callable[[], Awaitable[Any]]) -> dict[int, Any]:
    """Ask each worker alone: all others are held still meanwhile."""
    found = {}
    for worker in program.workers():
        others = [pid for pid in program.workers() if pid != worker]
        for pid in others:
            os.kill(pid, signal.SIGSTOP)
        try:
            found[worker] = await ask()
        finally:
            for pid in others:
                os.kill(pid, signal.SIGCONT)
    return found


async def status_of(program: Program, path: str) -> int:
    async with connect(program.port) as client:
        return (await client.ask(path, "Connection: close")).status


async def test_a_route_is_in_force_at_every_worker_when_it_is_answered(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        for number in range(3):
            await program.route(f"/a{number}", upstream.target)
            found = await by_worker(program, lambda n=number: status_of(program, f"/a{n}/"))  # type: ignore[misc]
            assert len(found) == 2
            assert set(found.values()) == {200}
        assert (await program.call("DELETE", "/api/routes/a1"))[0] == 204
        found = await by_worker(program, lambda: status_of(program, "/a1/"))
        assert set(found.values()) == {404}


async def test_activity_is_that_of_all_workers_at_the_moment_it_is_asked_for(
    short_dir: Path,
) -> None:
    async with (
        open_upstream() as upstream,
        chp(short_dir, "--workers", "2") as program,
    ):
        await program.route("/u", upstream.target)

        async def used() -> datetime:
            _, route = await program.call("GET", "/api/routes/u")
            return datetime.fromisoformat(route["last_activity"])

        made = await used()
        for worker in program.workers():
            before = await used()
            others = [pid for pid in program.workers() if pid != worker]
            for pid in others:
                os.kill(pid, signal.SIGSTOP)
            assert await status_of(program, "/u/") == 200
            for pid in others:
                os.kill(pid, signal.SIGCONT)
            assert await used() > before >= made


async def test_a_killed_worker_is_replaced_and_knows_all(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        await program.route("/", upstream.target)
        for round_number in (1, 2):
            victim = program.workers()[round_number % 2]
            os.kill(victim, signal.SIGKILL)
            await program.said("worker_back", round_number)
            assert victim not in program.workers()
            found = await by_worker(program, lambda: status_of(program, "/"))
            assert list(found.values()) == [200, 200]


@pytest.mark.parametrize("workers", [1, 2])
async def test_routes_survive_the_crash_of_their_leader(workers: int, short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", str(workers)) as program:
        await program.route("/user/alice", upstream.target)
        await program.route("/user/bob", upstream.target)
        await program.call("DELETE", "/api/routes/user/bob")
        leader = program.workers()[0]
        os.kill(leader, signal.SIGKILL)
        await until("its end", lambda: not is_alive(leader))  # until then it may accept
        _, routes = await program.call("GET", "/api/routes")
        assert list(routes) == ["/user/alice"]
        await program.said("worker_back")
        assert await status_of(program, "/user/alice/") == 200
        await program.route("/user/carol", upstream.target)
        found = await by_worker(program, lambda: status_of(program, "/user/carol/"))
        assert set(found.values()) == {200}


async def test_a_worker_that_hangs_is_replaced_before_a_change_is_answered(
    short_dir: Path,
) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        await program.route("/a", upstream.target)
        hung = program.workers()[1]
        os.kill(hung, signal.SIGSTOP)
        assert (await program.call("DELETE", "/api/routes/a"))[0] == 204
        assert not is_alive(hung)
        await program.said("worker_back")
        found = await by_worker(program, lambda: status_of(program, "/a/"))
        assert set(found.values()) == {404}


async def test_routes_in_a_file_outlive_the_proxy(short_dir: Path) -> None:
    storage = ("--storage-backend", f"file:{short_dir}/routes")
    async with open_upstream() as upstream:
        async with chp(short_dir, *storage) as program:
            await program.route("/a", upstream.target)
            await program.route("/b", upstream.target)
            await program.call("DELETE", "/api/routes/a")
            program.process.kill()
        async with chp(short_dir, *storage) as program:
            _, routes = await program.call("GET", "/api/routes")
            assert {key: route["target"] for key, route in routes.items()} == {
                "/b": upstream.target
            }


async def test_when_the_parent_is_killed_another_can_take_its_place_at_once(
    short_dir: Path,
) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        await program.route("/", upstream.target)
        workers = program.workers()
        program.process.kill()
        async with chp(short_dir, "--workers", "2", port=program.port) as another:
            await another.route("/", upstream.target)
            assert await status_of(another, "/") == 200
            await until("the orphans' end", lambda: not any(map(is_alive, workers)))


@pytest.mark.parametrize("workers", [1, 2])
async def test_sigterm_loses_nobody(workers: int, short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", str(workers)) as program:
        await program.route("/", upstream.target)
        async with load_on(program.port, clients=16) as load:
            await load.more(200)
            program.signal(signal.SIGTERM)
            assert await program.ended() == 2
            await until("refusals", lambda: load.refused > 0)
        assert load.lost == []


async def test_sigterm_waits_for_requests_but_not_for_ever(short_dir: Path) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await never.wait()

    async with open_upstream() as upstream, chp(short_dir) as program, program.client() as client:
        upstream.script = slow
        await program.route("/", upstream.target)
        client.get("/")
        await asked.wait()
        program.signal(signal.SIGTERM)
        await program.said("proxy_ending")
        assert await client.rest() == b""
        assert await program.ended() == 2
        never.set()


async def test_a_second_signal_ends_it_now(short_dir: Path) -> None:
    asked, never = asyncio.Event(), asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        asked.set()
        await never.wait()

    async with (
        open_upstream() as upstream,
        carrel(
            short_dir,
            default_target=upstream.target,
            drain_seconds=10 * SECONDS,
        ) as program,
        program.client() as client,
    ):
        upstream.script = slow
        client.get("/")
        await asked.wait()
        program.signal(signal.SIGTERM)
        await program.said("proxy_ending")
        program.signal(signal.SIGINT)
        assert await program.ended() == 0
        never.set()
