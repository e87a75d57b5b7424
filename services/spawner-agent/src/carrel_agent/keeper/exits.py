"""How servers ended: written down before anybody is told, kept until the agent has it.

Only processes the agent named as servers are written down. Whatever else the keeper inherits, such
as daemons a user left behind, is reaped and remembered for a while, but costs no disk: otherwise a
user who forks in a loop would keep the disk, and with it everybody's keeper, busy.
"""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH103, PTH104, PTH108, PTH123, PTH208

import contextlib
import json
import os
from collections import OrderedDict

from carrel_agent.keeper.console import say
from carrel_agent.keeper.messages import EXITS_IN_A_REPLY, Message

REMEMBERED = 1024
"""Exits of processes nobody has named yet."""

Key = tuple[int, int]
"""pid and start time in clock ticks since boot: one process, as long as the boot lasts."""


class Exits:
    """The exits of watched processes, on disk, and the latest of others, in memory.

    Args:
        directory: One JSON file for each exit.
        boot_id: The kernel's; pids and ticks of another boot mean other processes.
    """

    def __init__(self, directory: str, boot_id: str) -> None:
        self._directory = directory
        self._boot_id = boot_id
        self._watched: set[Key] = set()
        self._others: OrderedDict[Key, Message] = OrderedDict()
        self._recorded: dict[str, Message] = {}
        os.makedirs(directory, mode=0o700, exist_ok=True)
        for name in sorted(os.listdir(directory)):
            self._load(name)

    def _load(self, name: str) -> None:
        path = f"{self._directory}/{name}"
        try:
            if not name.endswith(".json"):
                os.unlink(path)  # it was being written when a keeper died
                return
            with open(path, "rb") as file:
                record = json.loads(file.read())
            self._recorded[_name((record["pid"], record["start_ticks"]))] = record
        except (OSError, ValueError, KeyError, TypeError) as error:
            say("exit_record_unreadable", level="WARNING", path=path, error=error)
            with contextlib.suppress(OSError):
                os.rename(path, f"{path}.corrupt")

    def watch(self, key: Key) -> Message | None:
        """From now on write down how this process ends; return its exit if it has ended already."""
        if (known := self._recorded.get(_name(key))) is not None and self._is_ours(known):
            return known
        if (early := self._others.pop(key, None)) is not None:
            self._write(key, early)
            return early
        self._watched.add(key)
        return None

    def is_watched(self, key: Key) -> bool:
        """Whether the end of this process is waited for."""
        return key in self._watched

    def record(self, key: Key, code: int | None, signal: int | None, at: float) -> Message | None:
        """Take note of an exit; return it if it is one to tell the agent of."""
        exit_ = {
            "pid": key[0],
            "start_ticks": key[1],
            "boot_id": self._boot_id,
            "code": code,
            "signal": signal,
            "at": at,
        }
        if key in self._watched:
            self._watched.discard(key)
            self._write(key, exit_)
            return exit_
        self._others[key] = exit_
        while len(self._others) > REMEMBERED:
            self._others.popitem(last=False)
        return None

    def after(self, name: str) -> tuple[list[Message], bool]:
        """Return recorded exits in the order of their names, from behind `name`; and if more."""
        names = sorted(n for n in self._recorded if n > name)
        page = names[:EXITS_IN_A_REPLY]
        return [{**self._recorded[n], "name": n} for n in page], len(names) > len(page)

    def forget(self, key: Key) -> None:
        """Drop an exit the agent has stored, or a watch it has given up."""
        self._watched.discard(key)
        if self._recorded.pop(_name(key), None) is not None:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._path(key))

    def _is_ours(self, record: Message) -> bool:
        return bool(record.get("boot_id") == self._boot_id)

    def _path(self, key: Key) -> str:
        return f"{self._directory}/{_name(key)}.json"

    def _write(self, key: Key, exit_: Message) -> None:
        self._recorded[_name(key)] = exit_
        path = self._path(key)
        aside = f"{path}.new"
        try:
            descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                os.write(descriptor, json.dumps(exit_).encode("ascii"))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(aside, path)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            # A full disk: the agent is told all the same, and asks again as long as we live.
            say("exit_not_written", level="ERROR", path=path, error=error.strerror)


def _name(key: Key) -> str:
    return f"{key[0]:010d}-{key[1]:020d}"
