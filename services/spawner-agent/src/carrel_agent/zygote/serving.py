"""The zygote's socket: requests come in with three descriptors each, pids go out.

One request is answered before the next is read; a fork takes a few milliseconds.
"""

import array
import contextlib
import json
import os
import socket
import struct
import sys
from dataclasses import dataclass
from typing import Any

from carrel_agent.zygote.child import run_child
from carrel_agent.zygote.freshness import STALE, Fingerprint, fingerprint
from carrel_shared.clock import SystemClock
from carrel_shared.identity import read_stat

MAX_MESSAGE = 4096
_PID = struct.Struct("=i")
_INT = array.array("i").itemsize
DESCRIPTORS = ("launch spec", "bound socket", "log")


class RequestError(ValueError):
    """A request that cannot be served. The text goes back to the agent."""


@dataclass(frozen=True, slots=True)
class ForkRequest:
    """One server to start. The descriptors are the zygote's to close."""

    spec_fd: int
    listen_fd: int
    log_fd: int


def say(event: str, **values: object) -> None:
    """Write one event to stderr in the services' format, without a logging system to fork."""
    stamp = SystemClock().now().strftime("%H:%M:%S")
    shown = " ".join(f"{name}={value}" for name, value in values.items())
    sys.stderr.write(f"{stamp} zygote INFO    {event} {shown}".rstrip() + "\n")
    sys.stderr.flush()


def serve(channel: socket.socket, made_of: Fingerprint | None = None) -> None:
    """Answer requests until nobody holds the other end any more.

    Args:
        channel: To the agent.
        made_of: `freshness.fingerprint()` from before anything was imported; None to fork whatever
            has become of it.
    """
    while True:
        data, descriptors, whole = _receive(channel)
        if not data and not descriptors:
            return
        try:
            stale = made_of is not None and fingerprint() != made_of
            reply = _answer(data, descriptors, whole, stale=stale)
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
        # The agent may be gone; the server lives on and the keeper knows it.
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            channel.send(json.dumps(reply).encode("ascii"))


def _receive(channel: socket.socket) -> tuple[bytes, list[int], bool]:
    """Return one message, its descriptors, and whether all of it came through."""
    space = socket.CMSG_SPACE(_INT * len(DESCRIPTORS))
    try:
        data, ancillary, flags, _ = channel.recvmsg(MAX_MESSAGE, space, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        return b"", [], True
    descriptors = array.array("i")
    for level, kind, payload in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            descriptors.frombytes(payload[: len(payload) // _INT * _INT])
    whole = not flags & (socket.MSG_CTRUNC | socket.MSG_TRUNC)
    return data, list(descriptors), whole


def _answer(data: bytes, descriptors: list[int], whole: bool, *, stale: bool) -> dict[str, Any]:
    number: object = None
    try:
        request = json.loads(data)
        if not isinstance(request, dict):
            raise RequestError("a request is a JSON object")
        number = request.get("id")
        if request.get("op") != "fork":
            raise RequestError(f"op {request.get('op')!r} is not known here")
        if not whole or len(descriptors) != len(DESCRIPTORS):
            raise RequestError(
                f"fork needs {len(DESCRIPTORS)} descriptors ({', '.join(DESCRIPTORS)});"
                f" {len(descriptors)} came"
            )
        if stale:
            raise RequestError(STALE)
        pid, start_ticks = fork_server(ForkRequest(*descriptors))
    except OSError as error:
        return {"id": number, "error": f"cannot fork: {error.strerror}"}
    except ValueError as error:
        return {"id": number, "error": str(error)}
    return {"id": number, "pid": pid, "start_ticks": start_ticks}


def fork_server(request: ForkRequest) -> tuple[int, int]:
    """Start a server and return its pid and the tick it was started at.

    Forked twice: the middle process ends at once, so that the keeper, which is the nearest
    subreaper, becomes the parent and gets the exit status. The server waits behind a gate until
    its identity was read, since a pid of a process that has ended already names nobody.

    Raises:
        OSError: If the kernel has no room for another process.
    """
    gate, gate_key = os.pipe()
    report, report_end = os.pipe()
    try:
        sys.stdout.flush()
        sys.stderr.flush()
        middle = os.fork()
        if middle == 0:
            _fork_again(request, gate, gate_key, report_end)
        os.close(report_end)
        report_end = -1
        answer = os.read(report, _PID.size)
        os.waitpid(middle, 0)
        (pid,) = _PID.unpack(answer) if len(answer) == _PID.size else (-1,)
        if pid < 0:
            raise OSError(-pid, os.strerror(-pid))
        stat = read_stat(pid)
        if stat is None:
            raise OSError(3, "it was killed before it began")
        os.write(gate_key, b"g")
        return pid, stat.start_ticks
    finally:
        for descriptor in (gate, gate_key, report, report_end):
            if descriptor >= 0:
                os.close(descriptor)


def _fork_again(request: ForkRequest, gate: int, gate_key: int, report: int) -> None:
    """In the middle process: fork, report the pid (or minus the error's number), end."""
    try:
        try:
            pid = os.fork()
        except OSError as error:
            pid = -(error.errno or 1)
        if pid == 0:
            os.close(gate_key)
            # No byte: the zygote died before anybody knew of this process, so nobody ever will.
            if os.read(gate, 1) == b"g":
                run_child(request.spec_fd, request.listen_fd, request.log_fd)
        else:
            os.write(report, _PID.pack(pid))
    finally:
        os._exit(0)
