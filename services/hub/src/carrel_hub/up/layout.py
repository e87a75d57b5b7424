"""Where things are, whose they are, and who may look into them."""

import os
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carrel_hub.up.accounts import Account
from carrel_hub.up.errors import UpError
from carrel_shared.addresses import MAX_UNIX_PATH

ROOT_STATE = Path("/var/lib/carrel")
ROOT_RUN = Path("/run/carrel")
_LONGEST_SOCKET = "s/0123456789ab/http.sock"
_OTHERS_MAY_WRITE = stat.S_IWGRP | stat.S_IWOTH


@dataclass(frozen=True, slots=True)
class Layout:
    """Every path that `carrel up` and the services it starts agree on."""

    state: Path
    run: Path

    @property
    def own(self) -> Path:
        return self.state / "up"

    @property
    def keys(self) -> Path:
        return self.own / "keys.json"

    @property
    def lock(self) -> Path:
        return self.own / "lock"

    @property
    def log(self) -> Path:
        return self.own / "carrel.log"

    @property
    def record(self) -> Path:
        return self.run / "up.json"

    @property
    def hub_public(self) -> Path:
        return self.run / "hub/hub.sock"

    @property
    def hub_internal(self) -> Path:
        return self.run / "hub/internal.sock"

    @property
    def proxy_control(self) -> Path:
        return self.run / "proxy/control.sock"

    @property
    def agent(self) -> Path:
        return self.run / "agent/agent.sock"

    @property
    def pam(self) -> Path:
        return self.run / "pam/pam.sock"


def choose_layout(
    *, uid: int, home: str, state_dir: Path | None, run_dir: Path | None, environ: Mapping[str, str]
) -> Layout:
    """Return where things go.

    Args:
        state_dir: `--state-dir`.
        run_dir: `--run-dir`.
        environ: For the XDG base directories, which count only if they are absolute.

    Raises:
        UpError: If sockets below the run-time directory would have too long a path.
    """
    if state_dir is not None:
        state = state_dir.resolve()
        run = state / "run"
    elif uid == 0:
        state, run = ROOT_STATE, ROOT_RUN
    else:
        state = _absolute(environ.get("XDG_STATE_HOME"), Path(home) / ".local/state") / "carrel"
        run = _absolute(environ.get("XDG_RUNTIME_DIR"), state / "run")
        run = run if run == state / "run" else run / "carrel"
    if run_dir is not None:
        run = run_dir.resolve()
    if len(os.fsencode(run / _LONGEST_SOCKET)) > MAX_UNIX_PATH:
        raise UpError(
            f"{run} is too long a path for sockets below it (unix sockets have"
            f" {MAX_UNIX_PATH} bytes): give a shorter one with --run-dir"
        )
    return Layout(state, run)


def _absolute(value: str | None, otherwise: Path) -> Path:
    return Path(value) if value and value.startswith("/") else otherwise


@dataclass(frozen=True, slots=True)
class Directory:
    """A directory that is to exist, with owner and mode."""

    path: Path
    uid: int
    gid: int
    mode: int


def own_directories(layout: Layout, own: Account) -> list[Directory]:
    """Return the directories of `carrel up` itself, parents first."""
    mode = 0o711 if own.uid == 0 else 0o700
    return [
        Directory(layout.state, own.uid, own.gid, mode),
        Directory(layout.own, own.uid, own.gid, 0o700),
    ]


def service_directories(layout: Layout, *, own: Account, service: Account) -> list[Directory]:
    """Return the services' directories, parents first.

    Args:
        own: Whom `carrel up`, agent, keeper and pam run as.
        service: Whom hub and proxy run as; the same unless `own` is root.
    """
    state, run = layout.state, layout.run
    if own.uid != 0:
        paths = [state / name for name in ("hub", "proxy", "agent")]
        paths += [run / name for name in ("", "hub", "proxy", "agent", "s")]
        return [Directory(path, own.uid, own.gid, 0o700) for path in paths]
    return [
        Directory(state / "hub", service.uid, service.gid, 0o700),
        Directory(state / "proxy", service.uid, service.gid, 0o700),
        Directory(state / "agent", 0, 0, 0o700),
        Directory(run, 0, 0, 0o755),
        Directory(run / "hub", service.uid, service.gid, 0o700),
        Directory(run / "proxy", service.uid, service.gid, 0o700),
        Directory(run / "agent", 0, service.gid, 0o750),
        Directory(run / "pam", 0, service.gid, 0o750),
        Directory(run / "s", 0, 0, 0o711),
    ]


def prepare(wanted: list[Directory], *, uid: int) -> None:
    """Make what is missing; refuse what somebody else made or can change.

    Modes that are too open or too narrow are put right, since the owner is known by then.

    Raises:
        UpError: Naming the directory and what is wrong with it.
    """
    for directory in wanted:
        try:
            _prepare_one(directory, uid)
        except OSError as error:
            raise UpError(f"{error.filename or directory.path}: {error.strerror}") from None


def _prepare_one(wanted: Directory, uid: int) -> None:
    path = wanted.path
    if uid == 0:
        _check_parents(path)
    path.parent.mkdir(mode=0o711 if uid == 0 else 0o700, parents=True, exist_ok=True)
    try:
        path.mkdir(mode=0o700)
    except FileExistsError:
        made = False
    else:
        made = True
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        if made and uid == 0:
            os.fchown(descriptor, wanted.uid, wanted.gid)
        found = os.fstat(descriptor)
        if found.st_uid != wanted.uid:
            raise UpError(
                f"{path} belongs to uid {found.st_uid}, not to uid {wanted.uid}: move it away,"
                " or give another place with --state-dir or --run-dir"
            )
        if stat.S_IMODE(found.st_mode) & _OTHERS_MAY_WRITE:
            raise UpError(
                f"{path} can be written by others, so what is in it cannot be trusted:"
                f" look into it, then chmod go-w {path}"
            )
        if found.st_gid != wanted.gid and uid == 0:
            os.fchown(descriptor, -1, wanted.gid)
        if stat.S_IMODE(found.st_mode) != wanted.mode:
            os.fchmod(descriptor, wanted.mode)
    finally:
        os.close(descriptor)


def _check_parents(path: Path) -> None:
    """Refuse a path that other accounts could exchange, or that services could not enter."""
    for parent in path.parents:
        try:
            found = parent.stat()
        except FileNotFoundError:
            continue
        mode = stat.S_IMODE(found.st_mode)
        if mode & _OTHERS_MAY_WRITE and not mode & stat.S_ISVTX:
            raise UpError(f"{parent} can be written by others, so {path} is not safe there")
        if not mode & stat.S_IXOTH and found.st_uid == 0:
            raise UpError(
                f"{parent} is closed to other accounts, and hub and proxy run as one:"
                " give a place they can enter with --state-dir or --run-dir"
            )


def check_readable(path: Path, option: str, service: Account) -> None:
    """Refuse a file that hub and proxy could not read. Groups other than the first do not count.

    Raises:
        UpError: Naming what is in the way.
    """
    for place in (*reversed(path.parents), path):
        found = place.stat()
        wanted = stat.S_IROTH if place == path else stat.S_IXOTH
        if found.st_uid == service.uid:
            wanted <<= 6
        elif found.st_gid == service.gid:
            wanted <<= 3
        if not found.st_mode & wanted:
            raise UpError(
                f"{option} {path}: hub and proxy run as {service.name}, to whom {place} is closed."
                " Put the file where they may read it, such as below /etc/carrel"
            )
