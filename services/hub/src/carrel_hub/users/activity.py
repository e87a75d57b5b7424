"""What servers report of the last time they were used."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlmodel import col, or_, select, update
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.db.models import Server, User
from carrel_hub.errors import InvalidRequestError

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
    if "last_activity" not in body and "servers" not in body:
        raise InvalidRequestError("last_activity, servers, or both are needed")
    servers = body.get("servers", {})
    if not isinstance(servers, dict):
        raise InvalidRequestError("servers must be an object of objects with last_activity")
    found = {}
    for name, values in servers.items():
        if not isinstance(values, dict) or "last_activity" not in values:
            raise InvalidRequestError("servers must be an object of objects with last_activity")
        found[name] = _time(values["last_activity"], now)
    user = _time(body["last_activity"], now) if "last_activity" in body else None
    return Activity(user, found)


async def store_activity(session: AsyncSession, user: User, activity: Activity) -> None:
    """Remember it. Times only ever move forward.

    Raises:
        InvalidRequestError: The user has no such server.
    """
    if activity.servers:
        names = (await session.exec(select(Server.name).where(Server.user_id == user.id))).all()
        unknown = activity.servers.keys() - set(names)
        if unknown:
            raise InvalidRequestError(f"{user.name} has no server {min(unknown)[:255]!r}")
    if activity.user is not None:
        stored = col(User.last_activity)
        await session.exec(
            update(User)
            .where(col(User.id) == user.id, or_(stored.is_(None), stored < activity.user))
            .values(last_activity=activity.user)
        )
    for name, at in activity.servers.items():
        stored = col(Server.last_activity)
        await session.exec(
            update(Server)
            .where(
                col(Server.user_id) == user.id,
                col(Server.name) == name,
                or_(stored.is_(None), stored < at),
            )
            .values(last_activity=at)
        )


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
