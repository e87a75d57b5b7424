"""How this hub calls the agents of hosts that have joined."""

from pathlib import Path

from carrel_hub.db.engine import Database
from carrel_hub.db.models import AgentHost
from carrel_hub.hosts.opened import Fleet
from carrel_hub.hosts.places import own_files
from carrel_hub.spawns.agents import CALL_SECONDS, JoinedAgent
from carrel_shared.addresses import TcpAddress
from carrel_shared.fleet import fleet_client, host_name


class JoinedHosts:
    """Looks hosts up in the database, where any hub may have put them."""

    def __init__(self, database: Database, fleet: Fleet, state_dir: Path) -> None:
        self._database = database
        self._fleet = fleet
        self._state_dir = state_dir

    async def find(self, name: str) -> JoinedAgent | None:
        """Return how the agent of a host is called; None when no such host has joined."""
        async with self._database.read() as session:
            host = await session.get(AgentHost, name)
        if host is None or host.joined_at is None or host.removed_at is not None:
            return None
        address, port = host.address, host.agent_port
        return JoinedAgent(
            which=(name, host.credentials, address, port),
            key=self._fleet.authority.hub_key(name, host.credentials),
            connect=lambda: fleet_client(
                own_files(self._state_dir),
                [TcpAddress(address, port)],
                host_name(name),
                timeout_seconds=CALL_SECONDS,
            ),
        )
