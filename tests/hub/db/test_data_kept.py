"""Databases of earlier revisions keep what is in them."""

from collections.abc import AsyncIterator
from typing import Any

import pytest
from hub.backends import empty_database
from hub.db.rows import TIME, everything, fill, row_of, tables
from sqlmodel import select

from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS
from carrel_hub.db.migrate import upgrade
from carrel_hub.db.models import OAuthCode, Server, Token, User

ROWS_OF_0002: dict[str, dict[str, Any]] = {
    "users": {
        "id": 1, "name": "alice", "admin": False, "console": False, "disabled": False,
        "created": TIME,
    },
    "servers": {
        "id": "0123456789ab", "user_id": 1, "name": "", "profile": "default", "target": "running",
        "state": "ready", "generation": 3, "client_id": "jupyterhub-user-alice", "secret": "s",
        "progress": 100, "progress_message": "", "stop_reason": "", "user_options": {"n": 1},
        "attempts": 0, "created": TIME,
    },
    "tokens": {
        "id": 7, "token_hash": "hash", "user_id": 1, "client_id": "jupyterhub-user-alice",
        "server_id": "0123456789ab", "session_hash": "session", "scopes": ["inherit"],
        "note": "mine", "created": TIME,
    },
    "oauth_codes": {
        "code_hash": "code", "client_id": "jupyterhub-user-alice", "server_id": "0123456789ab",
        "user_id": 1, "session_hash": "session", "redirect_uri": "/cb", "challenge": "challenge",
        "created": TIME, "expires_at": TIME,
    },
}  # fmt: skip


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    async with empty_database() as made:
        yield made


@pytest.mark.parametrize("revision", REVISIONS)
async def test_a_row_of_every_table_of_every_revision_is_kept(
    database: Database, revision: str
) -> None:
    await upgrade(database, revision)
    async with database.engine.begin() as connection:
        made = await connection.run_sync(tables)
        await connection.run_sync(fill, {table.name: row_of(table) for table in made})
        before = await connection.run_sync(everything)
    await upgrade(database)
    async with database.engine.begin() as connection:
        after = await connection.run_sync(everything)
    for name, row in before.items():
        assert {key: after[name][key] for key in row} == row, name


async def test_0003_keeps_servers_tokens_and_codes(database: Database) -> None:
    await upgrade(database, "0002")
    async with database.engine.begin() as connection:
        await connection.run_sync(fill, ROWS_OF_0002)
    await upgrade(database)
    async with database.read() as session:
        server = (await session.exec(select(Server))).one()
        token = (await session.exec(select(Token))).one()
        code = (await session.exec(select(OAuthCode))).one()
        user = (await session.exec(select(User))).one()
    assert (user.name, server.state, server.generation) == ("alice", "ready", 3)
    assert (server.user_options, server.created) == ({"n": 1}, TIME)
    assert (server.display_name, server.contract, server.remove_when_stopped) == (
        "", "carrel", False,
    )  # fmt: skip
    assert (token.id, token.user_id, token.service_id) == (7, 1, None)
    assert (token.scopes, token.server_id, token.created) == (["inherit"], server.id, TIME)
    assert (code.challenge_method, code.scopes, code.service_id) == ("S256", [], None)
    async with database.write() as session:  # what goes with a server still goes with it
        await session.delete(server)
    async with database.read() as session:
        assert (await session.exec(select(Token))).all() == []
        assert (await session.exec(select(OAuthCode))).all() == []


async def test_0004_takes_what_is_under_way_for_let_in(database: Database) -> None:
    await upgrade(database, "0003")
    async with database.engine.begin() as connection:
        await connection.run_sync(fill, {"users": ROWS_OF_0002["users"]})
        for state in ("queued", "starting", "stopped"):
            row = ROWS_OF_0002["servers"] | {
                "id": state, "name": state, "client_id": state, "state": state,
                "requested_at": TIME,
            }  # fmt: skip
            await connection.run_sync(fill, {"servers": row})
    await upgrade(database)
    async with database.read() as session:
        rows = (await session.exec(select(Server))).all()
    assert {row.state: row.admitted_at for row in rows} == {
        "queued": TIME, "starting": TIME, "stopped": None,
    }  # fmt: skip
