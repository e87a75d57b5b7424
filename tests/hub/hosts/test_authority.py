"""The authority that hubs share, and the certificates each keeps for itself."""

import asyncio
import base64
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from hub.backends import open_database
from hub.world import make_settings
from sqlmodel import select

from carrel_hub.auth.signing import KEY_BYTES, set_signing_key, signer_for
from carrel_hub.backup.make import back_up
from carrel_hub.backup.restore import inspect_backup, restore
from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.models import Event, FleetAuthority
from carrel_hub.hosts.authority import Authority, new_authority
from carrel_hub.hosts.fleet import forget_authority, open_authority, renew_own
from carrel_hub.hosts.opened import AuthorityError
from carrel_hub.hosts.places import fleet_directory, own_files
from carrel_hub.hosts.sealing import AuthorityKeys
from carrel_hub.replicas.presence import join
from carrel_shared.clock import ManualClock, SystemClock
from carrel_shared.tasks import TaskOwner

KEY, OTHER = "s" * 32, "t" * 32

NewHub = Callable[..., Hub]


@pytest.fixture
async def new_hub() -> AsyncIterator[NewHub]:
    """Make hubs on one database, each with a state directory of its own unless one is named."""
    async with _hubs() as made:
        yield made


@asynccontextmanager
async def _hubs() -> AsyncIterator[NewHub]:
    directory = Path(tempfile.mkdtemp(prefix="chub"))
    databases: list[Database] = []
    try:
        async with open_database(directory) as url:

            def make(key: str = KEY, state_dir: Path | None = None, **changes: Any) -> Hub:
                state_dir = state_dir or directory / f"state{len(databases)}"
                state_dir.mkdir(exist_ok=True)
                set_signing_key(state_dir, key)
                signer_for.cache_clear()  # as if in a process of its own
                settings = make_settings(
                    directory, state_dir=state_dir, database_url=url, signing_key=key, **changes
                )
                databases.append(Database(url))
                return Hub(settings, databases[-1], SystemClock(), TaskOwner())

            yield make
            for database in databases:
                await database.close()
    finally:
        shutil.rmtree(directory)


async def opened(hub: Hub) -> Authority:
    await open_authority(hub, make=True)
    return hub.fleet.authority


async def the_row(hub: Hub) -> FleetAuthority:
    async with hub.database.read() as session:
        return (await session.exec(select(FleetAuthority))).one()


def put_files(state_dir: Path) -> AuthorityKeys:
    """Have an authority in a state directory, as earlier versions kept it."""
    keys = new_authority(SystemClock().now())
    directory = fleet_directory(state_dir)
    directory.mkdir(mode=0o700)
    for name, content in (
        ("ca.key", keys.private), ("hosts.key", keys.hosts), ("ca.pem", keys.certificate.encode()),
    ):  # fmt: skip
        (directory / name).write_bytes(content)
        (directory / name).chmod(0o600)
    return keys


async def test_hubs_that_start_at_one_moment_have_one_authority(new_hub: NewHub) -> None:
    hubs = [new_hub() for _ in range(4)]
    found = await asyncio.gather(*map(opened, hubs))
    assert len({one.fingerprint for one in found}) == 1
    assert len({one.agent_key("rack-1", 1) for one in found}) == 1
    for hub, one in zip(hubs, found, strict=True):
        assert renew_own(one, hub.settings.state_dir, hub.clock)
        assert found[0].has_signed(own_files(hub.settings.state_dir).cert.read_bytes())
        assert own_files(hub.settings.state_dir).ca.read_text() == one.certificate
    assert (await opened(new_hub())).fingerprint == found[0].fingerprint


async def test_no_key_is_in_the_database_or_left_in_the_directory(new_hub: NewHub) -> None:
    hub = new_hub()
    keys = put_files(hub.settings.state_dir)
    assert (await opened(hub)).certificate == keys.certificate
    row = await the_row(hub)
    for text in (row.sealed, base64.b64decode(row.sealed).decode("latin-1")):
        assert "PRIVATE KEY" not in text
        assert keys.hosts.hex() not in text
    names = {path.name for path in fleet_directory(hub.settings.state_dir).iterdir()}
    assert names == {"ca.key.taken-over", "hosts.key.taken-over", "ca.pem"}


