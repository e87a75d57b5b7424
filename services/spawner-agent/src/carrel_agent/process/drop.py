"""Becoming the user, or ending.

Runs in a freshly forked, single-threaded process that is root's (or, without root, already the
user's). Every step either holds or ends the process with a code of its own and a line in the
server's log: there is no path on which a server runs with more rights than its owner has.

The order matters. What needs root (limits above the hard one, groups) comes before the ids; the
ids are read back, because a call that reports success is not yet proof; files and directories are
touched as the user only, so that no symlink of theirs is ever followed by root.
"""

import contextlib
import fcntl
import os
import resource
import signal
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum
from typing import NoReturn

from carrel_agent.process.capabilities import clear_capabilities, held_capabilities, set_dumpable
from carrel_agent.process.exec_environment import CONFIG_DIRECTORY, exec_environment
from carrel_agent.process.launch_spec import LaunchSpec, LaunchSpecError, read_launch_spec

LISTEN_FD = 3
"""Where the process that starts finds its bound socket. No descriptor above it is left open."""

_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)
_CHANGEABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


class ExitCode(IntEnum):
    """How a process ends that could not become a server. Its log has the reason in words."""

    SPEC = 70
    SESSION = 71
    LIMITS = 72
    ACCOUNT = 73
    STILL_PRIVILEGED = 74
    DESCRIPTORS = 75
    EXECUTE = 76
    SERVER = 77
    CONFIGURATION = 78
    UNEXPECTED = 79


class StartError(Exception):
    """This process must end. `str()` is for the server's owner."""

    def __init__(self, code: ExitCode, message: str) -> None:
        super().__init__(message)
        self.code = code


@contextlib.contextmanager
def _step(description: str, code: ExitCode) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise StartError(code, f"cannot {description}: {reason}") from error


def become_user(spec: LaunchSpec, *, listen_fd: int, log_fd: int, for_exec: bool) -> None:
    """Turn this process into one of the user's.

    Afterwards descriptor 0 is /dev/null, 1 and 2 are the log, `LISTEN_FD` is the socket, and there
    are no others.

    Args:
        spec: Who to become, and how.
        listen_fd: The bound socket, not listening yet: who calls listen() is who a proxy sees as
            its peer (unix(7), SO_PEERCRED), so that is left to the user's process.
        log_fd: Where its output goes.
        for_exec: Whether execve() follows, or Python goes on in this process.

    Raises:
        StartError: If a step failed. The process is then in no state to go on.
    """
    privileged = os.geteuid() == 0
    if spec.uid == 0:
        raise StartError(ExitCode.SPEC, "servers never run as root")
    if not privileged and (spec.uid, spec.gid) != (os.getuid(), os.getgid()):
        raise StartError(
            ExitCode.SPEC,
            f"this agent runs as uid {os.getuid()} and cannot start anything as uid {spec.uid};"
            " run it as root, or let everybody start their own",
        )
    with _step("reset signals", ExitCode.SESSION):
        reset_signals(for_exec=for_exec)
    with _step("start a session of its own", ExitCode.SESSION):
        if os.getsid(0) != os.getpid():  # a service manager may have seen to that
            os.setsid()
    join_groups(spec.cgroups)
    # Before the limits: a descriptor above a lowered RLIMIT_NOFILE could be left open.
    _arrange_descriptors(listen_fd, log_fd, inheritable=for_exec)
    _apply_limits(spec)
    os.umask(spec.umask)
    if privileged:
        _change_ids(spec)
    with _step("give up capabilities", ExitCode.ACCOUNT):
        clear_capabilities()
    verify_identity(spec, groups=privileged)
    if not for_exec:
        # The kernel withdrew it when the ids changed; /proc/self would stay root's (proc(5)).
        with _step("make /proc/self its owner's", ExitCode.ACCOUNT):
            set_dumpable()
    _enter_directory(spec)


