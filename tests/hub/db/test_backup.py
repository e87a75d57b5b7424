"""Backups hold one moment of everything, and restoring them makes nothing good again that ended."""

import asyncio
import gzip
import stat
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hub import backends
from hub.db.rows import everything, fill, row_of, tables
from hub.world import World, open_world
from sqlmodel import col, delete, select

from carrel_hub.auth.links import create_link
from carrel_hub.auth.tokens import issue_token
from carrel_hub.backup.archive import BackupError
from carrel_hub.backup.make import OF_PROCESSES, back_up
from carrel_hub.backup.restore import inspect_backup, restore
from carrel_hub.db.engine import Database
from carrel_hub.db.expected import REVISIONS, check_schema
from carrel_hub.db.migrate import upgrade
from carrel_hub.db.models import (
    BrowserSession,
    Event,
    Group,
    OAuthCode,
    RouteCounter,
    Server,
    SignInLink,
    Token,
)
from carrel_shared.clock import SystemClock
from support.postgres import Postgres

CLOCK = SystemClock()


@asynccontextmanager
async def database_of(kind: str, server: Postgres) -> AsyncIterator[Database]:
    """An empty database of one kind or the other."""
    backends.postgres = server if kind == "postgresql" else None
    try:
        async with backends.empty_database() as made:
            yield made
    finally:
        backends.postgres = None


async def take(database: Database, directory: Path) -> Path:
    """Back up, with a key beside the database."""
    path = directory / "backup"
    state = directory / "state"
    state.mkdir(exist_ok=True)
    (state / "cookie.key").write_bytes(b"k" * 32)
    (state / "hub.sqlite").write_bytes(b"not this one")
    await back_up(database, state, path, CLOCK)
    return path


@pytest.mark.parametrize("revision", REVISIONS)
@pytest.mark.parametrize(("source", "target"), [("sqlite", "postgresql"), ("postgresql", "sqlite")])
async def test_every_row_of_every_revision_goes_over_to_the_other_kind(
    postgres_server: Postgres, tmp_path: Path, source: str, target: str, revision: str
) -> None:
    async with database_of(source, postgres_server) as one:
        await upgrade(one, revision)
        async with one.engine.begin() as connection:
            made = await connection.run_sync(tables)
            await connection.run_sync(fill, {table.name: row_of(table) for table in made})
        path = await take(one, tmp_path)
        await upgrade(one)
        async with one.engine.begin() as connection:
            expected = await connection.run_sync(everything)
    async with database_of(target, postgres_server) as other:
        state = tmp_path / "restored"
        await restore(other, state, inspect_backup(path), CLOCK, keep_sessions=True)
        await check_schema(other)
        async with other.write() as session:  # numbers go on after those that were put in
            event = (await session.exec(select(Event).where(col(Event.id) > 1))).one()
            assert event.kind == "database.restored"
            group = Group(name="new", created=CLOCK.now())
            session.add(group)
            await session.flush()
            await session.delete(group)
        async with other.engine.begin() as connection:
            await connection.execute(delete(Event).where(col(Event.id) > 1))
            found = await connection.run_sync(everything)
    assert (state / "cookie.key").read_bytes() == b"k" * 32
    assert stat.S_IMODE((state / "cookie.key").stat().st_mode) == 0o600
    assert not (state / "hub.sqlite").exists()
    gone = {*OF_PROCESSES, "oauth_codes", "sign_in_links", "login_attempts"}
    assert found["servers"].pop("driver") == ""
    expected["servers"].pop("driver")
    assert found.pop("route_counter") != expected.pop("route_counter")
    assert found.keys().isdisjoint(gone - {"identity_counter"})  # that one began anew
    for rows in (found, expected):
        for name in gone:
            rows.pop(name, None)
    assert found == expected