async def test_an_authority_of_files_is_taken_over_with_its_copies(new_hub: NewHub) -> None:
    first, second = new_hub(), new_hub()
    keys = put_files(first.settings.state_dir)
    shutil.copytree(
        fleet_directory(first.settings.state_dir), fleet_directory(second.settings.state_dir)
    )
    before = Authority(keys)
    for hub in (first, second, new_hub()):
        authority = await opened(hub)
        assert authority.fingerprint == before.fingerprint
        assert authority.agent_key("rack-1", 3) == before.agent_key("rack-1", 3)
        assert authority.hub_key("rack-1", 3) == before.hub_key("rack-1", 3)


async def test_two_authorities_of_files_are_not_made_one(new_hub: NewHub) -> None:
    first, second = new_hub(), new_hub()
    for hub in (first, second):
        put_files(hub.settings.state_dir)
    await opened(first)
    with pytest.raises(AuthorityError, match=r"another authority than the database.*move it away"):
        await opened(second)
    assert (fleet_directory(second.settings.state_dir) / "ca.key").exists()


async def test_files_that_others_could_read_or_that_are_damaged_are_refused(
    new_hub: NewHub,
) -> None:
    hub = new_hub()
    put_files(hub.settings.state_dir)
    key = fleet_directory(hub.settings.state_dir) / "ca.key"
    key.chmod(0o640)
    with pytest.raises(AuthorityError, match="others may have read this key"):
        await opened(hub)
    key.chmod(0o600)
    key.write_text("rubbish")
    with pytest.raises(AuthorityError, match="restore a backup, or remove it"):
        await opened(hub)
    key.unlink()  # an authority that was never finished, and which nobody knows
    await opened(hub)


async def test_another_signing_key_is_told_from_the_right_one(new_hub: NewHub) -> None:
    first = await opened(new_hub())
    with pytest.raises(AuthorityError, match=r"another signing key than hub\.signing_key"):
        await opened(new_hub(OTHER))
    assert (await opened(new_hub())).fingerprint == first.fingerprint


async def test_a_changed_signing_key_is_given_with_the_one_before_it(new_hub: NewHub) -> None:
    first = await opened(new_hub())
    changed = new_hub(OTHER, former_signing_key=KEY)
    assert (await opened(changed)).fingerprint == first.fingerprint
    assert (await opened(new_hub(OTHER))).fingerprint == first.fingerprint, "sealed anew"
    with pytest.raises(AuthorityError):
        await opened(new_hub())
    async with changed.database.read() as session:
        kinds = (await session.exec(select(Event.kind).where(Event.subject == "fleet"))).all()
    assert kinds == ["fleet.authority_created", "fleet.sealed_anew"]


async def test_a_hub_that_kept_the_former_key_need_not_be_told(new_hub: NewHub) -> None:
    hub = new_hub()
    first, state_dir = await opened(hub), hub.settings.state_dir
    again = new_hub(OTHER, state_dir)
    assert (state_dir / "cookie.key.former").stat().st_mode & 0o777 == 0o600
    assert (await opened(again)).fingerprint == first.fingerprint
    assert not (state_dir / "cookie.key.former").exists(), "nothing needs it any more"


async def test_nothing_is_sealed_anew_under_a_hub_that_runs(new_hub: NewHub) -> None:
    running = new_hub()
    await opened(running)
    await join(running)
    if running.database.is_sqlite:  # there is no other, which the file's lock sees to
        await opened(new_hub(OTHER, former_signing_key=KEY))
        return
    with pytest.raises(AuthorityError, match=r"another hub runs .* another hub\.signing_key"):
        await opened(new_hub(OTHER, former_signing_key=KEY))
    with pytest.raises(AuthorityError, match="a hub runs on this database"):
        await forget_authority(running.database, running.clock)
    await opened(new_hub())


