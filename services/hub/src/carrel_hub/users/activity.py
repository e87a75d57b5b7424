"""What servers report of the last time they were used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from carrel_hub.context import Hub
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.users.bodies import json_body
from carrel_hub.users.shown import show_user

AHEAD = timedelta(minutes=59)
"""A clock may be wrong by this much; more is no activity."""


@dataclass(frozen=True, slots=True)
class Activity:
    """When a user, and servers by their names, were last active."""

    user: datetime | None = None
    servers: Mapping[str, datetime] = field(default_factory=dict)


def read_activity(body: Any, *, now: datetime) -> Activity:
    """Return what a body says. Pure.

    Raises:
        InvalidRequestError: It says nothing, or what cannot be.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    servers = body.get("servers", {})
    if not isinstance(servers, dict):
        raise InvalidRequestError("servers must be an object of objects with last_activity")
    if "last_activity" not in body and not servers:
        raise InvalidRequestError("last_activity, servers, or both are needed")
    found = {}
    for name, values in servers.items():
        if not isinstance(values, dict) or "last_activity" not in values:
            raise InvalidRequestError("servers must be an object of objects with last_activity")
        found[name] = _time(values["last_activity"], now)
    user = _time(body["last_activity"], now) if "last_activity" in body else None
    return Activity(user, found)


async def note_activity(hub: Hub, name: str, raw: bytes) -> None:
    """Remember what the body of a report says. Times only ever move forward.

    Raises:
        NotFoundError: There is no such user.
        InvalidRequestError: The body cannot be read, or the user has no such server.
    """
    shown = await show_user(hub.database, name, with_stopped=True)
    if shown is None:
        raise NotFoundError("")
    activity = read_activity(json_body(raw), now=hub.clock.now())
    servers = {row.name: row for row in shown.servers}
    # A default server is everybody's, if it has no row yet.
    if unknown := activity.servers.keys() - servers.keys() - {""}:
        raise InvalidRequestError(f"{name} has no server {min(unknown)[:255]!r}")
    news = {
        servers[which].id: at
        for which, at in activity.servers.items()
        if which in servers and _is_later(at, servers[which].last_activity)
    }
    users: dict[int, datetime] = {}
    if activity.user is not None and _is_later(activity.user, shown.user.last_activity):
        users[shown.user.id or 0] = activity.user
    if news or users:
        await hub.last_used.write(hub.database, users, news)


def _is_later(at: datetime, known: datetime | None) -> bool:
    return known is None or at > known


def _time(raw: Any, now: datetime) -> datetime:
    try:
        if not isinstance(raw, str):
            raise ValueError
        at = datetime.fromisoformat(raw.strip())
        at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidRequestError(
            "last_activity must be a time such as 2026-01-31T12:00:00Z"
        ) from error
    if at > now + AHEAD:
        raise InvalidRequestError("last_activity is in the future")
    return at
