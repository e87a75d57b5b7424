"""Addresses of databases, as people write them and as the engine wants them."""

from pathlib import Path

DRIVERS = {
    "sqlite": "sqlite",
    "postgresql": "postgresql+asyncpg",
    "postgres": "postgresql+asyncpg",
    "postgresql+asyncpg": "postgresql+asyncpg",
}
"""The kinds of databases there are, by what an address may begin with."""


def with_driver(url: str) -> str:
    """Return an address with the driver that the hub uses.

    Raises:
        ValueError: It is of another kind of database; says which kinds there are.
    """
    kind, colon, rest = url.partition("://")
    if not colon or kind not in DRIVERS:
        shown = repr(kind) if colon else "an address without ://"
        raise ValueError(f"{shown}: a database is postgresql://USER:PASSWORD@HOST/NAME or sqlite:")
    return f"{DRIVERS[kind]}://{rest}"


def sqlite_path(url: str) -> Path:
    """Return the file of an SQLite database."""
    return Path(url.partition(":///")[2].partition("?")[0])
