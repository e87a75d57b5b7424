"""The keeper's two helpers: the agent, always running, and the zygote, on request."""

import os
import signal
import socket
import sys
from collections.abc import Sequence

from carrel_agent.keeper.messages import (
    ZYGOTE_FD_VARIABLE,
    ZYGOTE_PRELOAD_VARIABLE,
    ZYGOTE_TRUST_VARIABLE,
    new_pair,
)

SESSION_HOLDER = os.path.join(  # noqa: PTH118
    os.path.dirname(os.path.dirname(__file__)),  # noqa: PTH120
    "process/pam_session.py",
)
AGENT_FIRST_WAIT = 0.2
AGENT_LONGEST_WAIT = 10.0
AGENT_LASTS_SECONDS = 30.0
"""An agent that ran this long was well; the next wait starts small again."""

# What a helper must not inherit from the keeper: how it treats signals.
_RESET = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGPIPE)


def spawn(argv: Sequence[str], environment: dict[str, str], channel: socket.socket) -> int:
    """Start a program that inherits `channel` and the standard descriptors; return its pid.

    Raises:
        OSError: If it cannot be started.
    """
    os.set_inheritable(channel.fileno(), True)
    try:
        return os.posix_spawn(argv[0], list(argv), environment, setsigdef=_RESET, setsigmask=())
    finally:
        os.set_inheritable(channel.fileno(), False)


def spawn_zygote(
    python: str, environ: dict[str, str], preload: str = "", trust: str | None = None
) -> tuple[int, socket.socket]:
    """Start a zygote; return its pid and the end of its pair that is the agent's.

    Its environment is all but empty: its memory is readable by everybody it is forked for.

    Args:
        trust: The uids whose files it may import; None for an agent that does not say.

    Raises:
        OSError: If it cannot be started.
    """
    ours, theirs = new_pair()
    environment = {
        "PATH": environ.get("PATH", os.defpath),
        "LANG": environ.get("LANG", "C.UTF-8"),
        ZYGOTE_FD_VARIABLE: str(theirs.fileno()),
        **({ZYGOTE_PRELOAD_VARIABLE: preload} if preload else {}),
        **({ZYGOTE_TRUST_VARIABLE: trust} if trust is not None else {}),
    }
    # It has nothing to wait for but requests; a channel that does not block would make it spin.
    theirs.setblocking(True)
    try:
        pid = spawn((python, "-I", "-m", "carrel_agent.zygote"), environment, theirs)
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


def spawn_session(service: str, account: str) -> tuple[int, socket.socket]:
    """Start the holder of a PAM session; return its pid and the agent's end of its pair.

    It is nobody's helper: like a server it outlives agent and keeper.

    Raises:
        OSError: If it cannot be started.
    """
    ours, theirs = new_pair()
    theirs.setblocking(True)
    argv = (sys.executable, "-I", "-S", SESSION_HOLDER, service, account)
    environment = {"PATH": os.defpath, "LANG": "C.UTF-8"}
    try:
        # In a session of its own: what is meant for a terminal's programs is not for it.
        pid = os.posix_spawn(
            argv[0], argv, environment,
            file_actions=[(os.POSIX_SPAWN_DUP2, theirs.fileno(), 0)],
            setsid=True, setsigdef=_RESET, setsigmask=(),
        )  # fmt: skip
    except BaseException:
        ours.close()
        raise
    finally:
        theirs.close()
    return pid, ours


class Backoff:
    """How long to wait before the agent is started again."""

    def __init__(self) -> None:
        self._failures = 0

    def next_wait(self, ran_seconds: float) -> float:
        """Return the wait after a run of this length."""
        if ran_seconds >= AGENT_LASTS_SECONDS:
            self._failures = 0
        wait = min(AGENT_FIRST_WAIT * 2.0**self._failures, AGENT_LONGEST_WAIT)
        self._failures = min(self._failures + 1, 10)
        return wait
