"""What a fleet of hubs came to, in words, for a test that waited in vain."""

from collections.abc import Iterable

from integration.replicas import Fleet

_LINES = 30

_SERVERS = """
SELECT users.name, servers.id, state, target, host, generation, driver, fence, route_number,
    attempts, next_attempt_at, progress_message, failure
FROM servers JOIN users ON users.id = servers.user_id
WHERE users.name = ANY($1) AND state <> 'ready' ORDER BY servers.requested_at
"""


async def what_is_there(fleet: Fleet, names: Iterable[str]) -> str:
    """Return which of these users' servers are not ready, with their history, and who is there."""
    told: list[str] = []
    async with fleet.database() as connection:
        for row in await connection.fetch(_SERVERS, list(names)):
            report = fleet.agent.servers.get(row["id"])
            told.append(f"{dict(row)}\n  agent: {report}")
            history = "SELECT at, kind, actor, message, data FROM events WHERE server_id = $1"
            events = await connection.fetch(f"{history} ORDER BY id", row["id"])
            told += [f"  {dict(event)}" for event in events]
        for table in ("replicas", "leases", "proxies", "route_counter", "agents"):
            told += [f"{table}: {dict(row)}" for row in await connection.fetch(f"TABLE {table}")]
    for number in fleet.numbers:
        lines = fleet.log(number).splitlines()[-_LINES:]
        told.append("\n".join([f"-- hub {number}", *lines]))
    return "\n".join(["not every start is ready:", *told])
