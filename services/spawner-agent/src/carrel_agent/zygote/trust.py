"""Whether what a fork server would import is only the agent's to change.

Whoever can write a file that root's fork server imports can be root, and everybody whom it forks
for. So its interpreter, its packages and all directories above them must be root's or the agent's.
"""

import grp
import os
import pwd
import stat
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path


def distrust(python: str, trusted: Iterable[str] = ()) -> str | None:
    """Return who else can change the environment of a Python, in words; None if nobody can.

    Args:
        python: An absolute path.
        trusted: Accounts that may, beside root and the agent's own.
    """
    uids = trusted_uids(trusted)
    seen: set[Path] = set()
    for path in (Path(python), *environment_of(python)):
        for each in _with_parents(path):
            if each not in seen and (reason := _who_can_change(each, uids)):
                return f"{each} {reason}"
            seen.add(each)
    return None


def trusted_uids(trusted: Iterable[str] = ()) -> set[int]:
    """Return who may change it: root, the agent's own account, and those that are trusted."""
    return {0, os.geteuid(), *_uids(trusted)}


def environment_of(python: str) -> list[Path]:
    """Return the directories that a Python imports packages from, and what lies in them."""
    found: list[Path] = []
    for site in site_packages(python):
        found += [site, *site.iterdir()]
        found += [place for pth in site.glob("*.pth") for place in _named_in(pth)]
    return found


def site_packages(python: str) -> list[Path]:
    """Return where an environment's packages are installed."""
    prefix = Path(python).parent.parent
    return sorted(prefix.glob("lib*/python3*/*-packages"))


def is_installed(python: str, module: str) -> bool:
    """Whether a module's top package is installed in a Python's own directories."""
    top = module.partition(".")[0]
    return top in sys.stdlib_module_names or any(
        (site / top).is_dir() or any(site.glob(f"{top}.*")) for site in site_packages(python)
    )


def _named_in(pth: Path) -> list[Path]:
    lines = pth.read_text(encoding="utf-8", errors="replace").splitlines()
    return [place for line in lines if (place := Path(line)).is_absolute() and place.is_dir()]


def _with_parents(path: Path) -> Iterator[Path]:
    """Yield a path, what its links lead to, and every directory above any of them."""
    waiting, steps = [path], 0
    while waiting and steps < 40:
        here = waiting.pop()
        yield from (here, *here.parents)
        for each in (here, *here.parents):
            if each.is_symlink():
                waiting.append(each.parent / each.readlink() / here.relative_to(each))
                steps += 1
                break


def _who_can_change(path: Path, uids: set[int]) -> str:
    try:
        found = path.lstat()
    except FileNotFoundError:
        return ""
    if found.st_uid not in uids:
        return f"belongs to {_account(found.st_uid)}"
    if lets_write(found, stat.S_IWOTH):
        return "can be written by everybody"
    if lets_write(found, stat.S_IWGRP) and (who := _members(found.st_gid, uids)):
        return f"can be written by its group, in which {who} is"
    return ""


def lets_write(found: os.stat_result, whom: int) -> bool:
    """Whether these (a bit of `stat`) may change something.

    The bits of a link mean nothing, and in a sticky directory nobody replaces what is another's.
    """
    sticky = stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX
    return bool(found.st_mode & whom) and not sticky and not stat.S_ISLNK(found.st_mode)


def _members(gid: int, uids: set[int]) -> str:
    """Return an account in a group that is not trusted; nothing if there is none."""
    if gid == 0:
        return ""
    try:
        names = grp.getgrgid(gid).gr_mem
    except KeyError:
        names = []
    found = {name: uid for name in names for uid in _uids([name])}
    found |= {entry.pw_name: entry.pw_uid for entry in pwd.getpwall() if entry.pw_gid == gid}
    return next((name for name, uid in sorted(found.items()) if uid not in uids), "")


def _uids(names: Iterable[str]) -> set[int]:
    found = set()
    for name in names:
        try:
            found.add(pwd.getpwnam(name).pw_uid)
        except KeyError:
            continue
    return found


def _account(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"uid {uid}"
