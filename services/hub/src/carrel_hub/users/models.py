"""The shapes of users and servers in the REST API, cut to what the caller may see. Pure.

A key is there exactly when a scope that lists it covers the user or server; it is absent, not
null, otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

from carrel_hub.db.models import Server, User
from carrel_hub.rbac import NO_MEMBERS, Actor, Members, Resource, Scope, may
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.paths import progress_path
from carrel_hub.spawns.states import ENDED, State

USER_KEYS: Mapping[Scope, tuple[str, ...]] = {
    Scope.READ_USERS: (
        "kind",
        "name",
        "user_info",
        "admin",
        "roles",
        "groups",
        "server",
        "pending",
        "created",
        "last_activity",
    ),
    Scope.READ_USERS_NAME: ("kind", "name", "user_info", "admin"),
    Scope.READ_USERS_GROUPS: ("kind", "name", "groups"),
    Scope.READ_USERS_ACTIVITY: ("kind", "name", "last_activity"),
    Scope.READ_SERVERS: ("kind", "name", "servers"),
    Scope.READ_ROLES_USERS: ("kind", "name", "roles", "admin"),
    Scope.ADMIN_AUTH_STATE: ("kind", "name", "auth_state"),
}
"""Which keys of a user each scope shows."""

_PENDING = {
    State.QUEUED: "spawn",
    State.STARTING: "spawn",
    State.STOPPING: "stop",
    State.UNKNOWN: "check",
}


@dataclass(frozen=True, slots=True)
class Widened:
    """An actor with some scopes more, for what everybody may know of themselves."""

    scopes: frozenset[str]
    members: Members = field(default_factory=lambda: NO_MEMBERS)
    is_anonymous: bool = False


def timestamp(value: datetime | None) -> str | None:
    """Return a time as the API writes it: ISO 8601 in UTC with a `Z`."""
    return None if value is None else value.isoformat().replace("+00:00", "Z")


def user_model(
    user: User,
    servers: Iterable[Server],
    actor: Actor,
    settings: HubSettings,
    *,
    groups: Sequence[str] = (),
    with_stopped: bool = False,
) -> dict[str, Any]:
    """Return a user as `actor` may see them; empty when nothing may be seen."""
    resource = Resource(user.name)
    keys = {
        key for scope, shown in USER_KEYS.items() if may(actor, scope, resource) for key in shown
    }
    rows = sorted(servers, key=lambda row: row.name)
    default = next((row for row in rows if row.name == ""), None)
    visible = {
        row.name: server_model(user, row, actor, settings)
        for row in rows
        if (with_stopped or row.state not in ENDED)
        and may(actor, Scope.READ_SERVERS, Resource(user.name, row.name))
    }
    if visible:
        keys |= {"kind", "name", "servers"}
    ready = default is not None and default.state == State.READY
    whole = {
        "kind": "user",
        "name": user.name,
        "admin": user.admin,
        "user_info": None,
        "roles": settings.role_book.of_user(user.name, admin=user.admin),
        "groups": list(groups),
        "server": settings.places.url(user.name) if ready else None,
        "pending": None if default is None else pending(default),
        "created": timestamp(user.created),
        "last_activity": timestamp(user.last_activity),
        "servers": visible,
        "auth_state": None,
    }
    return {key: value for key, value in whole.items() if key in keys}


def server_model(user: User, row: Server, actor: Actor, settings: HubSettings) -> dict[str, Any]:
    """Return a server as `actor` may see it."""
    url = settings.places.url(user.name, row.name)
    progress_url = progress_path(settings.base_url, user.name, row.name)
    waits = pending(row)
    ready = row.state == State.READY
    model: dict[str, Any] = {
        "name": row.name,
        "display_name": row.display_name,
        "full_name": f"{user.name}/{row.name}",
        "last_activity": timestamp(row.last_activity),
        "started": timestamp(row.started_at),
        "pending": waits,
        "ready": ready,
        "stopped": not (ready or waits),
        "url": url,
        "full_url": absolute(settings, url),
        "progress_url": progress_url,
        "full_progress_url": absolute(settings, progress_url),
        "user_options": row.user_options,
    }
    if may(actor, Scope.ADMIN_SERVER_STATE, Resource(user.name, row.name)):
        model["state"] = {
            "server_id": row.id,
            "state": str(row.state),
            "generation": row.generation,
            "host": row.host,
            "runner": row.runner,
        }
    return model


def pending(row: Server) -> str | None:
    """Return JupyterHub's word for what a server is going through, or None."""
    return _PENDING.get(State(row.state))


def absolute(settings: HubSettings, path: str) -> str | None:
    """Return the address of a path of this installation; None when that is not known."""
    if settings.public_url is None:
        return None
    if not path.startswith("/"):  # it is a whole address already
        return path
    parts = urlsplit(settings.public_url)
    return f"{parts.scheme}://{parts.netloc}{path}"
