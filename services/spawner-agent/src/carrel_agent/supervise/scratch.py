"""Scratch homes: for a server whose account's own home is full, missing, or cannot be written.

Each is `SCRATCH_DIR/SERVER_ID`, 0700 and its user's, made when they ask for it and never otherwise.
It says what it is: by a page that JupyterLab opens, by a link to the real home, by variables. What
is in it is kept for some days after the server has ended, and used again if it is asked for again.
"""

import contextlib
import os
import secrets
import shutil
import stat
import subprocess
import threading
from collections.abc import Container
from dataclasses import replace
from pathlib import Path

import structlog

from carrel_agent.supervise.accounts import Account
from carrel_agent.supervise.launching import LaunchError
from carrel_shared.clock import Clock
from carrel_shared.wire.servers import ServerSpec

log = structlog.get_logger(__name__)

README = "SCRATCH-HOME.md"
REAL_HOME = "real-home"
DAY = 24 * 3600.0
SWEEP_SECONDS = 3600.0
"""How often those whose time is over are looked for."""
REMOVE_SECONDS = 300.0
"""How long removing one may take; the next sweep goes on with it."""
ASIDE = "."
"""The names of those that are being removed begin so."""
_LAB = "/lab"


def usual_place() -> Path:
    """Return where scratch homes are made unless the settings say otherwise."""
    uid = os.geteuid()
    return Path("/var/tmp") / ("carrel-scratch" if uid == 0 else f"carrel-scratch-{uid}")  # noqa: S108


def can_make_for(uid: int) -> bool:
    """Whether an agent with this one's rights can give an account a scratch home."""
    return os.geteuid() in (0, uid)


