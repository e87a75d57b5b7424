"""The history: each change of state leaves a row that says what, to what, by whom, and why."""

from datetime import datetime
from typing import Any

import structlog
from sqlalchemy import insert
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.asking import note
from carrel_hub.db.engine import TOLD
from carrel_hub.db.models import Event

_INSERT = insert(Event)

HUB_ACTOR = "hub"
"""The actor of what the hub does by itself, such as giving up on a start."""

CONSOLE_ACTOR = "console"
"""The actor of what the person at `carrel up` asks for."""


def user_actor(name: str) -> str:
    """Return the actor or subject that stands for a person."""
    return f"user:{name}"


def service_actor(name: str) -> str:
    """Return the actor or subject that stands for a service."""
    return f"service:{name}"


def agent_actor(name: str) -> str:
    """Return the actor that stands for a host's agent."""
    return f"agent:{name}"


def server_subject(server_id: str) -> str:
    """Return the subject that stands for a notebook server."""
    return f"server:{server_id}"


def record(
    session: AsyncSession,
    kind: str,
    actor: str,
    subject: str,
    *,
    at: datetime,
    message: str = "",
    server_id: str | None = None,
    generation: int | None = None,
    data: dict[str, Any] | None = None,
) -> None:
    """Add an event to the transaction of the change it tells of. Nothing in it may be secret.

    Args:
        session: The transaction; the event is lost with it, and kept with it.
        kind: A stable word such as `server.starting` or `session.signed_in`.
        actor: Who did it (`user_actor`, `agent_actor`, `HUB_ACTOR`, `CONSOLE_ACTOR`).
        subject: To what (`server_subject`, `user_actor`).
        at: The injected clock's time.
        message: The same in plain words.
    """
    row = {
        "at": at,
        "kind": kind,
        "actor": actor[:300],
        "subject": subject[:300],
        "server_id": server_id,
        "generation": generation,
        "message": message,
        "data": data or {},
        "request_id": structlog.contextvars.get_contextvars().get("request_id"),
    }
    note(session, _INSERT, row)
    session.info.setdefault(TOLD, []).append((kind, row["data"]))
