"""Starting and ending processes so that none is ever lost.

A new process waits behind a gate until it has been written down, so a `carrel up` that is killed at
any moment leaves no service it does not know of: whatever still waits at the gate ends by itself.
"""

import contextlib
import errno
import os
import resource
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from carrel_hub.up.accounts import Account
from carrel_hub.up.errors import UpError
from carrel_shared.identity import ProcessIdentity, identify, read_stat

_GATE_CLOSED = 120


def launch(
    argv: Sequence[str],
    environment: Mapping[str, str],
    account: Account,
    *,
    output: int,
    written_down: Callable[[ProcessIdentity], None],
) -> ProcessIdentity:
    """Start a program in a session of its own, in `/`, with its output appended to `output`.

    Args:
        argv: The program by its absolute path, and its arguments.
        environment: All of its environment.
        account: Whom it runs as; ids are changed only if this process is root.
        written_down: Records the process; only then does the program begin.

    Raises:
        UpError: If it cannot be executed.
    """
    gate, opener = os.pipe()
    failure, reporter = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(opener)
        _become(argv, environment, account, output=output, gate=gate, reporter=reporter)
    os.close(gate)
    os.close(reporter)
    try:
        identity = identify(pid)
        assert identity is not None  # noqa: S101 - it is our child, not yet waited for
        written_down(identity)
        os.write(opener, b"1")
    finally:
        os.close(opener)
        with os.fdopen(failure, "rb") as report:
            problem = report.read()
    if problem:
        os.waitpid(pid, 0)
        reason = problem.decode(errors="replace")
        if reason == os.strerror(errno.EACCES) and account.uid != os.geteuid():
            reason += (
                f"; the account {account.name} has to run it, so install Carrel, and use a Python,"
                " where every account may read (not below /root, say)"
            )
        raise UpError(f"{argv[0]} cannot be started: {reason}")
    return identity


def _become(
    argv: Sequence[str],
    environment: Mapping[str, str],
    account: Account,
    *,
    output: int,
    gate: int,
    reporter: int,
) -> NoReturn:
    try:
        for number in (signal.SIGPIPE, signal.SIGINT, signal.SIGHUP, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.setsid()
        if not os.read(gate, 1):
            os._exit(_GATE_CLOSED)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208 - what we were given, too
            if int(name) > 2 and int(name) != reporter:
                with contextlib.suppress(OSError):
                    os.close(int(name))
        os.umask(0o022)
        os.chdir("/")
        # Soft only: a dump could hold keys, but servers' owners may raise their own limit again.
        resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
        if os.geteuid() == 0:
            os.setgroups([account.gid] if account.uid else [])
            os.setresgid(account.gid, account.gid, account.gid)
            os.setresuid(account.uid, account.uid, account.uid)
        os.execve(argv[0], list(argv), dict(environment))  # noqa: S606 - no shell is wanted
    except BaseException as error:
        reason = (isinstance(error, OSError) and error.strerror) or str(error)
        with contextlib.suppress(OSError):
            os.write(reporter, reason.encode())
    os._exit(_GATE_CLOSED)


class Watched:
    """A process held by a pidfd: no pid that was reused is ever signalled or waited for.

    Attributes:
        is_child: Whether its exit status can be learned.
    """

    def __init__(self, identity: ProcessIdentity, *, is_child: bool) -> None:
        """Take hold of a process.

        Raises:
            ProcessLookupError: If it is gone.
        """
        self.identity = identity
        self.is_child = is_child
        self._descriptor = os.pidfd_open(identity.pid)
        if not is_child and not identity.is_alive():  # the pidfd may be a later process's
            self.close()
            raise ProcessLookupError(identity.pid)

    def fileno(self) -> int:
        """The pidfd: readable when the process has ended."""
        return self._descriptor

    def signal(self, number: signal.Signals) -> None:
        """Send a signal, unless the process has ended."""
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self._descriptor, number)

    def has_ended(self, seconds: float = 0) -> bool:
        """Whether the process has ended, waiting up to `seconds` for it."""
        poll = select.poll()
        poll.register(self._descriptor, select.POLLIN)
        return bool(poll.poll(seconds * 1000))

    def finish(self) -> int | None:
        """End what is left of its session, reap it, let go of it.

        Returns:
            The exit status, or minus the signal's number; None where only its parent may know.
        """
        # A child's pid is not reused before it is reaped; another's might be, and is then left.
        stat = read_stat(self.identity.pid)
        if stat is None or stat.start_ticks == self.identity.start_ticks:
            end_session(self.identity.pid)
        status: int | None = None
        if self.is_child:
            with contextlib.suppress(ChildProcessError):
                _, raw = os.waitpid(self.identity.pid, 0)
                status = os.waitstatus_to_exitcode(raw)
        self.close()
        return status

    def close(self) -> None:
        os.close(self._descriptor)


def end_session(leader: int) -> None:
    """Kill what a service left behind: members of its session other than the leader.

    Notebook servers are in sessions of their own and are not touched.
    """
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == leader:
            continue
        pid = int(entry.name)
        if session_of(pid) != leader:
            continue
        try:
            descriptor = os.pidfd_open(pid)
        except OSError:
            continue
        try:
            if session_of(pid) == leader:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        finally:
            os.close(descriptor)


def session_of(pid: int) -> int | None:
    """Return the session of a living process, or None."""
    stat = read_stat(pid)
    if stat is None or stat.state == "Z":
        return None
    try:
        return os.getsid(pid)
    except ProcessLookupError:
        return None