class ScratchHomes:
    """Owns a directory that only the agent's account can write, and others can pass through.

    Args:
        root: It is made when the agent starts as root, else when it is first needed.
        keep_days: How long one is kept once its server has ended.
    """

    def __init__(self, root: Path, *, clock: Clock, keep_days: float) -> None:
        self._root = root
        self._clock = clock
        self._keep_days = keep_days
        self._over: set[str] = set()
        self._lock = threading.Lock()  # one that is asked for again is not removed meanwhile

    def prepare(self) -> None:
        """Have the directory, as root, before others think of a name that anybody could take."""
        if os.geteuid() == 0:
            try:
                self._check_root()
            except OSError as error:
                log.warning("no_scratch_homes", path=str(self._root), reason=error.strerror)

    def move(self, spec: ServerSpec, account: Account) -> tuple[ServerSpec, Account]:
        """Make a server's scratch home, or take what is left of an earlier one.

        Returns:
            Spec and account as they are to be launched: at home there, and told so.

        Raises:
            LaunchError: There is none to be had.
        """
        if not can_make_for(account.uid):
            raise LaunchError(
                "a scratch home is made by an agent that runs as root, and this one does not"
            )
        try:
            with self._lock:
                place = self._made(spec.server_id, account)
        except OSError as error:
            raise LaunchError(
                f"no scratch home can be made in {self._root}: {error.strerror}"
            ) from error
        marks = {"CARREL_SCRATCH_HOME": str(place), "CARREL_REAL_HOME": account.home}
        changed = spec.model_copy(
            update={
                "environment": {**spec.environment, **marks},
                "cwd": "",
                # JupyterLab opens the page that says where one is.
                "default_url": f"{_LAB}/tree/{README}"
                if spec.default_url == _LAB
                else spec.default_url,
            }
        )
        return changed, replace(account, home=str(place))

    def path(self, server_id: str) -> Path:
        """Return where a server's scratch home is, if it has one."""
        return self._root / server_id

    def note_end(self, server_id: str) -> None:
        """Let the days begin for which it is kept."""
        try:
            self._touch(self.path(server_id))
        except OSError as error:
            log.warning("scratch_home_not_marked", server_id=server_id, reason=error.strerror)

    def sweep(self, living: Container[str]) -> list[str]:
        """Remove those whose time is over, and was the last time; return whose they were.

        Args:
            living: The servers that have not ended.
        """
        try:
            found = self._root.lstat()
        except OSError:
            return []
        if not _is_own_directory(found):
            # In its place somebody may have put a link to what is not to be removed.
            log.warning("scratch_dir_is_not_ours", path=str(self._root))
            return []
        names = [entry.name for entry in self._root.iterdir() if entry.name not in living]
        over = {name for name in names if name.startswith(ASIDE) or self._is_over(name)}
        # A clock that is days ahead, as when a machine starts, has been put right by the next time.
        due, self._over = sorted(over & self._over), over
        return [_whose(name) for name in due if self._removed_if_over(name)]

    def _touch(self, path: Path) -> None:
        now = self._clock.now().timestamp()
        os.utime(path, (now, now), follow_symlinks=False)

    def _is_over(self, name: str) -> bool:
        until = self._clock.now().timestamp() - self._keep_days * DAY
        return self.path(name).lstat().st_mtime <= until

    def _removed_if_over(self, name: str) -> bool:
        path = self.path(name)
        try:
            if not name.startswith(ASIDE):
                with self._lock:
                    if not self._is_over(name):
                        return False
                    path = self._set_aside(path)
            _remove(path)
        except (OSError, subprocess.SubprocessError) as error:
            # What is aside is met again by the next sweep.
            log.warning("scratch_home_remains", path=str(path), reason=str(error))
            return False
        log.info("scratch_home_removed", server_id=_whose(name))
        return True

    def _set_aside(self, path: Path) -> Path:
        """Give one that is to be removed another name: its owner can make that last."""
        return path.rename(path.with_name(f"{ASIDE}{path.name}.{secrets.token_hex(4)}"))

    # -- making one

    def _made(self, server_id: str, account: Account) -> Path:
        self._check_root()
        path = self.path(server_id)
        try:
            found = path.lstat()
        except FileNotFoundError:
            found = None
        if found is not None and found.st_uid == account.uid and stat.S_ISDIR(found.st_mode):
            self._touch(path)
            return path
        if found is not None:  # begun and not finished, or of an account that is another by now
            self._set_aside(path)
        path.mkdir(mode=0o700)
        self._furnish(path, account)
        return path

    def _furnish(self, path: Path, account: Account) -> None:
        """Put in what says what this is, before it is the user's."""
        text = _README.format(home=account.home, link=REAL_HOME, days=f"{self._keep_days:g}")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        descriptor = os.open(path / README, flags, 0o600)
        with os.fdopen(descriptor, "w", encoding="utf-8") as readme:
            readme.write(text)
        (path / REAL_HOME).symlink_to(account.home)
        if os.geteuid() == 0:
            for each in (path / README, path / REAL_HOME, path):
                os.chown(each, account.uid, account.gid, follow_symlinks=False)

    def _check_root(self) -> None:
        try:
            self._root.mkdir(mode=0o711, parents=True)
            self._root.chmod(0o711)
        except FileExistsError:
            pass
        if not _is_own_directory(self._root.lstat()):
            raise PermissionError(
                1,
                "it must be a directory of the agent's own account that nobody else can write to;"
                " an administrator can remove it, or set scratch_dir",
            )


def _whose(name: str) -> str:
    """Return the server that a directory is of, or was of before it was set aside."""
    return name.removeprefix(ASIDE).partition(".")[0]


def _remove(path: Path) -> None:
    """Remove what is in there as its owner, and then itself.

    Raises:
        OSError: Something is left.
        subprocess.SubprocessError: It takes too long. Who owns it can stop what removes it.
    """
    owner = path.lstat()
    if os.geteuid() == 0 and owner.st_uid != 0:
        # Whatever is in there is its owner's, and so is whoever removes it.
        as_owner = {"user": owner.st_uid, "group": owner.st_gid, "extra_groups": []}
        subprocess.run(
            ["/bin/rm", "-rf", "--one-file-system", "--", str(path)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            check=False,
            cwd="/",
            timeout=REMOVE_SECONDS,
            **as_owner,  # type: ignore[call-overload]
        )
    else:
        shutil.rmtree(path, ignore_errors=True)
    with contextlib.suppress(FileNotFoundError):
        path.rmdir()


def _is_own_directory(found: os.stat_result) -> bool:
    """Whether something is a directory of this account's that nobody else can change."""
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid()
    return own and not found.st_mode & 0o022


_README = """# This is a scratch home

This server was started with a **scratch home**: an empty directory on the host it runs on,
in place of your home `{home}`, which was full, missing, or could not be written.

- Your files are where they were: in `{link}` beside this page, and in `{home}`.
- Make room there (a quota may need a few minutes to notice), then stop this server and
  start it as usual.
- What you save here stays here. It is **deleted {days} days after this server has ended**:
  move what you want to keep into your home before that.
"""
