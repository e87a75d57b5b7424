"""Who gets in at the listener for other machines: hosts that have joined, and who wants to join."""

import hmac

from carrel_hub.context import Hub
from carrel_hub.db.models import AgentHost
from carrel_hub.hosts.heartbeat import note_refusal
from carrel_shared.fleet import host_identity
from carrel_shared.service_auth import ASGIApp, Scope, ServiceGate

JOIN_PATH = "/internal/v1/fleet/join"
AUTHORITY_PATH = "/internal/v1/fleet/authority"
OPEN_PATHS = frozenset({JOIN_PATH, AUTHORITY_PATH})
"""For whoever has no credentials yet."""
EDGES = "/internal/v1/fleet/edges/"
"""For proxies of the settings on other machines, which have a key and are given a certificate."""

REFUSED = (
    "these credentials are not good any more: the host was removed, or joined again since; join"
    " anew with `carrel-agent join`"
)


class FleetGate(ServiceGate):
    """Lets a host in that shows both its certificate and the key that goes with it.

    A proxy of the settings gets at its own certificate with the key that they give it.

    Args:
        app: The internal API for hosts.
    """

    def __init__(self, app: ASGIApp, hub: Hub) -> None:
        super().__init__(app, keys=None, service="hub", open_paths=OPEN_PATHS)
        self._hub = hub

    async def caller(self, scope: Scope, authorization: bytes) -> str | None:
        """Return `agent:NAME` of the host that calls, or `proxy:NAME`."""
        if scope["path"].startswith(EDGES):
            return self._proxy(authorization)
        name = scope.get("state", {}).get("identity", "").removeprefix(host_identity(""))
        scheme, _, sent = authorization.partition(b" ")
        if not name or scheme.lower() != b"bearer":
            return None
        async with self._hub.database.read() as session:
            host = await session.get(AgentHost, name)
        if host is None or host.joined_at is None:
            return None
        expected = self._hub.fleet.authority.agent_key(name, host.credentials).encode()
        if host.removed_at is None and hmac.compare_digest(sent, expected):
            return f"agent:{name}"
        await note_refusal(self._hub, name, "somebody shows credentials that it had before")
        self.say_why(scope, REFUSED)
        return None

    def _proxy(self, authorization: bytes) -> str | None:
        scheme, _, sent = authorization.partition(b" ")
        found = None
        if scheme.lower() == b"bearer":
            for peer in self._hub.settings.proxies:  # all are compared: no early way out
                if hmac.compare_digest(sent, peer.caller_key.get_secret_value().encode()):
                    found = f"proxy:{peer.name}"
        return found
