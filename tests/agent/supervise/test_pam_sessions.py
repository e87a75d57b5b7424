"""PAM modules that hang cost their own start, and leave nothing."""

import asyncio
import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from carrel_agent.pam.server import descendants
from carrel_agent.supervise import pam_sessions
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.pam_sessions import PamSession
from support.agent_host import has_ended

HANGS = "setsid sh -c 'sleep 1000 & wait' & echo started; wait"


@pytest.fixture
def holder() -> "Iterator[subprocess.Popen[bytes]]":
    """A holder whose module waits for a program in a session of its own, and that for another."""
    started = subprocess.Popen(["/bin/sh", "-c", HANGS], stdout=subprocess.PIPE)
    yield started
    for pid in (*descendants(started.pid), started.pid):
        os.kill(pid, signal.SIGKILL)
    started.communicate()


async def test_what_a_module_waits_for_ends_with_it(
    holder: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    pids: list[int] = []

    class Keeper:
        async def open_session(self, _service: str, _account: str) -> tuple[int, socket.socket]:
            async with asyncio.timeout(60):
                while len(pids) < 2:
                    pids[:] = descendants(holder.pid)
                    await asyncio.sleep(0.01)
            return holder.pid, ours

    keeper: Any = Keeper()
    monkeypatch.setattr(pam_sessions, "OPEN_SECONDS", 0.01)
    with theirs, pytest.raises(LaunchError, match="did not open a session within"):
        await PamSession.open(keeper, "login", "alice")
    async with asyncio.timeout(60):
        while not all(map(has_ended, [*pids, holder.pid])):  # noqa: ASYNC110 - others' processes
            await asyncio.sleep(0.01)
