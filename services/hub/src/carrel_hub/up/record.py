"""What runs, written down for the next `carrel up`, and what that one does with it."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path

from carrel_shared.files import write_atomically
from carrel_shared.identity import ProcessIdentity

VERSION = 1


@dataclass(frozen=True, slots=True)
class ServiceRecord:
    """One service process and what it was started from."""

    identity: ProcessIdentity
    fingerprint: str


@dataclass(frozen=True, slots=True)
class Record:
    """What `RUN/up.json` says. No secrets.

    Attributes:
        state: The state directory it belongs to.
        origin: Scheme, host and port to open.
        base_url: Path below it.
        person: Who signs in by links.
        account: The unix account of that person; None for an administrator of the hub alone.
    """

    state: str
    origin: str
    base_url: str
    person: str
    account: str | None
    services: dict[str, ServiceRecord] = field(default_factory=dict)

    @property
    def url(self) -> str:
        return f"{self.origin}{self.base_url}"


def write_record(path: Path, record: Record) -> None:
    """Replace the record on disk."""
    document = {"version": VERSION, **asdict(record)}
    write_atomically(path, json.dumps(document, indent=1).encode(), mode=0o600)


def read_record(path: Path) -> Record | None:
    """Return what was recorded, or None if there is nothing that can be used."""
    try:
        document = json.loads(path.read_bytes())
        if document.pop("version") != VERSION:
            return None
        services = {
            name: ServiceRecord(ProcessIdentity(**each["identity"]), each["fingerprint"])
            for name, each in document.pop("services").items()
        }
        return Record(**document, services=services)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


class Fate(Enum):
    """What a new `carrel up` does with a service it finds recorded."""

    ADOPT = "adopt"
    REPLACE = "replace"
    FORGET = "forget"


def decide_fates(
    found: Mapping[str, ServiceRecord], wanted: Mapping[str, str], alive: Mapping[str, bool]
) -> dict[str, Fate]:
    """Return the fate of each recorded service.

    Args:
        wanted: Name to fingerprint of the services to be run.
        alive: Whether the recorded process still lives.
    """
    fates = {}
    for name, record in found.items():
        if not alive[name]:
            fates[name] = Fate.FORGET
        elif wanted.get(name) == record.fingerprint:
            fates[name] = Fate.ADOPT
        else:
            fates[name] = Fate.REPLACE
    return fates
