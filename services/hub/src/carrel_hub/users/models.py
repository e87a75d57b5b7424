"""The shapes of users and servers in the REST API, cut to what the caller may see. Pure.

A key is there exactly when a scope that lists it covers the user or server; it is absent, not
null, otherwise.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from carrel_hub.db.models import Server, User
from carrel_hub.rbac import NO_MEMBERS, Actor, Members, Resource, Scope, may
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.paths import progress_path
from carrel_hub.spawns.states import ENDED, State

if TYPE_CHECKING:
    from carrel_hub.users.shown import ShownServer, ShownUser

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


def never_started(user: "User | ShownUser") -> Server:
    """Everybody has a default server: one that was never started, as if it had a row."""
    assert user.id is not None  # noqa: S101 - it came from the database
    return Server(id="", user_id=user.id, client_id="", created=user.created)


class Sight:
    """What an actor sees of whom; sorted once for all the users of a list.

    Args:
        actor: Whoever asks.
    """

    def __init__(self, actor: Actor) -> None:
        self._actor = actor
        scopes = [scope for scope in USER_KEYS if may(actor, scope)]
        self._of_all = frozenset(key for scope in scopes for key in USER_KEYS[scope])
        self._of_some = [scope for scope in USER_KEYS if scope not in scopes]
        if self._of_some:
            held = "\n".join(actor.scopes)
            self._of_some = [scope for scope in self._of_some if f"{scope}!" in held]

    def of_user(self, name: str) -> frozenset[str]:
        """Return the keys of the user of that name that are seen."""
        keys = self._of_all
        for scope in self._of_some:
            if may(self._actor, scope, Resource(name)):
                keys = keys.union(USER_KEYS[scope])
        return keys


def user_model(
    user: "User | ShownUser",
    servers: "Iterable[Server | ShownServer]",
    actor: Actor,
    settings: HubSettings,
    *,
    groups: Sequence[str] = (),
    with_stopped: bool = False,
    sight: Sight | None = None,
) -> dict[str, Any]:
    """Return a user as `actor` may see them; empty when nothing may be seen.

    Args:
        sight: That of the actor, where it is known.
    """
    keys = (sight or Sight(actor)).of_user(user.name)
    default, visible = None, {}
    rows = sorted(servers, key=lambda row: row.name)
    if with_stopped and not (rows and rows[0].name == ""):
        rows.insert(0, never_started(user))
    for row in rows:
        if row.name == "":
            default = row
        if (with_stopped or row.state not in ENDED) and (
            may(actor, Scope.READ_SERVERS, Resource(user.name, row.name))
        ):
            visible[row.name] = server_model(user, row, actor, settings)
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
    if len(keys) == len(whole):
        return whole
    return {key: value for key, value in whole.items() if key in keys}


def server_model(
    user: "User | ShownUser", row: "Server | ShownServer", actor: Actor, settings: HubSettings
) -> dict[str, Any]:
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


def pending(row: "Server | ShownServer") -> str | None:
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