async def test_a_lost_key_ends_in_a_new_authority_that_was_asked_for(new_hub: NewHub) -> None:
    first = await opened(new_hub())
    hub = new_hub(OTHER)
    assert await forget_authority(hub.database, hub.clock)
    assert not await forget_authority(hub.database, hub.clock)
    fleet_directory(hub.settings.state_dir).mkdir()
    renew_own(first, hub.settings.state_dir, hub.clock)
    authority = await opened(hub)
    assert authority.fingerprint != first.fingerprint
    assert renew_own(authority, hub.settings.state_dir, hub.clock), "the old one's are worthless"


async def test_a_certificate_that_was_swapped_in_the_database_is_noticed(new_hub: NewHub) -> None:
    hub = new_hub()
    await opened(hub)
    async with hub.database.write() as session:
        row = (await session.exec(select(FleetAuthority))).one()
        row.certificate = new_authority(hub.clock.now()).certificate
        session.add(row)
    with pytest.raises(AuthorityError):
        await opened(new_hub())


async def test_where_no_other_machine_is_wanted_nothing_is_made(new_hub: NewHub) -> None:
    hub = new_hub()
    await open_authority(hub, make=False)
    with pytest.raises(AuthorityError, match="fleet_listen is not set"):
        _ = hub.fleet.authority
    assert not fleet_directory(hub.settings.state_dir).exists()


def test_keys_differ_by_host_by_direction_and_with_each_joining() -> None:
    one = Authority(new_authority(SystemClock().now()))
    keys = {
        one.hub_key("a", 1),
        one.agent_key("a", 1),
        one.agent_key("a", 2),
        one.agent_key("b", 1),
        one.agent_key("a", 12),
    }
    assert len(keys) == 5


def test_the_hubs_own_certificates_are_renewed_at_half_their_life(tmp_path: Path) -> None:
    clock, one = ManualClock(SystemClock().now()), Authority(new_authority(SystemClock().now()))
    fleet_directory(tmp_path).mkdir()
    assert renew_own(one, tmp_path, clock)
    before = own_files(tmp_path).cert.read_bytes()
    assert not renew_own(one, tmp_path, clock)
    clock.advance(3.4 * 86400)
    assert not renew_own(one, tmp_path, clock)
    clock.advance(0.2 * 86400)
    assert renew_own(one, tmp_path, clock)
    assert own_files(tmp_path).cert.read_bytes() != before
    assert own_files(tmp_path, "edge").cert.stat().st_mode & 0o777 == 0o600


def test_keys_of_the_wrong_length_are_refused() -> None:
    keys = new_authority(SystemClock().now())
    with pytest.raises(AuthorityError, match="damaged"):
        Authority(AuthorityKeys(keys.certificate, keys.private, b"x" * (KEY_BYTES - 1)))


async def restored(backup: Path, hub: Hub) -> Authority:
    """Restore into a hub's database and state directory, and open what is there then."""
    await restore(
        hub.database, hub.settings.state_dir, inspect_backup(backup), hub.clock, replace=True
    )
    signer_for.cache_clear()
    return await opened(hub)


async def test_a_backup_has_the_authority_and_the_key_it_is_sealed_with(
    new_hub: NewHub, tmp_path: Path
) -> None:
    hub = new_hub()
    first = await opened(hub)
    await back_up(hub.database, hub.settings.state_dir, tmp_path / "backup", hub.clock)
    await forget_authority(hub.database, hub.clock)
    assert (await opened(hub)).fingerprint != first.fingerprint
    again = await restored(tmp_path / "backup", new_hub(OTHER))
    assert (again.fingerprint, again.agent_key("a", 1)) == (
        first.fingerprint, first.agent_key("a", 1),
    )  # fmt: skip


async def test_a_backup_of_before_has_it_in_files(new_hub: NewHub, tmp_path: Path) -> None:
    hub = new_hub()
    keys = put_files(hub.settings.state_dir)
    await back_up(hub.database, hub.settings.state_dir, tmp_path / "backup", hub.clock)
    again = await restored(tmp_path / "backup", new_hub())
    assert again.certificate == keys.certificate
