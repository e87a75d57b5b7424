"""The socket: who may ask, how many at once, and for how long."""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from carrel_agent.pam.protocol import (
    MAX_LINE,
    Attempt,
    InvalidAttemptError,
    Outcome,
    parse_attempt,
)

READ_SECONDS = 10.0
_PEER = struct.Struct("3i")


@dataclass(frozen=True, slots=True)
class Limits:
    """What one host is asked to bear.

    Attributes:
        attempts: Checked at the same time; more have to wait.
        seconds: How long one check may take. Up to half of it may go into waiting for its turn.
    """

    attempts: int = 8
    seconds: float = 10.0


class PamServer:
    """Answers attempts.

    Args:
        uid: Who may ask, besides root.
        service: The PAM service, a file in /etc/pam.d.
        say: Writes a line to the log.
        command: The child; a test may put another in its place.
    """

    def __init__(
        self,
        *,
        uid: int,
        service: str,
        limits: Limits,
        say: Callable[..., None],
        command: tuple[str, ...] = (sys.executable, "-I", "-m", "carrel_agent.pam.attempt"),
    ) -> None:
        self._uid = uid
        self._service = service
        self._limits = limits
        self._say = say
        self._command = command
        self._slots = asyncio.Semaphore(limits.attempts)

    async def answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection: attempts, one after the other, until it closes."""
        try:
            peer = peer_uid(writer.get_extra_info("socket"))
            if peer not in (self._uid, 0):
                self._say("peer_refused", level="WARNING", uid=peer)
                return
            while (line := await self._line(reader)) is not None:
                outcome = await self._outcome(line)
                writer.write(outcome.encode())
                await writer.drain()
        except (OSError, TimeoutError):
            return
        finally:
            writer.close()

    async def _line(self, reader: asyncio.StreamReader) -> bytes | None:
        async with asyncio.timeout(READ_SECONDS):
            try:
                return await reader.readuntil(b"\n")
            except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                return None

    async def _outcome(self, line: bytes) -> Outcome:
        try:
            attempt = parse_attempt(line)
        except InvalidAttemptError as error:
            self._say("attempt_invalid", level="WARNING", reason=error)
            return Outcome(ok=False, reason="invalid")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._limits.seconds
        try:
            async with asyncio.timeout(self._limits.seconds / 2):
                await self._slots.acquire()
        except TimeoutError:
            outcome = Outcome(ok=False, reason="busy")
        else:
            try:
                outcome = await self._check_until(deadline, line)
            finally:
                self._slots.release()
        self._log(attempt, outcome)
        return outcome

    async def _check_until(self, deadline: float, line: bytes) -> Outcome:
        try:
            async with asyncio.timeout_at(deadline):
                return await self._check(line)
        except TimeoutError:
            return Outcome(ok=False, reason="timeout")
        except OSError as error:
            self._say("attempt_failed", level="ERROR", reason=error.strerror)
            return Outcome(ok=False, reason="unavailable")

    def _log(self, attempt: Attempt, outcome: Outcome) -> None:
        # Somebody may have typed the password for the name: only real accounts are named.
        name = {"user": attempt.user} if outcome.ok else {}
        self._say("attempt_checked", ok=outcome.ok, reason=outcome.reason or "right", **name)

    async def _check(self, line: bytes) -> Outcome:
        child = await asyncio.create_subprocess_exec(
            *self._command,
            self._service,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
            start_new_session=True,
        )
        try:
            answer, _ = await child.communicate(line)
        finally:
            await _end(child)
        return _read(answer, child.returncode or 0, self._say)


def _read(answer: bytes, status: int, say: Callable[..., None]) -> Outcome:
    """Believe the child's answer only if it is whole and the child ended well."""
    import json

    with contextlib.suppress(ValueError, TypeError):
        if status == 0:
            return Outcome(**json.loads(answer))
    say("attempt_failed", level="ERROR", exit_status=status)
    return Outcome(ok=False, reason="unavailable")


async def _end(child: asyncio.subprocess.Process) -> None:
    """Leave nothing of an attempt that did not end by itself, helpers of PAM modules included.

    The child is stopped first: then it starts no more helpers, and reaps none, so that their pids
    stay theirs. They are looked up as descendants, since pam_exec gives its own a new session.
    """
    if child.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        os.kill(child.pid, signal.SIGSTOP)
        for pid in [*descendants(child.pid), child.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
    await child.wait()


def descendants(pid: int) -> list[int]:
    """Return the children of a process, their children and so on (proc(5))."""
    try:
        words = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
    except (FileNotFoundError, ProcessLookupError):
        return []
    return [found for word in words for found in (int(word), *descendants(int(word)))]


def peer_uid(connection: socket.socket) -> int:
    """Return who is at the other end of a unix socket (unix(7), SO_PEERCRED)."""
    raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _PEER.size)
    uid: int = _PEER.unpack(raw)[1]
    return uid


async def serve(server: PamServer, listener: socket.socket) -> None:
    """Serve until SIGTERM or SIGINT."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    serving = await asyncio.start_unix_server(server.answer, sock=listener, limit=MAX_LINE)
    async with serving:
        await stop.wait()
