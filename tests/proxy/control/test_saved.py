"""What survives a restart, and what the proxy asks of the hub by itself."""

import stat
from pathlib import Path

import pytest
from proxy.hub import FakeHub, allowed
from proxy.running import SERVER_ID, guarded_route, open_proxy
from proxy.wire import eventually, open_upstream

from carrel_proxy.errors import TableMismatchError
from carrel_shared.wire.routes import RouteChanges

TOKEN = ("Authorization: token good",)


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
    for name in ("routes.json", "verdicts.json"):
        file = short_dir / name
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert "good" not in file.read_text()


async def test_changes_are_saved_while_it_runs(short_dir: Path, hub: FakeHub) -> None:
    async with open_proxy(short_dir, hub) as running:
        running.route(guarded_route("unix:/nowhere"))
        await eventually((short_dir / "routes.json").exists)


async def test_a_file_that_cannot_be_read_is_no_obstacle(short_dir: Path, hub: FakeHub) -> None:
    (short_dir / "routes.json").write_text("{")
    (short_dir / "verdicts.json").write_text("[{}]")
    async with open_proxy(short_dir, hub) as running:
        assert running.proxy.table.status.routes == 0


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
