"""Reading the history: the newest first, in pages that begin where the last one ended."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Event
from carrel_hub.errors import InvalidRequestError

DEFAULT_LIMIT = 50
MAX_LIMIT = 200

_LARGEST_ID = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events are asked for; None leaves all of them.

    Attributes:
        actor, subject, kind, server_id: Exactly these.
        since, until: From this time on; before this time.
        before: Only those with a lower number, as the last one of an earlier page.
        limit: How many at most.
    """

    actor: str | None = None
    subject: str | None = None
    kind: str | None = None
    server_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: int | None = None
    limit: int = DEFAULT_LIMIT


def read_wanted(query: Mapping[str, str], *, server_id: str | None = None) -> Wanted:
    """Return what the query of a request asks for. Pure.

    Args:
        server_id: The server whose history it is, where that is settled.

    Raises:
        InvalidRequestError: A number or a time cannot be read.
    """
    limit = _number(query, "limit")
    return Wanted(
        actor=query.get("actor") or None,
        subject=query.get("subject") or None,
        kind=query.get("kind") or None,
        server_id=server_id,
        since=_time(query, "since"),
        until=_time(query, "until"),
        before=_number(query, "before"),
        limit=DEFAULT_LIMIT if limit is None else min(max(limit, 1), MAX_LIMIT),
    )


async def find_events(session: AsyncSession, wanted: Wanted) -> tuple[Sequence[Event], int | None]:
    """Return events, the newest first, and the `before` of the page that follows, if one does."""
    statement = select(Event).order_by(col(Event.id).desc()).limit(wanted.limit + 1)
    for column, value in (
        (col(Event.actor), wanted.actor),
        (col(Event.subject), wanted.subject),
        (col(Event.kind), wanted.kind),
        (col(Event.server_id), wanted.server_id),
    ):
        if value is not None:
            statement = statement.where(column == value)
    if wanted.since is not None:
        statement = statement.where(col(Event.at) >= wanted.since)
    if wanted.until is not None:
        statement = statement.where(col(Event.at) < wanted.until)
    if wanted.before is not None:
        statement = statement.where(col(Event.id) < wanted.before)
    rows = (await session.exec(statement)).all()
    shown = rows[: wanted.limit]
    return shown, shown[-1].id if len(rows) > wanted.limit else None


def event_model(event: Event) -> dict[str, Any]:
    """Return an event as the API shows it. Pure."""
    return {
        "id": event.id,
        "at": event.at.isoformat().replace("+00:00", "Z"),
        "kind": event.kind,
        "actor": event.actor,
        "subject": event.subject,
        "server_id": event.server_id,
        "generation": event.generation,
        "message": event.message,
        "data": event.data,
        "request_id": event.request_id,
    }


def _number(query: Mapping[str, str], name: str) -> int | None:
    text = query.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit()) or len(text) > 19 or int(text) > _LARGEST_ID:
        raise InvalidRequestError(f"{name} must be a whole number")
    return int(text)


def _time(query: Mapping[str, str], name: str) -> datetime | None:
    text = query.get(name)
    if not text:
        return None
    try:
        at = datetime.fromisoformat(text.strip())
        return at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(f"{name} must be a time such as 2026-01-31T12:00:00Z") from error
