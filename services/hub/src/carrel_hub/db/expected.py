"""Which revision of the schema this hub needs. Alembic is not imported to find out."""

from sqlalchemy import text
from sqlalchemy.exc import DatabaseError, OperationalError

from carrel_hub.db.engine import Database

REVISIONS = (
    "0001",
    "0002",
    "0003",
    "0004",
    "0005",
    "0006",
    "0007",
    "0008",
    "0009",
    "0010",
    "0011",
    "0012",
    "0013",
    "0014",
    "0015",
    "0016",
    "0017",
    "0018",
)
"""Every revision in its order; the last is the one the models are of."""


class SchemaError(Exception):
    """The database is not of this hub's version; the message says what to do."""


async def check_schema(database: Database) -> None:
    """Refuse a database of another version.

    Raises:
        SchemaError: It is empty, older, or newer, or cannot be read.
    """
    found = await schema_revision(database)
    if found == REVISIONS[-1]:
        return
    if found is None:
        raise SchemaError("the database is empty: run `carrel-hub db upgrade` first")
    if found in REVISIONS:
        raise SchemaError(
            f"the database has schema {found}, this hub needs {REVISIONS[-1]}:"
            " run `carrel-hub db upgrade`"
        )
    raise SchemaError(
        f"the database has schema {found}, which this hub does not know (it needs"
        f" {REVISIONS[-1]}): it was made by a newer Carrel; install that one, or restore a backup"
    )


async def schema_revision(database: Database) -> str | None:
    """Return the revision the database is at, or None when it has no schema yet.

    Raises:
        SchemaError: It is no database.
    """
    try:
        async with database.read() as session:
            connection = await session.connection()
            statement = text("SELECT version_num FROM alembic_version")
            row = (await connection.execute(statement)).first()
    except DatabaseError as error:
        if "alembic_version" in str(error.orig):
            return None
        if isinstance(error, OperationalError):  # it may well answer later
            raise
        raise SchemaError(f"the database cannot be read: {error.orig}") from error
    return None if row is None else str(row[0])
