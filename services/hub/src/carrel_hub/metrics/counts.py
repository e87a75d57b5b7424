"""What there is at the moment, read from the database when Prometheus asks."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from prometheus_client import Metric
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector
from sqlmodel import col, func, select

from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.spawns.standing import waits
from carrel_hub.spawns.states import State

PERIODS = {"24h": timedelta(hours=24), "7d": timedelta(days=7), "30d": timedelta(days=30)}


@dataclass(frozen=True, slots=True)
class Counts:
    """Numbers of one moment.

    Attributes:
        active: How many users were seen lately, by the period's name.
        servers: How many servers are in each state.
        waiting: How many starts wait for their turn.
    """

    users: int
    active: Mapping[str, int]
    servers: Mapping[str, int]
    waiting: int


async def read_counts(hub: Hub) -> Counts:
    """Count what there is."""
    now = hub.clock.now()
    seen = col(User.last_activity)
    lately = [
        select(func.count()).select_from(User).where(seen >= now - period)
        for period in PERIODS.values()
    ]
    by_state = select(Server.state, func.count()).group_by(col(Server.state))
    async with hub.database.read() as session:
        users = (await session.exec(select(func.count()).select_from(User))).one()
        active = [(await session.exec(statement)).one() for statement in lately]
        servers = dict((await session.exec(by_state)).all())
        line = select(func.count()).select_from(Server).where(waits())
        waiting = (await session.exec(line)).one()
    return Counts(users, dict(zip(PERIODS, active, strict=True)), servers, waiting)


class CountsCollector(Collector):
    """Counts in Prometheus's form."""

    def __init__(self, counts: Counts, prefix: str) -> None:
        self._counts = counts
        self._prefix = prefix

    def collect(self) -> Iterable[Metric]:
        counts, prefix = self._counts, self._prefix
        running = counts.servers.get(State.READY, 0) + counts.servers.get(State.UNKNOWN, 0)
        yield GaugeMetricFamily(f"{prefix}_running_servers", "Servers that run.", value=running)
        yield GaugeMetricFamily(f"{prefix}_total_users", "Users there are.", value=counts.users)
        active = GaugeMetricFamily(
            f"{prefix}_active_users", "Users who were seen lately.", labels=["period"]
        )
        for period, number in counts.active.items():
            active.add_metric([period], number)
        yield active
        servers = GaugeMetricFamily(
            "carrel_hub_servers", "Servers by their state.", labels=["state"]
        )
        for state in State:
            servers.add_metric([str(state)], counts.servers.get(state, 0))
        yield servers
        yield GaugeMetricFamily(
            "carrel_hub_starts_waiting", "Starts that wait for their turn.", value=counts.waiting
        )
