"""Importing nothing that somebody else wrote, while root imports for everybody.

Before a fork server is started its environment is looked at from outside, as far as its packages
(`trust`). What it really imports is a thousand files within these: they are looked at one by one,
as they are found.
"""

import os
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from typing import Any

from carrel_agent.zygote.trust import lets_write


@contextmanager
def only_written_by(uids: frozenset[int]) -> Iterator[None]:
    """Have modules found meanwhile only where nobody but these accounts could write them.

    Whatever somebody else's group may write is the look from outside's business.
    """
    guard = _Guard(uids)
    sys.meta_path.insert(0, guard)
    try:
        yield
    finally:
        sys.meta_path.remove(guard)


class _Guard(MetaPathFinder):
    """Finds what the other finders find, or raises `ImportError` saying whose it is."""

    def __init__(self, uids: frozenset[int]) -> None:
        self._uids = uids
        self._seen: set[str] = set()

    def find_spec(self, fullname: str, path: Any, target: Any = None) -> ModuleSpec | None:
        for finder in sys.meta_path:
            if finder is self or not hasattr(finder, "find_spec"):
                continue
            if (spec := finder.find_spec(fullname, path, target)) is not None:
                self._look_at(spec)
                return spec
        return None

    def _look_at(self, spec: ModuleSpec) -> None:
        places = list(spec.submodule_search_locations or ())
        if spec.has_location:
            places += [place for place in (spec.origin, spec.cached) if place]
        for place in places:
            for each in (os.path.dirname(place), place):  # noqa: PTH120 - a thousand times
                if each not in self._seen:
                    self._refuse_others(each, spec.name)
                    self._seen.add(each)

    def _refuse_others(self, place: str, name: str) -> None:
        try:
            found = [os.lstat(place), os.stat(place)]  # noqa: PTH116
        except OSError:
            return  # no bytecode yet, or nothing to be imported
        for status in found:
            if status.st_uid not in self._uids:
                raise ImportError(f"{place} belongs to uid {status.st_uid}", name=name)
            if lets_write(status, stat.S_IWOTH):
                raise ImportError(f"{place} can be written by everybody", name=name)
