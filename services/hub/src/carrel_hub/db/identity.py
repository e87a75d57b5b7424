"""The number that grows with each change of who somebody is or what they may do.

Hubs remember whose a token or a session is (`auth.known`), and what they remember is good while
this number stays. No writer has to think of it: every statement of a transaction is looked at as it
is executed, and if one may have changed somebody's rights, the number is raised in that
transaction, last of all.
"""

import re
from typing import Any

from sqlalchemy import event, select
from sqlalchemy.engine import Connection, Engine
from sqlmodel import col

from carrel_hub.db.models.identity import IdentityCounter
from carrel_hub.db.prepared import Prepared

WITHOUT_RIGHTS = frozenset(
    {
        "agents",
        "alembic_version",
        "events",
        "fleet_authority",
        "host_accounts",
        "identity_counter",
        "join_tokens",
        "leases",
        "login_attempts",
        "oauth_codes",
        "proxies",
        "replicas",
        "route_changes",
        "route_counter",
        "service_runs",
        "share_codes",
        "sign_in_links",
    }
)
"""Tables that say nothing of rights. Any that is not named in this module counts as rights."""

ADDS_NOTHING = frozenset({"browser_sessions", "groups", "servers", "services", "tokens", "users"})
"""Tables in which a new row changes nobody's rights: nobody who is remembered knew of it."""

HARMLESS_COLUMNS: dict[str, frozenset[str] | None] = {
    "servers": None,
    "tokens": frozenset({"last_activity"}),
    "users": frozenset({"last_activity"}),
}
"""Columns that may be updated without changing anybody's rights; None stands for all but `name`."""

_STATEMENT = re.compile(r"\s*(INSERT INTO|UPDATE|DELETE FROM)\s+\"?(\w+)\"?", re.IGNORECASE)
_READS = re.compile(r"\s*(SELECT|SAVEPOINT|RELEASE|ROLLBACK|PRAGMA|SHOW)\b", re.IGNORECASE)
_SET = re.compile(r"\sSET\s(.*?)(?:\sWHERE\s|\sRETURNING\s|$)", re.IGNORECASE | re.DOTALL)
_COLUMN = re.compile(r"\"?(\w+)\"?\s*=(?!=)")
RAISE = (
    "INSERT INTO identity_counter (id, number) VALUES (1, 1)"
    " ON CONFLICT (id) DO UPDATE SET number = identity_counter.number + 1"
)
"""The last act of a transaction that changed rights."""

_CHANGED = "identity_changed"

NUMBER: Prepared[int] = Prepared(
    select(col(IdentityCounter.number)).where(col(IdentityCounter.id) == 1), lambda number: number
)
"""Where the number stands; no row before the first change."""


def changes_rights(statement: str) -> bool:
    """Whether a statement may change who somebody is or what they may do. Pure."""
    found = _STATEMENT.match(statement)
    if found is None:
        return _READS.match(statement) is None
    verb, table = found[1].upper(), found[2].lower()
    if table in WITHOUT_RIGHTS:
        return False
    if verb == "INSERT INTO":
        return table not in ADDS_NOTHING or " DO UPDATE " in statement
    if verb == "UPDATE" and table in HARMLESS_COLUMNS:
        assigned = _SET.search(statement)
        columns = set(_COLUMN.findall(assigned[1])) if assigned else {"name"}
        harmless = HARMLESS_COLUMNS[table]
        return "name" in columns if harmless is None else not columns <= harmless
    return True


def watch(engine: Engine) -> None:
    """Raise the number in every transaction of `engine` that may change rights."""

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        connection.info.pop(_CHANGED, None)

    @event.listens_for(engine, "after_cursor_execute")
    def look(connection: Connection, cursor: Any, statement: str, *_others: Any) -> None:
        if cursor.rowcount != 0 and changes_rights(statement):
            connection.info[_CHANGED] = True

    @event.listens_for(engine, "commit")
    def commit(connection: Connection) -> None:
        if connection.info.pop(_CHANGED, False):
            connection.exec_driver_sql(RAISE)
