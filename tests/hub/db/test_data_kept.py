"""Databases of earlier revisions keep what is in them."""

import shutil
import tempfile
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
from alembic import command
from sqlalchemy import text
from sqlalchemy.engine import Connection
from sqlmodel import select

from carrel_hub.db.engine import Database
from carrel_hub.db.migrate import alembic_config, upgrade
from carrel_hub.db.models import OAuthCode, Server, Token, User

AT = "2026-01-02 03:04:05.000000"
TIME = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)

ROWS_OF_0002 = (
    "INSERT INTO users (id, name, admin, console, disabled, created)"
    " VALUES (1, 'alice', 0, 0, 0, :at)",
    "INSERT INTO servers (id, user_id, name, profile, target, state, generation, client_id, secret,"
    " progress, progress_message, stop_reason, user_options, attempts, created)"
    " VALUES ('0123456789ab', 1, '', 'default', 'running', 'ready', 3, 'jupyterhub-user-alice',"
    """ 'secret', 100, '', '', '{"n": 1}', 0, :at)""",
    "INSERT INTO tokens (id, token_hash, user_id, client_id, server_id, session_hash, scopes, note,"
    " created) VALUES (7, 'hash', 1, 'jupyterhub-user-alice', '0123456789ab', 'session',"
    """ '["inherit"]', 'mine', :at)""",
    "INSERT INTO oauth_codes (code_hash, client_id, server_id, user_id, session_hash, redirect_uri,"
    " challenge, created, expires_at) VALUES ('code', 'jupyterhub-user-alice', '0123456789ab', 1,"
    " 'session', '/cb', 'challenge', :at, :at)",
)


@pytest.fixture
async def database() -> AsyncIterator[Database]:
    directory = Path(tempfile.mkdtemp(prefix="chub"))
    made = Database(f"sqlite+aiosqlite:///{directory}/hub.sqlite")
    yield made
    await made.close()
    shutil.rmtree(directory)


def to(revision: str, connection: Connection) -> None:
    config = alembic_config()
    config.attributes["connection"] = connection
    command.upgrade(config, revision)


async def test_0003_keeps_servers_tokens_and_codes(database: Database) -> None:
    async with database.engine.begin() as connection:
        await connection.run_sync(partial(to, "0002"))
        for statement in ROWS_OF_0002:
            await connection.execute(text(statement), {"at": AT})
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
    row = (
        "INSERT INTO servers (id, user_id, name, profile, target, state, generation, client_id,"
        " secret, progress, progress_message, stop_reason, user_options, attempts, created,"
        " requested_at) VALUES (:id, 1, :id, 'default', 'running', :state, 1, :id, '', 0, '', '',"
        " '{}', 0, :at, :at)"
    )
    async with database.engine.begin() as connection:
        await connection.run_sync(partial(to, "0003"))
        await connection.execute(text(ROWS_OF_0002[0]), {"at": AT})
        for state in ("queued", "starting", "stopped"):
            await connection.execute(text(row), {"id": state, "state": state, "at": AT})
    await upgrade(database)
    async with database.read() as session:
        rows = (await session.exec(select(Server))).all()
    assert {row.state: row.admitted_at for row in rows} == {
        "queued": TIME, "starting": TIME, "stopped": None,
    }  # fmt: skip
