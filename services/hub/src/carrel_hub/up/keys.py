"""The keys the services know each other by: made once, kept in a file only we can read."""

import json
import os
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from carrel_hub.up.errors import UpError
from carrel_shared.files import write_atomically


def _new_key() -> str:
    return os.urandom(32).hex()


@dataclass(frozen=True, slots=True)
class Keys:
    """One key for each direction of each pair, 256 random bits each."""

    console: str = field(default_factory=_new_key, repr=False)
    """`carrel` to hub."""
    hub_to_proxy: str = field(default_factory=_new_key, repr=False)
    proxy_to_hub: str = field(default_factory=_new_key, repr=False)
    hub_to_agent: str = field(default_factory=_new_key, repr=False)
    agent_to_hub: str = field(default_factory=_new_key, repr=False)


def load_keys(path: Path) -> Keys:
    """Read the keys.

    Raises:
        FileNotFoundError: If none were made yet.
        UpError: If the file is damaged or others may have read it.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with os.fdopen(descriptor, "rb") as file:
        status = os.fstat(file.fileno())
        if status.st_uid != os.geteuid() or status.st_mode & 0o077:
            raise UpError(f"{path}: others may have read the keys in it; delete it to get new ones")
        raw = file.read()
    try:
        stored = json.loads(raw)
        values = {each.name: stored[each.name] for each in fields(Keys)}
        if not all(isinstance(value, str) and len(value) >= 32 for value in values.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError):
        raise UpError(f"{path}: this file is damaged; delete it to get new keys") from None
    return Keys(**values)


def load_or_make_keys(path: Path) -> Keys:
    """Read the keys, or make them when there are none.

    Raises:
        UpError: As `load_keys`.
    """
    try:
        return load_keys(path)
    except FileNotFoundError:
        keys = Keys()
        write_atomically(path, json.dumps(asdict(keys)).encode(), mode=0o600)
        return keys
