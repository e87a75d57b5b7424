"""A hold on one process: hear of its death, signal it and nothing else."""

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

from carrel_shared.identity import ProcessIdentity


class ProcessGoneError(Exception):
    """The process has ended; its pid may be somebody else's."""


class ProcessWatch:
    """Owns a pidfd.

    Args:
        identity: The process.
        on_end: Called once, when it has ended.

    Raises:
        ProcessGoneError: If it does not run any more.
        OSError: If it lives and cannot be watched now.
    """

    def __init__(self, identity: ProcessIdentity, on_end: Callable[[], None]) -> None:
        try:
            self._descriptor = os.pidfd_open(identity.pid)
        except OSError as error:
            # Having no descriptor left says nothing of the process.
            if not identity.is_alive():
                raise ProcessGoneError("it has ended") from error
            raise
        # From here on the descriptor names one process for ever; which one is read now.
        if not identity.is_alive():
            os.close(self._descriptor)
            raise ProcessGoneError("it has ended")
        self.identity = identity
        self.ended = asyncio.Event()
        self._on_end = on_end
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._descriptor, self._readable)

    def _readable(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self.ended.set()
        self._on_end()

    async def send(self, number: signal.Signals) -> None:
        """Signal the process; nothing happens if it has ended."""
        try:
            signal.pidfd_send_signal(self._descriptor, number)
        except ProcessLookupError:
            return

    async def wait_ended(self, timeout_seconds: float | None) -> bool:
        """Wait for its end; return whether it came in time."""
        try:
            async with asyncio.timeout(timeout_seconds):
                await self.ended.wait()
        except TimeoutError:
            return False
        return True

    def close(self) -> None:
        """Let go of the process, which goes on."""
        if self._descriptor >= 0:
            self._loop.remove_reader(self._descriptor)
            os.close(self._descriptor)
            self._descriptor = -1


def real_uid(pid: int) -> int | None:
    """Return who a process runs as, or None if it is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(status[status.index(b"\nUid:") + 5 :].split(None, 1)[0])
