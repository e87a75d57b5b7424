"""Several hubs on one database: who is there, who does what, how they wake each other.

Each process has a row with a heartbeat by the database's clock. One that was silent for
`ALIVE_SECONDS` has lost whatever it did alone: its leases and the servers it drove are taken over,
and it comes back under another id, so what it still wanted to write does not fit any more. With
SQLite there is one process, which a lock on the file sees to, and its row alone makes it alive.
"""

from sqlalchemy import ColumnElement, literal_column, true
from sqlmodel import col

from carrel_hub.db.engine import Database
from carrel_hub.db.models import Replica

BEAT_SECONDS = 0.5
ALIVE_SECONDS = 3
"""How long after its last heartbeat a replica counts as there."""

ALONE_SECONDS = 1
"""The same once the connection is gone that it says so on: a process that was killed closes it."""

LINK_NAME = "carrel-hub link"
"""What that connection is called at the server."""

LINKED = f"""(replicas.link IS NULL OR EXISTS (SELECT FROM pg_stat_activity
    WHERE pid = replicas.link AND application_name = '{LINK_NAME}'))"""
"""The condition that this connection is there, or was none yet."""

GONE_SECONDS = 15
"""How long after it its row goes, and its address from the proxies' tables."""

REPLICAS = "replicas"
"""What to watch and notify, in place of a server's id, for who is there."""


def alive(database: Database) -> ColumnElement[bool]:
    """The condition that a replica is there."""
    if database.is_sqlite:
        return true()
    linked: ColumnElement[bool] = literal_column(LINKED)
    return _seen_within(ALIVE_SECONDS) & (linked | _seen_within(ALONE_SECONDS))


def gone(database: Database) -> ColumnElement[bool]:
    """The condition that a replica has been silent for so long that it can be forgotten."""
    return ~(true() if database.is_sqlite else _seen_within(GONE_SECONDS))


def _seen_within(seconds: int) -> ColumnElement[bool]:
    since: ColumnElement[object] = literal_column(
        f"clock_timestamp() - interval '{seconds} seconds'"
    )
    return col(Replica.seen_at) > since