async def test_a_backup_is_of_one_moment_and_for_its_owner(
    world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written together is there together or not at all, while others write."""
    monkeypatch.setattr("carrel_hub.backup.make._AT_ONCE", 3)
    async with world.hub.database.write() as session:
        session.add_all(Group(name=f"{h}x{n}", created=CLOCK.now()) for n in range(4) for h in "ab")
    done = asyncio.Event()

    async def write_pairs() -> None:
        number = 0
        while not done.is_set():
            async with world.hub.database.write() as session:
                for half in ("a", "b"):
                    session.add(Group(name=f"{half}{number}", created=CLOCK.now()))
            number += 1

    async with asyncio.TaskGroup() as group:
        group.create_task(write_pairs())
        path = await take(world.hub.database, tmp_path)
        done.set()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with gzip.open(path, "rt") as file:
        names = [line.split('"name":"')[1].split('"')[0] for line in file if '"groups"' in line]
    assert len(names) == len(set(names)) >= 8
    assert {name[1:] for name in names if name[0] == "a"} == {
        name[1:] for name in names if name[0] == "b"
    }
    with pytest.raises(BackupError, match="is there already"):
        await take(world.hub.database, tmp_path)


async def test_what_cannot_be_restored_is_said_and_changes_nothing(
    world: World, tmp_path: Path
) -> None:
    database, state = world.hub.database, tmp_path / "state"
    await world.start()
    path = await take(database, tmp_path)
    whole = path.read_bytes()
    bad = tmp_path / "bad"

    def refused(content: bytes, reason: str) -> None:
        bad.write_bytes(content)
        with pytest.raises(BackupError, match=reason):
            inspect_backup(bad)

    lines = gzip.decompress(whole).splitlines(keepends=True)
    refused(whole[:-20], "no backup of Carrel's, or damaged")
    refused(whole[:50] + b"\0" + whole[51:], "damaged")
    refused(b"something else", "no backup of Carrel's")
    refused(gzip.compress(b'{"a": 1}\n'), "no backup of Carrel's")
    refused(gzip.compress(b"".join(lines[:-1])), "cut off")
    refused(gzip.compress(b"".join([*lines[:2], *lines[3:]])), "lines are missing")
    newer = lines[0].replace(REVISIONS[-1].encode(), b"9999")
    refused(gzip.compress(b"".join([newer, *lines[1:]])), "made by a newer Carrel")
    outside = lines[1].replace(b"cookie.key", b"../cookie.key")
    bad.write_bytes(gzip.compress(b"".join([lines[0], outside, *lines[2:]])))
    with pytest.raises(BackupError, match="lies elsewhere"):
        await restore(database, state, inspect_backup(bad), CLOCK)

    with pytest.raises(BackupError, match="1 users already; restore with --replace"):
        await restore(database, state, inspect_backup(path), CLOCK)
    (state / "cookie.key").write_bytes(b"other" * 6)
    with pytest.raises(BackupError, match=r"cookie\.key is there already"):
        await restore(database, state, inspect_backup(path), CLOCK)
    assert (state / "cookie.key").read_bytes() == b"other" * 6
    assert (await world.user("alice")).name == "alice"
    await restore(database, state, inspect_backup(path), CLOCK, replace=True)
    assert (state / "cookie.key").read_bytes() == b"k" * 32
    assert (await world.user("alice")).name == "alice"


async def _everything_that_ends(world: World) -> list[Any]:
    async with world.hub.database.read() as session:
        kinds = (BrowserSession, OAuthCode, SignInLink)
        found = [row for kind in kinds for row in (await session.exec(select(kind))).all()]
        tokens = select(Token).where(col(Token.session_hash).is_not(None))
        return [*found, *(await session.exec(tokens)).all()]


async def test_a_restored_hub_goes_on_from_what_agents_and_proxies_know(
    world: World, tmp_path: Path
) -> None:
    """FLT-D5: the backup is of an hour ago; a server was started anew since."""
    row = await world.ready()
    user = await world.user("alice")
    async with world.hub.database.write() as session:
        await create_link(session, world.hub, user)
        session.add(
            BrowserSession(
                secret_hash="a", session_hash="s", user_id=user.id or 0, created=CLOCK.now(),
                expires_at=CLOCK.now(),
            )
        )  # fmt: skip
        await issue_token(session, world.hub, user, actor="hub")
        await issue_token(session, world.hub, user, actor="hub", session_hash="s")
    path = await take(world.hub.database, tmp_path)
    epoch = world.proxy.epoch

    await world.stop(row)
    await world.settle(row)
    row = await world.settle(await world.start())
    assert (row.state, row.generation) == ("ready", 2)

    state = Path(tempfile.mkdtemp(dir=tmp_path))
    await restore(world.hub.database, state, inspect_backup(path), CLOCK, replace=True)
    assert await _everything_that_ends(world) == []
    async with world.hub.database.read() as session:
        assert len((await session.exec(select(Token))).all()) == 1
        counter = (await session.exec(select(RouteCounter))).one()
    assert counter.epoch != epoch
    await world.push()
    assert world.proxy.epoch == counter.epoch
    assert (await world.row(row)).generation == 1
    await world.report()
    met = await world.row(row)
    assert (met.state, met.generation) == ("unknown", 2)
    assert world.agent.stops[1:] == []  # it was left alone

    await world.stop(met)
    await world.settle(met)
    again = await world.settle(await world.start())
    assert (again.state, again.generation) == ("ready", 3)


async def test_a_hub_of_its_own_begins_where_another_was(tmp_path: Path) -> None:
    async with open_world() as one:
        row = await one.ready()
        path = await take(one.hub.database, tmp_path)
        agent = one.agent
    async with open_world(agent=agent) as other:
        state = tmp_path / "other"
        await restore(other.hub.database, state, inspect_backup(path), CLOCK)
        await other.report()
        await other.push()
        async with other.hub.database.read() as session:
            found = (await session.exec(select(Server))).one()
        assert (found.id, found.state, found.secret) == (row.id, "ready", row.secret)
        assert "/user/alice/" in other.proxy.routes
