"""A reload from the parent's side: a child makes the next plan, then the parent becomes its own
successor, so that an upgraded package is picked up."""

import array
import json
import os
import signal
import socket
from collections.abc import Callable
from typing import Any

from carrel_proxy.process.loop import Loop
from carrel_proxy.process.plan import HANDOVER, SIGNALS, VERSION, Inherited, Plan, save_state

PLAN_SECONDS = 60.0
_MOST_DESCRIPTORS = 64
_MOST_BYTES = 1 << 20

Planned = Callable[[Plan | None, str | None], None]


class Reload:
    """A launcher at work. Calls back once: with a plan, or with what is wrong."""

    def __init__(self, plan: Plan, loop: Loop, planned: Planned) -> None:
        self._plan = plan
        self._loop = loop
        self._planned = planned
        self._over = False
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        handover = {"version": VERSION, "reply": theirs.fileno(), "listeners": plan.listeners}
        environ = {**os.environ, HANDOVER: json.dumps(handover)}
        argv = plan.launcher
        self._socket = ours
        self._pid = -1
        try:
            with Inherited((*plan.listeners.values(), theirs.fileno())):
                self._pid = os.posix_spawn(argv[0], argv, environ, setsigmask=(), setsigdef=SIGNALS)
        except OSError as error:
            reason = f"{argv[0]}: {error.strerror}"
            loop.later(0, lambda: self._end(None, reason))
        theirs.close()
        loop.watch(ours.fileno(), self._answered)
        loop.later(PLAN_SECONDS, lambda: self._end(None, f"no plan within {PLAN_SECONDS:.0f} s"))

    def abandon(self) -> None:
        """Want no plan any more."""
        self._planned = lambda _plan, _error: None
        self._end(None, None)

    def _answered(self) -> None:
        data, ancillary, _, _ = self._socket.recvmsg(
            _MOST_BYTES, socket.CMSG_SPACE(_MOST_DESCRIPTORS * 4), socket.MSG_CMSG_CLOEXEC
        )
        received = array.array("i")
        for level, kind, content in ancillary:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received.frombytes(content[: len(content) - len(content) % 4])
        if not data:
            self._end(None, "the new program ended without a plan; the log has its words")
            return
        answer = json.loads(data)
        if "error" in answer:
            self._end(None, answer["error"])
        else:
            self._end(_with_descriptors(answer, list(received)), None)

    def _end(self, plan: Plan | None, error: str | None) -> None:
        if self._over:
            return
        self._over = True
        self._loop.forget(self._socket.fileno())
        self._socket.close()
        if self._pid > 0:
            os.kill(self._pid, signal.SIGKILL)  # what it had to say, it has said
            os.waitpid(self._pid, 0)
        self._planned(plan, error)


def _with_descriptors(values: dict[str, Any], received: list[int]) -> Plan:
    """Return the plan with the numbers that its descriptors have here.

    The launcher numbers those it sends from -1 down, in the order it sends them.
    """

    def here(number: int) -> int:
        return received[-1 - number] if number < 0 else number

    values["listeners"] = {name: here(number) for name, number in values["listeners"].items()}
    values["kept"] = [here(number) for number in values["kept"]]
    named = {f"@{-1 - i}": str(descriptor) for i, descriptor in enumerate(received)}
    values["worker"] = [named.get(word, word) for word in values["worker"]]
    return Plan(values)


def execute_anew(plan: Plan, saved: dict[str, Any], descriptors: set[int]) -> str:
    """Become the parent that the plan names, at the same process id; return only if that fails.

    Args:
        saved: What it is to go on with.
        descriptors: Those that it needs for that.
    """
    descriptor = save_state({"plan": plan.values, "saved": saved})
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # what comes meanwhile waits
    try:
        with Inherited((*descriptors, descriptor)):
            os.execv(  # noqa: S606 - no shell is wanted
                plan.parent[0], [*plan.parent, str(descriptor)]
            )
    except OSError as error:
        return str(error.strerror)
    finally:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
        os.close(descriptor)
