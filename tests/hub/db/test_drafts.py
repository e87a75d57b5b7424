"""Rows that are changed past the session, and the session beside them, in one transaction."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import delete, insert
from sqlalchemy.exc import IntegrityError
from sqlmodel import SQLModel, col, select

from carrel_hub.db.asking import add_new, by_key, do, do_returning, take_one, to_change
from carrel_hub.db.engine import Database
from carrel_hub.db.identity import NUMBER
from carrel_hub.db.models import HostAccount, Server, Token, User
from carrel_shared.clock import SystemClock

NOW = SystemClock().now()
SERVER, SEEN = to_change(Server, "id"), by_key(Server, "id")
PIN = to_change(HostAccount, "user_id", "host")
ONE, TWO = "1" * 12, "2" * 12


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite:///{tmp_path}/some.sqlite")
    async with made.engine.begin() as connection:
        await connection.run_sync(SQLModel.metadata.create_all)
    async with made.write() as session:
        session.add(User(id=1, name="alice", created=NOW))
        await session.flush()
        add_new(session, Server, id=ONE, user_id=1, client_id="c", created=NOW)
    yield made
    await made.close()


async def state(database: Database) -> str | None:
    row = await database.fetch_one(SEEN, key=ONE)
    return None if row is None else row.state


async def test_what_is_changed_is_found_by_whatever_is_asked_next(database: Database) -> None:
    async with database.write() as session:
        row = await take_one(session, SERVER, id=ONE)
        assert row is not None
        row.state, row.failure = "failed", {"cause": "test"}
        found = (await session.exec(select(Server.state).where(Server.id == ONE))).one()
        assert found == "failed"
        row.state = "ready"
        other = await session.get_one(Server, ONE)
        assert (other.state, other.failure, other.created) == ("ready", {"cause": "test"}, NOW)
    assert await state(database) == "ready"


async def test_both_kinds_of_changes_come_and_go_together(database: Database) -> None:
    async def change() -> None:
        async with database.write() as session:
            row = await take_one(session, SERVER, id=ONE)
            assert row is not None
            row.state = "ready"
            session.add(User(name="bob", created=NOW))
            await session.flush()
            raise LookupError

    with pytest.raises(LookupError):
        await change()
    assert await state(database) == "stopped"
    async with database.write() as session:
        assert (await session.exec(select(User.name))).all() == ["alice"]
        row = await take_one(session, SERVER, id=ONE)
        assert row is not None
        row.state = "ready"
        session.add(User(name="bob", created=NOW))
    assert await state(database) == "ready"
    async with database.read() as session:
        assert (await session.exec(select(User.name))).all() == ["alice", "bob"]


async def test_a_row_can_go_and_one_of_two_keys_can_change(database: Database) -> None:
    async with database.write() as session:
        row = await take_one(session, SERVER, id=ONE)
        assert row is not None
        await session.delete(row)
        its = {"account": "a", "uid": 1, "gid": 1, "home": "/"}
        add_new(session, HostAccount, user_id=1, host="h", used_at=NOW, **its)
        add_new(session, HostAccount, user_id=1, host="i", used_at=NOW, **its)
        pin = await take_one(session, PIN, user_id=1, host="h")
        assert pin is not None
        pin.uid = 2
    assert await state(database) is None
    async with database.read() as session:
        pins = (await session.exec(select(HostAccount.host, HostAccount.uid))).all()
        assert sorted(pins) == [("h", 2), ("i", 1)]


async def test_what_the_database_refuses_is_said_as_ever(database: Database) -> None:
    with pytest.raises(IntegrityError):
        async with database.write() as session:
            add_new(session, Server, id=ONE, user_id=1, client_id="other", created=NOW)
    assert await state(database) == "stopped"


async def test_rights_that_change_past_the_session_are_noticed(database: Database) -> None:
    new = insert(Token).returning(col(Token.id))
    token = {"token_hash": "h", "user_id": 1, "scopes": [], "note": "", "created": NOW}
    async with database.write() as session:
        token_id = await do_returning(session, new, token)
    before = await database.fetch_one(NUMBER) or 0
    async with database.write() as session:
        assert await do(session, delete(Token), {}) == 1
    assert token_id == 1
    assert await database.fetch_one(NUMBER) == before + 1


async def test_changes_are_written_in_the_order_in_which_they_were_made(
    database: Database,
) -> None:
    async with database.write() as session:
        add_new(session, Server, id=TWO, user_id=1, name="x", client_id="d", created=NOW)
    async with database.write() as session:
        one = await take_one(session, SERVER, id=ONE)
        two = await take_one(session, SERVER, id=TWO)
        assert one is not None
        assert two is not None
        two.name = "y"
        one.name = "x"  # which is free only now: a user has one server of a name
    async with database.read() as session:
        names = (await session.exec(select(Server.id, Server.name))).all()
    assert sorted(names) == [(ONE, "x"), (TWO, "y")]
