"""`python -I -m carrel_agent.zygote`, with the number of its socket in CARREL_ZYGOTE_FD."""

import os
import signal
import sys

FD_VARIABLE = "CARREL_ZYGOTE_FD"
SKIP_VARIABLE = "CARREL_ZYGOTE_SKIP"
PRELOAD_VARIABLE = "CARREL_ZYGOTE_PRELOAD"
TRUST_VARIABLE = "CARREL_ZYGOTE_TRUST"
KEPT_VARIABLES = ("PATH", "LANG", FD_VARIABLE, SKIP_VARIABLE, PRELOAD_VARIABLE, TRUST_VARIABLE)
TITLE_ROOM = 200
"""Bytes of argument memory, which is all the room there is for a child's title in `ps`."""


def main() -> int:
    """Import the stack and answer requests until the socket's other end is closed."""
    descriptor = os.environ.get(FD_VARIABLE, "")
    if not descriptor.isdigit():
        print(f"zygote: {FD_VARIABLE} must hold the number of a socket", file=sys.stderr)
        return 64
    _start_clean()
    # A Ctrl-C meant for the console's program is not for the servers' parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    import socket

    from carrel_agent.zygote import freshness, preload, serving, title

    try:
        channel = socket.socket(fileno=int(descriptor))
    except OSError as error:
        print(f"zygote: {FD_VARIABLE}={descriptor}: {error.strerror}", file=sys.stderr)
        return 64
    skipped = frozenset(_names(SKIP_VARIABLE))
    made_of = freshness.fingerprint()
    try:
        done = preload.preload(skipped, _names(PRELOAD_VARIABLE), _trusted())
    except ImportError as error:
        print(
            f"zygote: JupyterLab cannot be imported ({error}): install it where carrel-agent is"
            " installed, or let the servers be executed instead",
            file=sys.stderr,
        )
        return 69
    if done.culprits:
        return _start_again_without(skipped | done.culprits)
    title.set_title("carrel-zygote")
    serving.say("zygote_ready", modules=len(sys.modules), preloaded=done.extra)
    serving.serve(channel, made_of)
    return 0


def _names(variable: str) -> list[str]:
    return [name for name in os.environ.get(variable, "").split(",") if name]


def _trusted() -> frozenset[int] | None:
    """Return the uids whose files may be imported; None where a keeper of before said nothing."""
    if TRUST_VARIABLE not in os.environ:
        return None
    return frozenset(map(int, _names(TRUST_VARIABLE)))


def _start_clean() -> None:
    """Execute this program again if it has too little room, or an environment of somebody's.

    Its memory is its children's memory, and so is the first page of its stack.
    """
    strays = set(os.environ) - set(KEPT_VARIABLES)
    room = sum(len(word) + 1 for word in sys.orig_argv)
    if strays or room < TITLE_ROOM:
        _execute({name: os.environ[name] for name in KEPT_VARIABLES if name in os.environ})


def _start_again_without(skipped: frozenset[str]) -> int:
    """A module started a thread, and a process with threads must not fork: leave that one out."""
    print(f"zygote: not preloading {', '.join(sorted(skipped))}: starts threads", file=sys.stderr)
    _execute({**os.environ, SKIP_VARIABLE: ",".join(sorted(skipped))})
    return 70


def _execute(environment: dict[str, str]) -> None:
    os.set_inheritable(int(environment[FD_VARIABLE]), True)
    command = [sys.executable, "-I", "-m", "carrel_agent.zygote", "-" * TITLE_ROOM]
    os.execve(sys.executable, command, environment)  # noqa: S606 - this very program


if __name__ == "__main__":
    sys.exit(main())
