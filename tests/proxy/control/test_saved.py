"""What survives a restart, and what the proxy asks of the hub by itself."""

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SERVER_ID, Running, guarded_route, open_proxy, plain_route
from proxy.wire import eventually, open_upstream

from carrel_proxy.control.journal import Journal, read_lines
from carrel_proxy.errors import TableMismatchError
from carrel_shared.wire.routes import DeleteRoute, PutRoute, Revocation, Revoke, RouteChanges

TOKEN = ("Authorization: token good",)


def put(running: Running, base: int, prefix: str, target: str = "unix:/nowhere") -> None:
    change = PutRoute(route=plain_route(target, prefix))
    running.proxy.table.change(
        RouteChanges(epoch="e", base=base, number=base + 1, changes=[change])
    )


async def test_a_restart_keeps_routes_and_sessions_without_the_hub(
    short_dir: Path, hub: FakeHub
) -> None:
    hub.know("good", SERVER_ID, allowed())
    async with open_upstream() as upstream:
        async with open_proxy(short_dir, hub) as running:
            running.route(guarded_route(upstream.target))
            async with running.client() as client:
                assert (await client.ask("/user/alice/", *TOKEN)).status == 200
        hub.away = True
        async with open_proxy(short_dir, hub) as running:
            assert running.proxy.table.status.number == 1
            async with running.client() as client:
                assert (await client.ask("/user/alice/", *TOKEN)).status == 200
    for name in ("routes.journal", "verdicts.json"):
        file = short_dir / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "good" not in file.read_text()


async def test_a_change_is_saved_by_a_line(short_dir: Path, hub: FakeHub) -> None:
    file = short_dir / "routes.journal"
    async with open_proxy(short_dir, hub) as running:
        running.route(*(plain_route("unix:/nowhere", f"/{n}/") for n in range(100)))
        assert await running.proxy.saved.flush()
        before = file.read_bytes()
        put(running, 1, "/new/")
        assert await running.proxy.saved.flush()
        assert file.read_bytes().startswith(before)
        assert len(file.read_bytes()) - len(before) < 300
        # Saved before it ends: who is killed now has it too.
        assert len(read_lines(file.read_bytes())[0]) == 2


