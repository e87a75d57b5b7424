"""`carrel-hub db upgrade`: the only place that imports Alembic, which a serving hub never needs."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from sqlalchemy.engine import Connection

from carrel_hub.db.engine import Database

_SCRIPTS = Path(__file__).with_name("migrations")


def alembic_config() -> Config:
    """Return Alembic's configuration; there is no file of it."""
    config = Config()
    config.set_main_option("script_location", str(_SCRIPTS).replace("%", "%%"))
    return config


async def upgrade(database: Database, revision: str = "head") -> None:
    """Bring a database to the newest schema (or to another revision), in one transaction."""
    async with database.engine.begin() as connection:
        await connection.run_sync(_upgrade, revision)


def _upgrade(connection: Connection, revision: str) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)
