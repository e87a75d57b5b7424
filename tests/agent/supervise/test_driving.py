"""A server is driven to its end, whatever breaks on the way."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from agent.supervise.test_states import record

from carrel_agent.keeper.channel import ChannelClosedError
from carrel_agent.supervise import driving
from carrel_agent.supervise.driving import drive
from carrel_agent.supervise.record import Handle, Record
from carrel_agent.supervise.server import Server
from carrel_agent.supervise.watch import ProcessWatch
from carrel_shared.clock import SystemClock
from carrel_shared.identity import identify
from carrel_shared.wire.limits import Limits


class FaultyRunner:
    """Its keeper gives no answer twice."""

    def __init__(self, process: "subprocess.Popen[bytes]") -> None:
        self.faults = 2
        self._process = process

    async def adopt(self, _record: Record) -> None:
        if self.faults:
            self.faults -= 1
            raise ChannelClosedError("no answer within 30 seconds")
        self._process.kill()

    def watch(self, record: Record, on_end: Callable[[], None]) -> ProcessWatch:
        assert record.handle is not None
        return ProcessWatch(record.handle.identity, on_end)

    async def end(self, *_: object) -> int:
        return 0

    async def exit_of(self, _record: Record) -> None:
        return None

    async def forget(self, _record: Record) -> None:
        return None


def surroundings(runner: FaultyRunner) -> Any:
    async def done(*_: object) -> None:
        return None

    return SimpleNamespace(
        runners={"fork": runner},
        clock=SystemClock(),
        changed=lambda _at_once: None,
        stop_times=(0, 0),
        journal=SimpleNamespace(save=done),
        keeper=SimpleNamespace(close_log=done),
        sockets=SimpleNamespace(remove=lambda _server_id: None),
        logs=SimpleNamespace(tail=lambda _server_id, _lines: []),
    )


async def test_a_fault_that_nobody_expected_leaves_no_server_alone(
    monkeypatch: pytest.MonkeyPatch, process: "subprocess.Popen[bytes]"
) -> None:
    monkeypatch.setattr(driving, "FIRST_WAIT", 0.01)
    found = identify(process.pid)
    assert found is not None
    handle = Handle(pid=found.pid, start_ticks=found.start_ticks, boot_id=found.boot_id)
    runner = FaultyRunner(process)
    server = Server(
        record(handle=handle, uid=os.getuid(), listens=False, requested_at=SystemClock().now()),
        surroundings(runner),
    )
    await drive(server, runner.adopt(server.record))
    assert server.ended
    assert runner.faults == 0


async def test_a_change_beside_an_end_does_not_take_its_place(
    process: "subprocess.Popen[bytes]",
) -> None:
    """Limits that are changed, or met, while the end is written down."""
    saved: list[Record] = []
    around = surroundings(FaultyRunner(process))
    server = Server(record(uid=os.getuid(), requested_at=SystemClock().now()), around)

    async def save(one: Record) -> None:
        saved.append(one)

    def change_meanwhile(_server_id: str) -> None:
        asyncio.run_coroutine_threadsafe(
            server._change(limits=Limits(open_files=77)), loop
        ).result()

    loop = asyncio.get_running_loop()
    around.journal.save = save
    around.sockets.remove = change_meanwhile
    await server.record_reboot()
    assert server.ended
    assert [one.exit is not None for one in saved] == [True]
