"""The parent's event loop: descriptors, timers, signals. Small, because it is all that is needed.

asyncio would double the memory of a process that has next to nothing to do.
"""

import contextlib
import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.EPOLLIN
WRITE = select.EPOLLOUT


class Loop:
    """Calls back when a descriptor is ready, a time has come, or a signal came in."""

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._watched: dict[int, Callable[[], None]] = {}
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._signals: dict[int, Callable[[], None]] = {}
        self._wake, signalled = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(signalled, warn_on_full_buffer=False)
        self.watch(self._wake, self._signalled)

    def watch(self, descriptor: int, call: Callable[[], None]) -> None:
        """Call whenever the descriptor can be read."""
        self._watched[descriptor] = call
        self._poll.register(descriptor, READ)

    def watch_writing(self, descriptor: int, *, wanted: bool) -> None:
        """Call the same also when it can be written."""
        self._poll.modify(descriptor, READ | WRITE if wanted else READ)

    def forget(self, descriptor: int) -> None:
        """Watch it no longer; to be called before it is closed."""
        if self._watched.pop(descriptor, None) is not None:
            with contextlib.suppress(OSError):
                self._poll.unregister(descriptor)

    def later(self, seconds: float, call: Callable[[], None]) -> None:
        """Call once, when so much time has passed. Nothing takes that back."""
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def on_signal(self, number: int, call: Callable[[], None]) -> None:
        self._signals[number] = call
        signal.signal(number, lambda _number, _frame: None)

    def turn(self) -> None:
        """Wait for something to happen, and call whom it concerns."""
        timeout = None
        if self._timers:
            timeout = max(self._timers[0][0] - time.monotonic(), 0)
        for descriptor, _ in self._poll.poll(timeout):
            if (call := self._watched.get(descriptor)) is not None:
                call()
        while self._timers and self._timers[0][0] <= time.monotonic():
            heapq.heappop(self._timers)[2]()

    def _signalled(self) -> None:
        for number in dict.fromkeys(os.read(self._wake, 4096)):
            if (call := self._signals.get(number)) is not None:
                call()
