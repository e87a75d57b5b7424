"""What servers may use: as the settings and API bodies say it, and as history and pages tell it."""

import re
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError
from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Event, Server
from carrel_hub.errors import InvalidRequestError
from carrel_shared.wire.limits import LimitEvent, Limits

LIMIT_MET = "server.limit_met"
"""The event that tells of a limit a server has met."""

_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMGT]?)i?B?", re.IGNORECASE)
_MOST_DIGITS = 20
_FACTORS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def size_in_bytes(value: Any) -> Any:
    """Return a size such as "512M" or "1.5 GiB" as bytes; units are powers of 1024.

    Raises:
        ValueError: It is a text, and not one of these.
    """
    if not isinstance(value, str):
        return value
    match = _SIZE.fullmatch(value.strip())
    if match is None:
        raise ValueError(f"{value!r} is no size; write 512M or 1.5G")
    if len(match[1]) > _MOST_DIGITS:
        raise ValueError("that is more than there is anywhere")
    return int(float(match[1]) * _FACTORS[match[2].upper()])


class LimitSettings(BaseModel):
    """The most that all processes of one server may use together."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: Annotated[int | None, BeforeValidator(size_in_bytes)] = Field(
        default=None, ge=1 << 20, description='Memory: bytes, or a size such as "2G".'
    )
    cpu: float | None = Field(default=None, ge=0.01, description="Processor time, in cores.")
    processes: int | None = Field(default=None, ge=1, description="Processes and threads.")
    open_files: int | None = Field(default=None, ge=16, description="Open files of each process.")
    advisory: bool = Field(
        default=False, description="Start even where the host cannot enforce one of them."
    )

    def for_agent(self) -> Limits:
        """Return them as agents take them."""
        return Limits(
            memory_bytes=self.memory,
            cpu_cores=self.cpu,
            processes=self.processes,
            open_files=self.open_files,
            advisory=self.advisory,
        )

    def variables(self) -> dict[str, str]:
        """Return what programs made for JupyterHub look for, such as jupyter-resource-usage."""
        found = {"MEM_LIMIT": self.memory, "CPU_LIMIT": self.cpu}
        return {name: str(value) for name, value in found.items() if value is not None}


class GuaranteeSettings(BaseModel):
    """What is kept free for one server, on the host it is placed on."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    memory: Annotated[int | None, BeforeValidator(size_in_bytes)] = Field(
        default=None, ge=1, description='Memory: bytes, or a size such as "2G".'
    )
    cpu: float | None = Field(default=None, gt=0, description="Processor time, in cores.")

    def variables(self) -> dict[str, str]:
        """Return what programs made for JupyterHub look for."""
        found = {"MEM_GUARANTEE": self.memory, "CPU_GUARANTEE": self.cpu}
        return {name: str(value) for name, value in found.items() if value is not None}


def limits_of_body(body: Any) -> LimitSettings:
    """Return the limits in a body of the API.

    Raises:
        InvalidRequestError: It holds something else.
    """
    try:
        return LimitSettings.model_validate(body)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "limits"
        raise InvalidRequestError(f"{where}: {first['msg']}") from error


async def news(session: AsyncSession, row: Server, events: list[LimitEvent]) -> list[LimitEvent]:
    """Return those limits met that the history of this start does not have yet."""
    if not events:
        return []
    known = await session.exec(
        select(Event.data).where(
            Event.server_id == row.id,
            Event.generation == row.generation,
            col(Event.kind) == LIMIT_MET,
        )
    )
    told: dict[str, int] = {}
    for data in known.all():
        told[data["limit"]] = max(told.get(data["limit"], 0), data["count"])
    return [event for event in events if event.count > told.get(event.kind, 0)]


def in_words(event: LimitEvent) -> str:
    """Return what happened, for the owner."""
    times = "once" if event.count == 1 else f"{event.count} times"
    if event.kind == "memory":
        most = f" of {_size(event.limit)}" if event.limit is not None else ""
        return f"It reached its memory limit{most} {times}: a process of it was ended each time."
    most = f" of {event.limit}" if event.limit is not None else ""
    return f"It reached its limit of processes{most}, and could not start another {times}."


def _size(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB" if size >= 1 << 30 else f"{size / (1 << 20):.0f} MiB"
