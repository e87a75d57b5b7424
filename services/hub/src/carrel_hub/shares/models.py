"""The shapes of shares and share codes in the REST API. Pure."""

from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from carrel_hub.db.models import Server, Share, ShareCode
from carrel_hub.rbac import Resource
from carrel_hub.settings import HubSettings
from carrel_hub.shares.scopes import pinned
from carrel_hub.spawns.states import State
from carrel_hub.users.models import absolute, timestamp


@dataclass(frozen=True, slots=True)
class Shared:
    """A share with the names that its row has ids of.

    Attributes:
        owner: Whose server it is.
        recipient: The user or group that it is shared with.
    """

    share: Share
    server: Server
    owner: str
    recipient: str

    @property
    def resource(self) -> Resource:
        """The server that is shared."""
        return Resource(self.owner, self.server.name)


@dataclass(frozen=True, slots=True)
class Offered:
    """A share code with its server."""

    code: ShareCode
    server: Server
    owner: str

    @property
    def resource(self) -> Resource:
        """The server that it shares."""
        return Resource(self.owner, self.server.name)


def share_model(shared: Shared, settings: HubSettings) -> dict[str, Any]:
    """Return a share."""
    kind = "user" if shared.share.group_id is None else "group"
    return {
        "server": _server(shared.server, shared.owner, settings),
        "scopes": pinned(shared.share.scopes, shared.resource),
        "user": None,
        "group": None,
        kind: {"name": shared.recipient},
        "kind": kind,
        "created_at": timestamp(shared.share.created),
    }


def code_model(offered: Offered, settings: HubSettings, *, secret: str = "") -> dict[str, Any]:
    """Return a share code.

    Args:
        secret: The code itself, which is known while it is made and never again.
    """
    row = offered.code
    model: dict[str, Any] = {
        "server": _server(offered.server, offered.owner, settings),
        "scopes": pinned(row.scopes, offered.resource),
        "id": f"sc_{row.id}",
        "created_at": timestamp(row.created),
        "expires_at": timestamp(row.expires_at),
        "exchange_count": row.exchange_count,
        "last_exchanged_at": timestamp(row.last_exchanged_at),
    }
    if secret:
        path = f"{settings.hub_prefix}accept-share?{urlencode({'code': secret})}"
        model |= {
            "code": secret,
            "accept_url": path,
            "full_accept_url": absolute(settings, path),
        }
    return model


def _server(server: Server, owner: str, settings: HubSettings) -> dict[str, Any]:
    url = settings.places.url(owner, server.name)
    return {
        "user": {"name": owner},
        "name": server.name,
        "url": url,
        "full_url": absolute(settings, url),
        "ready": server.state == State.READY,
    }
