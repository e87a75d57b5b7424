"""What a new server's process needs to know, and how it gets to it.

The agent writes the spec into a sealed memfd and passes the descriptor on; it is read in the new
process only, after the fork. So neither zygote nor keeper ever holds a secret in its memory, and
nothing of it is in an argument list, an environment of theirs, or a file.
"""

import fcntl
import json
import os
import re
from collections.abc import Callable
from dataclasses import MISSING, dataclass, field, fields
from typing import Any

MAX_SPEC_BYTES = 1 << 20
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SERVER_ID = re.compile(r"[0-9a-f]{12}")
MAX_ID = 2**32 - 2
"""The highest uid or gid; the next one, -1 to the kernel, means "leave as it is"."""
RLIMIT_NAMES = frozenset(
    {
        *("AS", "CORE", "CPU", "DATA", "FSIZE", "MEMLOCK", "MSGQUEUE", "NICE", "NOFILE", "NPROC"),
        *("RSS", "RTPRIO", "RTTIME", "SIGPENDING", "STACK"),
    }
)


class LaunchSpecError(ValueError):
    """A launch spec that must not be used; the message names the field and never its secret."""


@dataclass(frozen=True, slots=True)
class LaunchSpec:
    """One start of one server.

    Attributes:
        uid, gid, groups: What the process becomes, and all it becomes. Never uid 0.
        user: Carrel's name for the owner, as the hub shows it.
        home: Also where the process starts, unless `cwd` says otherwise.
        shell: For terminals.
        cwd: Empty for `home`.
        umask: File mode bits that are masked out, such as 0o022.
        environment: All of it. Nothing of the agent's own is added.
        own_port: It listens on a port of its own and knows nothing of Carrel, so that it is given
            no configuration of ours.
        argv: What to execute, first an absolute path; None for this host's JupyterLab.
        base_url, hub_prefix: Paths with slashes at both ends.
        default_url: Where a browser lands below `base_url`.
        secret: What the proxy sends as `X-Carrel-Secret`.
        server_name: The hub's name for the server; empty for the default one.
        process_title: What `ps` shows for a forked server.
        rlimits: By `resource` name without `RLIMIT_`: soft and hard limit, -1 for none.
        oom_score_adj: proc(5); the keeper and the agent should outlive what they started.
        cgroups: The directories of the control groups that the process joins before anything else.
    """

    uid: int
    gid: int
    groups: tuple[int, ...]
    user: str
    home: str
    shell: str
    environment: dict[str, str] = field(repr=False)
    base_url: str
    hub_prefix: str
    secret: str = field(repr=False)
    server_id: str
    cwd: str = ""
    umask: int = 0o022
    argv: tuple[str, ...] | None = None
    own_port: bool = False
    default_url: str = "/lab"
    server_name: str = ""
    process_title: str = ""
    rlimits: dict[str, tuple[int, int]] = field(default_factory=dict)
    oom_score_adj: int | None = None
    cgroups: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        """Refuse what could not be meant.

        Raises:
            LaunchSpecError: Saying which field and why.
        """
        self._check_identity()
        self._check_process()
        _require(_is_path(self.base_url), "base_url", "must begin and end with a slash")
        _require(_is_path(self.hub_prefix), "hub_prefix", "must begin and end with a slash")
        _require(len(self.secret) >= 32, "secret", "must have 32 characters or more")
        _require(
            self.secret.isascii() and self.secret.isprintable(), "secret", "must be printable ASCII"
        )
        _require(_SERVER_ID.fullmatch(self.server_id), "server_id", "must be 12 hex digits")

    def _check_identity(self) -> None:
        for name, number in (("uid", self.uid), ("gid", self.gid)):
            _require(_is_id(number), name, f"{number!r} is no account number")
        _require(self.uid != 0, "uid", "0 is root, and nothing of a user's ever runs as root")
        for group in self.groups:
            _require(_is_id(group), "groups", f"{group!r} is no group number")
        _require(bool(self.user), "user", "must not be empty")

    def _check_process(self) -> None:
        _require(_is_absolute(self.home), "home", "must be an absolute path")
        _require(not self.cwd or _is_absolute(self.cwd), "cwd", "must be an absolute path")
        _require(0 <= self.umask <= 0o777, "umask", "must lie between 0 and 0o777")
        for name, value in self.environment.items():
            # A line break would let a value pose as another variable to whatever prints them.
            _require(_NAME.fullmatch(name), "environment", f"{name!r} is no variable name")
            _require(
                not set("\0\n\r") & set(value), "environment", f"{name} holds NUL or a line break"
            )
        if self.argv is not None:
            _require(bool(self.argv), "argv", "must not be empty")
            _require(_is_absolute(self.argv[0]), "argv", "must begin with an absolute path")
            _require(not any("\0" in word for word in self.argv), "argv", "holds NUL")
        for name, limits in self.rlimits.items():
            _require(name in RLIMIT_NAMES, "rlimits", f"{name!r} is no limit's name")
            _require(len(limits) == 2, "rlimits", f"{name} needs a soft and a hard limit")
        for group in self.cgroups:
            _require(_is_absolute(group), "cgroups", "must be absolute paths")
        if self.oom_score_adj is not None:
            _require(-1000 <= self.oom_score_adj <= 1000, "oom_score_adj", "must lie within +-1000")