async def test_what_outgrows_the_table_is_written_anew(
    short_dir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carrel_proxy.control.journal.LEAST_LOG", 1000)
    file = short_dir / "routes.journal"
    async with open_proxy(short_dir, hub) as running:
        running.route()
        for number in range(1, 100):
            put(running, number, "/one/", f"http://127.0.0.1:{number}")
            assert await running.proxy.saved.flush()
        assert file.stat().st_size < 5000
    async with open_proxy(short_dir, hub) as running:
        assert running.proxy.table.status.number == 100
        assert running.proxy.table.routes["/one/"].wire.targets == ["http://127.0.0.1:99"]


async def test_a_file_that_cannot_be_read_is_no_obstacle(short_dir: Path, hub: FakeHub) -> None:
    (short_dir / "routes.journal").write_text("{")
    (short_dir / "verdicts.json").write_text("[{}]")
    async with open_proxy(short_dir, hub) as running:
        assert running.proxy.table.status.routes == 0
        running.route(guarded_route("unix:/nowhere"))
    assert (short_dir / "routes.journal.damaged").read_text() == "{"
    async with open_proxy(short_dir, hub) as running:
        assert running.proxy.table.status.routes == 1


async def test_a_table_is_taken_up_as_far_as_it_can_be_read(short_dir: Path, hub: FakeHub) -> None:
    async with open_proxy(short_dir, hub) as running:
        running.route(plain_route("unix:/nowhere"))
    journal = Journal(short_dir / "routes.journal")
    journal.read()
    known = RouteChanges(epoch="e", base=1, number=2, changes=[DeleteRoute(prefix="/")])
    later = b'{"epoch":"e","base":2,"number":3,"changes":[],"of a later version":1}'
    journal.append([known.json(), later])
    async with open_proxy(short_dir, hub) as running:
        status = running.proxy.table.status
        assert (status.number, status.routes) == (2, 0)
        await eventually(lambda: hub.called("/resync")[-1]["number"] == 2)
        put(running, 2, "/new/")
    async with open_proxy(short_dir, hub) as running:
        status = running.proxy.table.status
        assert (status.number, status.routes) == (3, 1)


@contextmanager
def refusing_disk(directory: Path, number: int) -> Iterator[None]:
    real = os.open

    def refuse(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_WRONLY and Path(path).is_relative_to(directory):
            raise OSError(number, os.strerror(number))
        return real(path, flags, mode)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "open", refuse)
        yield


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EIO])
async def test_a_disk_that_takes_nothing_stops_nothing(
    number: int, short_dir: Path, hub: FakeHub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carrel_proxy.control.saved.RETRY_SECONDS", 0.01)
    async with open_upstream() as upstream:
        async with open_proxy(short_dir, hub) as running:
            running.route(plain_route(upstream.target, "/a/"))
            assert await running.proxy.saved.flush()
        with refusing_disk(short_dir, number):
            async with open_proxy(short_dir, hub) as running, running.client() as client:
                assert (await client.ask("/a/")).status == 200
                put(running, 1, "/b/", upstream.target)
                assert not await running.proxy.saved.flush()
                assert (await client.ask("/b/")).status == 200
                running.number = 2
                running.route(plain_route(upstream.target, "/c/"))
                assert not await running.proxy.saved.flush()
                assert not running.proxy.saved.ok
                assert (await client.ask("/c/")).status == 200
        # It was ended while its disk took nothing, so what it knew last is what it had saved.
        async with open_proxy(short_dir, hub) as running:
            assert running.proxy.table.status.number == 1
            put(running, 1, "/b/", upstream.target)
            with refusing_disk(short_dir, number):
                assert not await running.proxy.saved.flush()
            await eventually(lambda: running.proxy.saved.ok)  # without another change
        async with open_proxy(short_dir, hub) as running:
            assert running.proxy.table.status.number == 2


async def test_verdicts_that_cannot_be_brought_up_to_date_are_not_kept(
    short_dir: Path, hub: FakeHub
) -> None:
    hub.know("good", SERVER_ID, allowed())
    async with (
        open_upstream() as upstream,
        open_proxy(short_dir, hub) as running,
        running.client() as client,
    ):
        running.route(guarded_route(upstream.target))
        assert (await client.ask("/user/alice/", *TOKEN)).status == 200
        assert await running.proxy.saved.flush()
        revoked = Revoke(revocation=Revocation(user="alice"))
        running.proxy.table.change(RouteChanges(epoch="e", base=1, number=2, changes=[revoked]))
        with refusing_disk(short_dir, errno.ENOSPC):
            assert not await running.proxy.saved.flush()
            assert not (short_dir / "verdicts.json").exists()


async def test_the_hub_is_asked_for_routes_until_it_answers(short_dir: Path, hub: FakeHub) -> None:
    hub.away = True
    async with open_proxy(short_dir, hub):
        hub.away = False
        await eventually(lambda: bool(hub.called("/resync")))
    assert hub.called("/resync") == [{"epoch": "", "number": 0, "reason": "started"}]


async def test_a_gap_is_reported_unless_it_is_closed_at_once(short_dir: Path, hub: FakeHub) -> None:
    gap = RouteChanges(epoch="e", base=7, number=8, changes=[])
    async with open_proxy(short_dir, hub) as running:
        await eventually(lambda: len(hub.called("/resync")) == 1)
        running.route()
        for _ in range(2):
            with pytest.raises(TableMismatchError):
                running.proxy.table.change(gap)
        await eventually(lambda: len(hub.called("/resync")) == 2)
    assert hub.called("/resync")[1] == {"epoch": "e", "number": 1, "reason": "gap"}
