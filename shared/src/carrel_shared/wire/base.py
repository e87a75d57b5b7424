"""The kinds of wire model."""

from datetime import datetime
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, StringConstraints

SERVER_ID = r"^[0-9a-f]{12}$"
HOST_ID = r"^[a-z0-9][a-z0-9-]{0,62}$"

ServerId = Annotated[str, StringConstraints(pattern=SERVER_ID)]
"""A server's random, immutable id: 12 hex digits. Names are for people, ids for machines."""

HostId = Annotated[str, StringConstraints(pattern=HOST_ID)]
"""A host's id, as its certificate has it in the URI `carrel://host/ID`."""

RunnerName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}$")]
"""A way to run servers: `fork`, `exec`, `systemd`, `sudo`, or one of a host's own."""

ModuleName = Annotated[
    str, StringConstraints(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)*$", max_length=200)
]
"""A Python module, by its dotted name."""

Generation = int
"""Counts the starts of one server. A command with a lower generation is stale and refused."""

Timestamp = Annotated[datetime, AwareDatetime]


class WireRequest(BaseModel):
    """What a caller sends: unknown fields are refused, because ignoring one would ignore intent."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WireReply(BaseModel):
    """What a service answers: unknown fields are ignored, so that an older caller keeps working."""

    model_config = ConfigDict(frozen=True, extra="ignore")
