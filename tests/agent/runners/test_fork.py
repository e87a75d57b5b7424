"""The fork runner: with the real zygote, and with one that lets it down."""

import asyncio
import contextlib
import os
import pwd
import socket
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.keeper.messages import Message, encode, new_pair, receive, send
from carrel_agent.process.launch_spec import LaunchSpec, read_launch_spec
from carrel_agent.runners.base import (
    Launch,
    LaunchUnclearError,
    RunnerContext,
    RunnerUnavailableError,
)
from carrel_agent.runners.fork import ForkRunner
from carrel_agent.zygote.freshness import STALE
from carrel_shared.clock import SystemClock
from support.agent_host import AgentHost, has_ended, wait_for

SPEC = LaunchSpec(  # noqa: S604 - its `shell` is a login shell
    uid=1234,
    gid=1234,
    groups=(1234,),
    user="alice",
    home="/home/alice",
    shell="/bin/sh",
    environment={},
    base_url="/user/alice/",
    hub_prefix="/hub/",
    secret="s" * 40,
    server_id="0123456789ab",
)


@dataclass
class Zygotes:
    """A keeper whose zygotes are this test."""

    preloads: list[object] = field(default_factory=list)
    ends: list[socket.socket] = field(default_factory=list)

    async def start_zygote(
        self, _python: str, preload: object, trusted: list[int]
    ) -> tuple[int, socket.socket]:
        assert set(trusted) == {0, os.geteuid()}
        ours, theirs = new_pair()
        self.preloads.append(preload)
        self.ends.append(theirs)
        return 2**22 + 1, ours  # no such process

    async def request(self) -> tuple[Message, list[int]]:
        """Return what the latest zygote is asked."""
        for _ in range(12_000):
            with contextlib.suppress(BlockingIOError):
                if self.ends and (received := receive(self.ends[-1])) is not None:
                    return received
            await asyncio.sleep(0.005)  # the zygote, or the next one, is not started yet
        raise AssertionError("no request came")


@asynccontextmanager
async def fork_runner(
    idle_seconds: float = 60, **context: Any
) -> AsyncIterator[tuple[ForkRunner, Zygotes]]:
    zygotes = Zygotes()
    keeper: KeeperClient = zygotes  # type: ignore[assignment]
    runner = ForkRunner(
        RunnerContext(
            keeper=keeper,
            clock=SystemClock(),
            groups=ControlGroups([], {}),
            state_dir=Path("/nowhere"),
            zygote_idle_seconds=idle_seconds,
            **context,
        )
    )
    try:
        yield runner, zygotes
    finally:
        await runner.close()
        for end in zygotes.ends:
            end.close()


@pytest.fixture
def launch() -> Launch:
    return Launch(spec=SPEC, listener=0, log=2)


async def test_the_zygote_gets_spec_socket_and_log(launch: Launch) -> None:
    async with fork_runner() as (runner, zygotes), asyncio.TaskGroup() as group:
        launching = group.create_task(runner.launch(launch))
        await asyncio.sleep(0)
        message, descriptors = await zygotes.request()
        assert message["op"] == "fork"
        assert read_launch_spec(descriptors[0]) == SPEC
        assert os.fstat(descriptors[2]).st_ino == os.fstat(2).st_ino
        for descriptor in descriptors:
            os.close(descriptor)
        send(zygotes.ends[-1], encode({"id": message["id"], "pid": 77, "start_ticks": 5}))
        launched = await launching
        assert (launched.pid, launched.start_ticks) == (77, 5)


async def test_a_refusal_is_certain_and_a_death_is_not(launch: Launch) -> None:
    async def refuse(zygotes: Zygotes) -> None:
        message, descriptors = await zygotes.request()
        for descriptor in descriptors:
            os.close(descriptor)
        send(zygotes.ends[-1], encode({"id": message["id"], "error": "no room"}))

    async def die(zygotes: Zygotes) -> None:
        _message, descriptors = await zygotes.request()
        for descriptor in descriptors:
            os.close(descriptor)
        zygotes.ends[-1].close()

    outcomes: list[tuple[Callable[[Zygotes], object], type[Exception]]] = [
        (refuse, RunnerUnavailableError),
        (die, LaunchUnclearError),
    ]
    async with fork_runner() as (runner, zygotes):
        for behave, error in outcomes:
            async with asyncio.TaskGroup() as group:
                launching = group.create_task(_outcome(runner, launch))
                await asyncio.sleep(0)
                await behave(zygotes)  # type: ignore[misc]
                assert isinstance(await launching, error)
        with pytest.raises(RunnerUnavailableError, match="died as soon as"):
            await runner.launch(launch)


async def _outcome(runner: ForkRunner, launch: Launch) -> object:
    try:
        return await runner.launch(launch)
    except (RunnerUnavailableError, LaunchUnclearError) as error:
        return error


async def refuse_as_stale(zygotes: Zygotes) -> None:
    message, descriptors = await zygotes.request()
    for descriptor in descriptors:
        os.close(descriptor)
    send(zygotes.ends[-1], encode({"id": message["id"], "error": STALE}))


