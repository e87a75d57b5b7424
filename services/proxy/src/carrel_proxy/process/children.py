"""A worker as its parent sees it: the process, and the socket they talk over."""

import contextlib
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from carrel_proxy.process.frames import PARENT, FrameReader, frame
from carrel_proxy.process.loop import Loop
from carrel_proxy.process.plan import SIGNALS, Inherited, Plan

STARTING, READY, RETIRED = "starting", "ready", "retired"
END_SECONDS = 3.0
"""How long a worker may take to write down what it knows, after its last request."""


class Child:
    """One worker.

    Attributes:
        id: Its address; never used again.
        slot: Its place among the workers of its generation; 0 leads.
        phase: `retired` accepts no connections, and ends when its last one does.
    """

    def __init__(
        self, number: int, slot: int, generation: int, pid: int, channel: socket.socket, phase: str
    ) -> None:
        self.id = number
        self.slot = slot
        self.generation = generation
        self.pid = pid
        self.channel = channel
        self.phase = phase
        self.began = 0.0
        self.pidfd = -1
        self._reader = FrameReader()
        self._out = bytearray()
        self._reaped = False

    def watch(
        self,
        loop: Loop,
        told: Callable[["Child", int, bytes], None],
        ended: Callable[["Child"], None],
    ) -> None:
        """Call back for each message, and once when the process has ended."""
        self._loop = loop
        self._told = told
        self._ended = ended
        self.pidfd = os.pidfd_open(self.pid)
        self.channel.setblocking(False)
        loop.watch(self.pidfd, lambda: ended(self))
        loop.watch(self.channel.fileno(), self._turn)
        self._flush()

    def tell(self, **message: Any) -> None:
        """Say something to it, as its parent."""
        self.send(PARENT, json.dumps(message).encode())

    def send(self, address: int, payload: bytes) -> None:
        """Pass a message on, `address` being whom it is from."""
        self._out += frame(address, payload)
        self._flush()

    def kill(self) -> None:
        """End it at once, if it has not ended."""
        if not self._reaped:  # until then the number is its own
            os.kill(self.pid, signal.SIGKILL)

    def reap(self) -> int:
        """Forget a process that has ended, after its last messages; return its exit status."""
        self._read()
        self._loop.forget(self.pidfd)
        self._loop.forget(self.channel.fileno())
        os.close(self.pidfd)
        self.channel.close()
        _, status = os.waitpid(self.pid, 0)
        self._reaped = True
        return os.waitstatus_to_exitcode(status)

    def as_saved(self) -> dict[str, Any]:
        """Return what the parent needs to know of it after it has executed itself anew.

        Half a message, in or out, goes along.
        """
        return {
            "id": self.id,
            "slot": self.slot,
            "generation": self.generation,
            "pid": self.pid,
            "channel": self.channel.fileno(),
            "phase": self.phase,
            "in": self._reader.rest().hex(),
            "out": self._out.hex(),
        }

    @classmethod
    def from_saved(cls, saved: dict[str, Any]) -> "Child":
        os.set_inheritable(saved["channel"], False)
        channel = socket.socket(fileno=saved["channel"])
        child = cls(
            saved["id"], saved["slot"], saved["generation"], saved["pid"], channel, saved["phase"]
        )
        child._reader.feed(bytes.fromhex(saved.get("in", "")))
        child._out += bytes.fromhex(saved.get("out", ""))
        return child

    def _turn(self) -> None:
        self._flush()
        if not self._read():
            self._loop.forget(self.channel.fileno())  # its end is told by the process itself
            self._loop.later(END_SECONDS, self.kill)  # it may have last lines to write

    def _flush(self) -> None:
        try:
            while self._out:
                sent = self.channel.send(self._out[: 256 * 1024])
                del self._out[:sent]
        except BlockingIOError:
            pass
        except OSError:
            self._out.clear()
        if self.channel.fileno() >= 0:
            with contextlib.suppress(OSError):
                self._loop.watch_writing(self.channel.fileno(), wanted=bool(self._out))

    def _read(self) -> bool:
        """Take what has come; False at the end."""
        while True:
            try:
                data = self.channel.recv(256 * 1024)
            except BlockingIOError:
                return True
            except OSError:
                return False
            if not data:
                return False
            for address, payload in self._reader.feed(data):
                self._told(self, address, payload)


def spawn(number: int, slot: int, generation: int, plan: Plan, environ: dict[str, str]) -> Child:
    """Start a worker. The number of its end of the channel is the last argument it is given.

    Raises:
        OSError: If it cannot be executed.
    """
    ours, theirs = socket.socketpair()
    try:
        argv = [*plan.worker, str(theirs.fileno())]
        with Inherited((*plan.descriptors, theirs.fileno())):
            pid = os.posix_spawn(argv[0], argv, environ, setsigmask=(), setsigdef=SIGNALS)
    except OSError:
        ours.close()
        raise
    finally:
        theirs.close()
    return Child(number, slot, generation, pid, ours, STARTING)
