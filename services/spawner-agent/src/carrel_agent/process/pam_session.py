"""The holder of one server's PAM session: opens it, waits for the server's end, closes it.

`python -I -S PATH/process/pam_session.py SERVICE ACCOUNT`, a child of the keeper, as root, with a
SOCK_SEQPACKET socket to the agent as standard input. It says what the session gives: variables,
resource limits, umask. Then it is told which process the server is, and outlives the agent: one
handle in one process, from pam_start to pam_end (pam(3)).

The session is opened beside the server and not in it. So what modules do to the world (mount a
home, write a log, unlock something) is done, and what they do to their own process is handed on as
far as that can be: environment, limits, umask. A login uid or a keyring of the kernel is not.
"""

# ruff: noqa: PTH123

import ctypes
import ctypes.util
import json
import os
import resource
import select
import signal
import socket
import sys
from typing import Any

PAM_SUCCESS = 0
PAM_CONV_ERR = 19
PAM_PROMPTS = (1, 2)
PAM_TTY = 3
PAM_ESTABLISH_CRED, PAM_DELETE_CRED, PAM_SILENT = 0x2, 0x4, 0x8000
EX_UNAVAILABLE = 69
CLOSE_SECONDS = 600
"""How long modules may take to close a session: one that hangs must not be here for ever."""


class PamError(Exception):
    """PAM refused; the message says what and why."""


class _Message(ctypes.Structure):
    _fields_ = [("style", ctypes.c_int), ("text", ctypes.c_char_p)]


class _Response(ctypes.Structure):
    _fields_ = [("text", ctypes.c_char_p), ("code", ctypes.c_int)]


_CONVERSE = ctypes.CFUNCTYPE(
    ctypes.c_int,
    ctypes.c_int,
    ctypes.POINTER(ctypes.POINTER(_Message)),
    ctypes.POINTER(ctypes.POINTER(_Response)),
    ctypes.c_void_p,
)


class _Conversation(ctypes.Structure):
    _fields_ = [("converse", _CONVERSE), ("data", ctypes.c_void_p)]


class Session:
    """One PAM session."""

    def __init__(self, service: str, account: str) -> None:
        self._pam = ctypes.CDLL(ctypes.util.find_library("pam") or "libpam.so.0")
        self._libc = ctypes.CDLL(None)
        self._libc.calloc.restype = ctypes.c_void_p
        self._pam.pam_strerror.restype = ctypes.c_char_p
        self._pam.pam_getenvlist.restype = ctypes.POINTER(ctypes.c_char_p)
        self._converse = _CONVERSE(self._answer)
        conversation = _Conversation(self._converse, None)
        self._handle = ctypes.c_void_p()
        status = self._pam.pam_start(
            service.encode(), account.encode(), ctypes.byref(conversation),
            ctypes.byref(self._handle),
        )  # fmt: skip
        if status != PAM_SUCCESS:
            raise PamError(f"PAM has no use of the service {service!r} (status {status})")
        self._conversation = conversation
        self._status = PAM_SUCCESS

    def _answer(self, count: int, messages: Any, responses: Any, _data: Any) -> int:
        """Answer nothing: nobody is there. What modules only want to tell is passed over."""
        if any(messages[n].contents.style in PAM_PROMPTS for n in range(count)):
            return PAM_CONV_ERR
        memory = self._libc.calloc(count, ctypes.sizeof(_Response))
        responses[0] = ctypes.cast(memory, ctypes.POINTER(_Response))
        return PAM_SUCCESS

    def open(self) -> None:
        """Check the account, and open the session.

        Raises:
            PamError: If the account may not be used now, or a module fails.
        """
        self._call("pam_set_item", PAM_TTY, ctypes.c_char_p(b"carrel"))
        self._call("pam_acct_mgmt", PAM_SILENT)
        self._call("pam_setcred", PAM_ESTABLISH_CRED | PAM_SILENT)
        self._call("pam_open_session", PAM_SILENT)

    def close(self) -> None:
        """Close the session, whatever modules say."""
        for call, flags in (("pam_close_session", PAM_SILENT), ("pam_setcred", PAM_DELETE_CRED)):
            try:
                self._call(call, flags)
            except PamError as error:
                _say(str(error))
        self.end()

    def end(self) -> None:
        """Let go of PAM."""
        self._pam.pam_end(self._handle, self._status)

    def environment(self) -> dict[str, str]:
        """Return the variables that modules have set."""
        listed = self._pam.pam_getenvlist(self._handle)
        found: dict[str, str] = {}
        number = 0
        while listed and listed[number]:
            name, _, value = listed[number].decode("utf-8", "replace").partition("=")
            found[name] = value
            number += 1
        return found

    def _call(self, name: str, *arguments: Any) -> None:
        self._status = getattr(self._pam, name)(self._handle, *arguments)
        if self._status != PAM_SUCCESS:
            reason = self._pam.pam_strerror(self._handle, self._status) or b"?"
            raise PamError(f"{name}: {reason.decode('utf-8', 'replace')}")


def main(service: str, account: str) -> int:
    """Hold a session until its server has ended; return an exit status."""
    channel = socket.socket(fileno=os.dup(0))
    os.dup2(os.open("/dev/null", os.O_RDWR), 0)
    os.dup2(2, 1)  # what modules print is not an answer
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # the session ends with its server
    before = _limits()
    umask = os.umask(0o022)
    os.umask(umask)
    try:
        session = Session(service, account)
        session.open()
    except (PamError, OSError) as error:
        _tell(channel, {"error": str(error)})
        return EX_UNAVAILABLE
    after = _limits()
    mask = os.umask(umask)
    gained = {
        "environment": session.environment(),
        "limits": {name: after[name] for name in after if after[name] != before[name]},
        "umask": None if mask == umask else mask,
    }
    _tell(channel, gained)
    _wait_for_server(channel)
    signal.alarm(CLOSE_SECONDS)  # its default is this process's end
    session.close()
    return 0


def _wait_for_server(channel: socket.socket) -> None:
    """Return when the server has ended, or will never be."""
    try:
        data = channel.recv(256)
    except OSError:
        data = b""
    if not data:
        return  # the agent died, or gave up, before there was a server
    told = json.loads(data)
    try:
        descriptor = os.pidfd_open(told["pid"])
        with open(f"/proc/{told['pid']}/stat", "rb") as file:
            raw = file.read()
    except OSError:
        return  # it has ended, before one of them or between the two
    if int(raw[raw.rindex(b")") + 2 :].split()[19]) == told["start_ticks"]:
        poll = select.poll()
        poll.register(descriptor, select.POLLIN)
        poll.poll()


def _limits() -> dict[str, tuple[int, int]]:
    names = [name for name in dir(resource) if name.startswith("RLIMIT_")]
    return {n.removeprefix("RLIMIT_"): resource.getrlimit(getattr(resource, n)) for n in names}


def _tell(channel: socket.socket, message: dict[str, Any]) -> None:
    try:
        channel.send(json.dumps(message).encode("ascii"))
    except OSError:
        return


def _say(message: str) -> None:
    sys.stderr.write(f"pam session: {message}\n")
    sys.stderr.flush()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