async def test_a_zygote_of_other_packages_is_replaced(launch: Launch) -> None:
    async with fork_runner() as (runner, zygotes), asyncio.TaskGroup() as group:
        launching = group.create_task(runner.launch(launch))
        await asyncio.sleep(0)
        await refuse_as_stale(zygotes)
        while len(zygotes.ends) < 2:  # noqa: ASYNC110 - the next one is this test as well
            await asyncio.sleep(0.005)
        message, descriptors = await zygotes.request()
        for descriptor in descriptors:
            os.close(descriptor)
        send(zygotes.ends[-1], encode({"id": message["id"], "pid": 78, "start_ticks": 5}))
        assert (await launching).pid == 78


async def test_a_worn_zygote_is_replaced(launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("carrel_agent.runners.fork.RECYCLE_FORKS", 1)
    async with fork_runner() as (runner, zygotes):
        for pid in (70, 71):
            async with asyncio.TaskGroup() as group:
                launching = group.create_task(runner.launch(launch))
                await asyncio.sleep(0)
                message, descriptors = await zygotes.request()
                for descriptor in descriptors:
                    os.close(descriptor)
                answer = {"id": message["id"], "pid": pid, "start_ticks": 5}
                send(zygotes.ends[-1], encode(answer))
                assert (await launching).pid == pid
        assert len(zygotes.ends) == 2


async def test_an_unused_zygote_is_let_go_and_a_new_one_started_when_needed() -> None:
    async with fork_runner(idle_seconds=0.05) as (runner, zygotes):
        await runner.warm()
        await runner.warm()
        assert len(zygotes.ends) == 1
        async with asyncio.timeout(60):
            while runner.helper_pids():  # noqa: ASYNC110 - it tells nobody
                await asyncio.sleep(0.01)
        assert receive(zygotes.ends[0]) is None, "the zygote sees the end"
        await runner.warm()
        assert len(zygotes.ends) == 2


@pytest.fixture
def open_python(tmp_path: Path) -> Path:
    """A Python in a directory that everybody can write."""
    python = tmp_path / "bin/python"
    python.parent.mkdir()
    python.symlink_to(sys.executable)
    tmp_path.chmod(0o777)
    return python


async def test_nothing_is_forked_from_what_others_can_change(
    launch: Launch, open_python: Path
) -> None:
    async with fork_runner(python=str(open_python)) as (runner, zygotes):
        with pytest.raises(RunnerUnavailableError, match="can be written by everybody"):
            await runner.launch(launch)
        os.chmod(open_python.parents[1], 0o700)  # noqa: PTH101 - a moment's work
        assert zygotes.ends == []
        await runner.warm()
        assert len(zygotes.ends) == 1


async def test_what_profiles_name_is_loaded_if_it_is_installed() -> None:
    async with fork_runner(preload=("wave",)) as (runner, zygotes):
        runner.prefer(["tornado.web", "no_such_module"])
        await runner.warm()
        runner.prefer(["tornado.web", "no_such_module"])
        runner.prefer(["tornado.web", "another_that_is_not_there"])
        runner.prefer(["tornado.web", "jinja2"])
        async with asyncio.timeout(60):
            while len(zygotes.ends) < 2:  # noqa: ASYNC110 - the next one is this test as well
                await asyncio.sleep(0.005)
        assert zygotes.preloads == [("wave", "tornado.web"), ("wave", "tornado.web", "jinja2")]


def test_a_real_zygote_forks_a_real_jupyterlab(account: pwd.struct_passwd) -> None:
    with AgentHost(account) as host:
        host.start()
        assert host.client.post("/warm").status_code == 202
        spec = host.spec()
        assert host.put(spec).status_code == 202
        report = host.wait_state(spec["server_id"], "ready", seconds=90)
        assert report["runner"] == "fork"
        assert report["peer_uid"] == account.pw_uid
        host.wait_line(spec["server_id"], "Jupyter Server")

        host.kill_agent()
        assert host.report(spec["server_id"])["pid"] == report["pid"]
        second = host.spec()
        host.put(second)
        other = host.wait_state(second["server_id"], "ready", seconds=90)

        os.kill(other["pid"], 9)
        assert host.wait_state(second["server_id"], "failed")["exit"]["signal"] == 9
        host.stop_server(spec["server_id"])
        ended = host.wait_state(spec["server_id"], "stopped")
        assert ended["exit"]["code"] == 0, "SIGINT alone ends JupyterLab"
        wait_for("its end", lambda: has_ended(report["pid"]))


def test_without_a_zygote_servers_are_executed(account: pwd.struct_passwd) -> None:
    with AgentHost(account, python="/bin/false") as host:
        host.start()
        spec = host.spec()
        host.put(spec)
        ended = host.wait_state(spec["server_id"], "failed", seconds=20)
        assert ended["runner"] == "exec"
        assert ended["exit"]["code"] == 1, "what /bin/false returns"
