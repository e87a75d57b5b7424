"""The agent's end of the socket by which a process that something else started becomes a server."""

import asyncio
import json
import os
import socket
import sys
from pathlib import Path

import carrel_agent
from carrel_agent.runners.base import Launch, Launched, RunnerUnavailableError, sealed_spec

RECEIVER = Path(carrel_agent.__file__).resolve().parent / "process" / "received.py"
WAIT_SECONDS = 30.0


def receiver_command(*options: str) -> list[str]:
    """Return the command that receives a server. It holds nothing of that server."""
    return [sys.executable, "-I", "-S", str(RECEIVER), *options]


class Handover:
    """Owns a pair of sockets; `theirs` is the process's standard input. A context manager."""

    def __init__(self) -> None:
        self.ours, self.theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.ours.setblocking(False)

    def __enter__(self) -> "Handover":
        return self

    def __exit__(self, *_: object) -> None:
        self.ours.close()
        self.theirs.close()

    async def hear(self) -> Launched:
        """Return which process is there.

        Raises:
            RunnerUnavailableError: None said so in time.
        """
        self.theirs.close()
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                data = await asyncio.get_running_loop().sock_recv(self.ours, 256)
        except (TimeoutError, OSError):
            data = b""
        if not data:
            raise RunnerUnavailableError("its process ended before it began")
        said = json.loads(data)
        return Launched(int(said["pid"]), int(said["start_ticks"]))

    def give(self, launch: Launch) -> None:
        """Hand the server over: from now on it may run.

        Raises:
            RunnerUnavailableError: The process is gone.
        """
        spec = sealed_spec(launch.spec)
        try:
            socket.send_fds(self.ours, [b"start"], [spec, launch.listener, launch.log])
        except OSError as error:
            raise RunnerUnavailableError("its process ended before it began") from error
        finally:
            os.close(spec)