def join_groups(directories: Sequence[str]) -> None:
    """Move this process into control groups, so that everything it ever starts is in them.

    Raises:
        StartError: If one does not take it.
    """
    for directory in directories:
        with _step(f"join its control group {directory}", ExitCode.LIMITS):
            descriptor = _open_group(directory)
            try:
                os.write(descriptor, b"0")  # whoever writes
            finally:
                os.close(descriptor)


def _open_group(directory: str) -> int:
    """Return where a process writes that it joins a group.

    By `cgroup.procs` the kernel moves a whole process, for which it first waits until nothing forks
    on the whole host: ten milliseconds. By version 1's `tasks` it moves the thread that writes,
    which here is all there is of the process, and waits for nobody. Version 2 has no such file.
    """
    try:
        return os.open(f"{directory}/tasks", os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return os.open(f"{directory}/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)


def reset_signals(*, for_exec: bool) -> None:
    """Put back what a process starts with: default dispositions, nothing blocked.

    Python ignores SIGPIPE and SIGXFSZ and turns SIGINT into an exception; that is kept when Python
    goes on, and undone before an exec, which would pass ignored signals on.
    """
    signal.set_wakeup_fd(-1)
    for number in _CHANGEABLE:
        signal.signal(number, signal.SIG_DFL)
    if not for_exec:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        for number in _PYTHON_IGNORES:
            signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _apply_limits(spec: LaunchSpec) -> None:
    if spec.oom_score_adj is not None:
        with _step("set its OOM score", ExitCode.LIMITS):
            descriptor = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            try:
                os.write(descriptor, str(spec.oom_score_adj).encode("ascii"))
            finally:
                os.close(descriptor)
    # A core file holds what the process knew, other visitors' data included.
    for name, limits in {"CORE": (0, 0), **spec.rlimits}.items():
        with _step(f"set the limit {name} to {limits[0]}:{limits[1]}", ExitCode.LIMITS):
            resource.setrlimit(getattr(resource, f"RLIMIT_{name}"), limits)


def _change_ids(spec: LaunchSpec) -> None:
    with _step(f"take the groups of {spec.user}", ExitCode.ACCOUNT):
        os.setgroups(spec.groups)
    with _step(f"take gid {spec.gid}", ExitCode.ACCOUNT):
        os.setresgid(spec.gid, spec.gid, spec.gid)
    with _step(f"take uid {spec.uid}", ExitCode.ACCOUNT):
        os.setresuid(spec.uid, spec.uid, spec.uid)


def verify_identity(spec: LaunchSpec, *, groups: bool) -> None:
    """Read back who this process is, and try the way back to root, which must be closed.

    Raises:
        StartError: If anything is left of what it was.
    """
    wrong = []
    if os.getresuid() != (spec.uid,) * 3:
        wrong.append(f"uids are {os.getresuid()}")
    if os.getresgid() != (spec.gid,) * 3:
        wrong.append(f"gids are {os.getresgid()}")
    if groups and set(os.getgroups()) != set(spec.groups):
        wrong.append(f"groups are {sorted(os.getgroups())}")
    if held := held_capabilities():
        wrong.append(f"capabilities are left: {held}")
    for name, way_back in (("setuid(0)", os.setuid), ("setgid(0)", os.setgid)):
        if way_back is os.setgid and spec.gid == 0:
            continue
        if _succeeds(way_back):
            wrong.append(f"{name} still works")
    if wrong:
        raise StartError(
            ExitCode.STILL_PRIVILEGED, f"not fully {spec.user}: {'; '.join(wrong)}; not started"
        )


def _succeeds(change: Callable[[int], None]) -> bool:
    try:
        change(0)
    except OSError:
        return False
    return True


def _arrange_descriptors(listen_fd: int, log_fd: int, *, inheritable: bool) -> None:
    with _step("arrange its descriptors", ExitCode.DESCRIPTORS):
        # Out of the way first: any of them may sit where another has to go.
        listener, log = (fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 10) for fd in (listen_fd, log_fd))
        null = fcntl.fcntl(os.open("/dev/null", os.O_RDONLY), fcntl.F_DUPFD_CLOEXEC, 10)
        os.dup2(null, 0)
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.dup2(listener, LISTEN_FD, inheritable=inheritable)
        # Not up to SC_OPEN_MAX: that is the soft limit, which says nothing of what is open.
        highest = max(map(int, os.listdir("/proc/self/fd")))  # noqa: PTH208 - names are enough
        os.closerange(LISTEN_FD + 1, highest + 1)


def _enter_directory(spec: LaunchSpec) -> None:
    for place, instead in ((spec.cwd, spec.home), (spec.home, "/")):
        if not place:
            continue
        try:
            os.chdir(place)
        except OSError as error:
            say(f"cannot enter {place} ({error.strerror}); starting in {instead} instead")
        else:
            return
    os.chdir("/")


def say(message: str) -> None:
    """Write one line to the server's log, which is descriptor 2 by then.

    Never raises: there is nobody left to tell.
    """
    line = "".join(c if c.isprintable() else "?" for c in message)
    with contextlib.suppress(OSError):
        os.write(2, f"[carrel] {line}\n".encode("utf-8", "replace"))


def require_readable(spec: LaunchSpec, *paths: str | os.PathLike[str]) -> None:
    """As the user: check that what every server needs can be read by them.

    Jupyter passes over a configuration that it cannot read, and would then serve anybody who finds
    its port.

    Raises:
        StartError: Naming the first file that cannot be read.
    """
    for path in paths:
        if not os.access(path, os.R_OK):
            raise StartError(
                ExitCode.CONFIGURATION,
                f"{spec.user} may not read {os.fspath(path)}; Carrel and JupyterLab must be"
                " installed where every account can read them, so not below a private home",
            )


def execute_server(spec: LaunchSpec) -> NoReturn:
    """As the user: replace this process by the server.

    Raises:
        StartError: If the program, or what it is configured by, cannot be had.
    """
    require_readable(spec, CONFIG_DIRECTORY / "jupyter_server_config.py")
    argv, environment = exec_environment(spec, LISTEN_FD)
    with _step(f"execute {argv[0]}", ExitCode.EXECUTE):
        os.execve(argv[0], argv, environment)  # noqa: S606 - the argv is the agent's own


def exec_child(spec: LaunchSpec, listen_fd: int, log_fd: int) -> NoReturn:
    """In a forked child: become the user and execute the server. Returns never, raises never."""
    _end_with_reason(lambda: _exec_server(spec, listen_fd, log_fd), log_fd)


def exec_child_from(spec_fd: int, listen_fd: int, log_fd: int) -> NoReturn:
    """Like `exec_child`, reading the spec here, so that the parent never holds the secret."""
    _end_with_reason(lambda: _exec_server(read_launch_spec(spec_fd), listen_fd, log_fd), log_fd)


def _exec_server(spec: LaunchSpec, listen_fd: int, log_fd: int) -> None:
    become_user(spec, listen_fd=listen_fd, log_fd=log_fd, for_exec=True)
    execute_server(spec)


def _end_with_reason(work: Callable[[], None], log_fd: int) -> NoReturn:
    code = ExitCode.UNEXPECTED
    try:
        # From here on descriptor 2 is the server's log, whatever becomes of the others.
        os.dup2(log_fd, 2)
        work()
    except StartError as error:
        code = error.code
        say(f"This server was not started: {error}")
    except LaunchSpecError as error:
        code = ExitCode.SPEC
        say(f"This server was not started: {error}")
    except BaseException as error:
        # The text may quote what must not be logged; the type is enough to find the place.
        say(f"This server was not started: unexpected {type(error).__name__}")
    finally:
        os._exit(code)