def write_launch_spec(spec: LaunchSpec) -> int:
    """Return a close-on-exec descriptor of a sealed memfd that holds `spec`.

    Sealed: whoever holds a copy of the descriptor can read it, and nobody can change it.
    """
    data = json.dumps({name: getattr(spec, name) for name in _SHAPES}).encode("ascii")
    descriptor = os.memfd_create("carrel-launch", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        os.write(descriptor, data)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def read_launch_spec(descriptor: int) -> LaunchSpec:
    """Return the spec in a memfd, wherever its file offset stands. The descriptor stays open.

    Raises:
        LaunchSpecError: If it holds none, or one that must not be used.
        OSError: If it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    if size > MAX_SPEC_BYTES:
        raise LaunchSpecError(f"the launch spec has {size} bytes; {MAX_SPEC_BYTES} are allowed")
    return parse_launch_spec(os.pread(descriptor, size, 0))


def parse_launch_spec(data: bytes) -> LaunchSpec:
    """Return the spec in `data`.

    Raises:
        LaunchSpecError: If it holds none, or one that must not be used. What could not be parsed
            is not quoted, since it may be the secret.
    """
    try:
        record = json.loads(data)
    except ValueError:
        raise LaunchSpecError("the launch spec is not JSON") from None
    if not isinstance(record, dict):
        raise LaunchSpecError("the launch spec is not a JSON object")
    for name, value in record.items():
        _require(name in _SHAPES, name, "is no field of a launch spec")
        _require(_SHAPES[name](value), name, "has the wrong type")
    required = {
        entry.name
        for entry in fields(LaunchSpec)
        if entry.default is MISSING and entry.default_factory is MISSING
    }
    missing = required - set(record)
    if missing:
        raise LaunchSpecError(f"the launch spec lacks {', '.join(sorted(missing))}")
    record["groups"] = tuple(record["groups"])
    if record.get("argv") is not None:
        record["argv"] = tuple(record["argv"])
    record["cgroups"] = tuple(record.get("cgroups", ()))
    record["rlimits"] = {k: tuple(v) for k, v in record.get("rlimits", {}).items()}
    return LaunchSpec(**record)


def _is_int(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_id(number: int) -> bool:
    return _is_int(number) and 0 <= number <= MAX_ID


def _is_absolute(path: str) -> bool:
    return path.startswith("/") and "\0" not in path


def _is_path(path: str) -> bool:
    return path.startswith("/") and path.endswith("/") and path.isprintable()


def _require(holds: object, name: str, complaint: str) -> None:
    if not holds:
        raise LaunchSpecError(f"launch spec: {name}: {complaint}")


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_list_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _is_table_of(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, dict) and all(map(check, value.values()))


def _or_none(check: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or check(value)


# What each field is in JSON, where a tuple is a list.
_SHAPES: dict[str, Callable[[Any], bool]] = {
    "uid": _is_int,
    "gid": _is_int,
    "groups": _is_list_of(_is_int),
    "user": _is_text,
    "home": _is_text,
    "shell": _is_text,
    "environment": _is_table_of(_is_text),
    "base_url": _is_text,
    "hub_prefix": _is_text,
    "secret": _is_text,
    "server_id": _is_text,
    "cwd": _is_text,
    "umask": _is_int,
    "own_port": lambda value: isinstance(value, bool),
    "argv": _or_none(_is_list_of(_is_text)),
    "default_url": _is_text,
    "server_name": _is_text,
    "process_title": _is_text,
    "rlimits": _is_table_of(_is_list_of(_is_int)),
    "oom_score_adj": _or_none(_is_int),
    "cgroups": _is_list_of(_is_text),
}
