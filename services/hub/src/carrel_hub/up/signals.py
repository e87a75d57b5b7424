"""Signals as things to read: nothing happens in the middle of something else."""

import contextlib
import os
import signal
from types import FrameType

_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Signals:
    """Collects SIGINT, SIGTERM and SIGHUP, and wakes a poll on `wakeup`."""

    def __init__(self) -> None:
        self.wakeup, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._came: list[signal.Signals] = []
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in _ENDING:
            signal.signal(number, self._note)

    def _note(self, number: int, _frame: FrameType | None) -> None:
        self._came.append(signal.Signals(number))

    def take(self) -> signal.Signals | None:
        """Return the next signal that came, or None."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.wakeup, 1024)
        return self._came.pop(0) if self._came else None

    def close(self) -> None:
        """Give the signals their usual meaning again."""
        for number in _ENDING:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(self.wakeup)
        os.close(self._writer)
