"""The table against a dict, through any sequence of tables, changes, restarts and crashes."""

import asyncio
import json
import tempfile
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from proxy.hub import FakeHub
from proxy.running import make_settings, plain_route

from carrel_proxy.app import Proxy
from carrel_proxy.control.journal import read_lines
from carrel_proxy.errors import TableMismatchError
from carrel_shared.wire.routes import (
    Change,
    DeleteRoute,
    PutRoute,
    Revocation,
    Revoke,
    Route,
    RouteChanges,
    RouteTable,
)

SEGMENT = st.sampled_from(["user", "a", "b", "%7Ec", "~c", "d.e"])
PREFIX = st.lists(SEGMENT, max_size=3).map(lambda parts: "".join(f"/{one}" for one in parts) + "/")
KEY = st.tuples(st.sampled_from(["", "", "a.test", "*.test"]), PREFIX)
ROUTES = st.dictionaries(KEY, st.integers(1, 9), max_size=6)
CHANGES = st.lists(
    st.one_of(
        st.tuples(KEY, st.integers(1, 9)),
        st.tuples(KEY, st.none()),
        st.none(),
    ),
    max_size=4,
)
STEP = st.one_of(
    st.tuples(st.just("table"), ROUTES),
    st.tuples(st.just("changes"), CHANGES),
    st.tuples(st.just("changes"), CHANGES),
    st.tuples(st.just("gap"), st.integers(-3, 3).filter(bool)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 400)),
)
PATHS = [
    "/" + "/".join(parts)
    for parts in (
        *([], ["user"], ["user", "a"], ["user", "a", "b", "x"], ["a", ""], ["%61", "b", ""]),
        *(["~c", "d.e", "user", ""], ["b", "b", "b", "b", "b"], ["user", "%7ec"], ["users"]),
    )
]

HOSTS = {"a.test": ("a.test", "*.test", ""), "b.test": ("*.test", ""), "c.d.test": ("",)}

Key = tuple[str, str]
Routes = dict[Key, int]


def plain(text: str) -> str:
    return text.replace("%7E", "~").replace("%7e", "~").replace("%61", "a")


def longest(routes: Routes, host: str, path: str) -> int | None:
    """Find a route as somebody would who has all day."""
    whole = plain(path).rstrip("/") + "/"
    for name in HOSTS[host]:
        fitting = [key for key in routes if key[0] == name and whole.startswith(plain(key[1]))]
        if fitting:
            return routes[max(fitting, key=lambda key: len(plain(key[1])))]
    return None


def known(key: Key) -> Key:
    return (key[0], plain(key[1]))


def wire(key: Key, port: int) -> Route:
    return plain_route(f"http://127.0.0.1:{port}", key[1], host=key[0])


@dataclass
class Scenario:
    """A proxy in a directory, and what it should say."""

    directory: Path
    epoch: int = 0
    number: int = 0
    routes: Routes = field(default_factory=dict)
    history: dict[tuple[str, int], Routes] = field(default_factory=lambda: {("", 0): {}})

    def start(self) -> None:
        self.hub = FakeHub().client()
        self.proxy = Proxy(make_settings(self.directory), hub=self.hub)
        self.proxy.restore()

    async def end(self) -> None:
        await self.proxy.saved.flush()
        await self.hub.close()

    def acknowledged(self) -> None:
        self.history[str(self.epoch), self.number] = dict(self.routes)

    async def table(self, routes: Routes) -> None:
        self.epoch += 1
        self.number += 1
        self.routes = {known(key): port for key, port in routes.items()}
        wires = [wire(key, port) for key, port in routes.items()]
        table = RouteTable(epoch=str(self.epoch), number=self.number, routes=wires)
        self.proxy.table.put(table)
        assert await self.proxy.saved.flush()
        self.acknowledged()

    async def changes(self, steps: list[tuple[Key, int | None] | None]) -> None:
        if not self.epoch:
            return
        made: list[Change] = []
        for step in steps:
            if step is None:
                made.append(Revoke(revocation=Revocation(user="alice")))
                continue
            key, port = step
            self.routes.pop(known(key), None)
            if port is None:
                made.append(DeleteRoute(host=key[0], prefix=key[1]))
            else:
                made.append(PutRoute(route=wire(key, port)))
                self.routes[known(key)] = port
        base, self.number = self.number, self.number + len(made)
        self.proxy.table.change(
            RouteChanges(epoch=str(self.epoch), base=base, number=self.number, changes=made)
        )
        assert await self.proxy.saved.flush()
        self.acknowledged()

    async def gap(self, off: int) -> None:
        base = self.number + off
        with pytest.raises(TableMismatchError):
            self.proxy.table.change(
                RouteChanges(epoch=str(self.epoch), base=base, number=base + 1, changes=[])
            )

    async def restart(self, _: None) -> None:
        await self.end()
        self.start()

    async def crash(self, lost: int) -> None:
        """Lose the last bytes; then the table is one that was acknowledged, as new as it can be."""
        await self.end()
        file = self.directory / "routes.journal"
        data = file.read_bytes()[: -lost or None] if file.exists() else b""
        if file.exists():
            file.write_bytes(data)
        records, _ = read_lines(data)
        self.start()
        status = self.proxy.table.status
        assert status.number == (json.loads(records[-1])["number"] if records else 0)
        self.epoch, self.number = int(status.epoch or 0), status.number
        self.routes = dict(self.history[status.epoch, status.number])

    def check(self) -> None:
        status = self.proxy.table.status
        assert (int(status.epoch or 0), status.number) == (self.epoch, self.number)
        assert {
            known((route.host, route.prefix)): route.targets
            for route in self.proxy.table.snapshot().routes
        } == {key: wire(key, port).targets for key, port in self.routes.items()}
        for host, path in product(HOSTS, PATHS):
            found = self.proxy.dispatcher.routes.match(host.encode(), path.encode())
            port = None if found is None else int(found.wire.targets[0].rpartition(":")[2])
            assert port == longest(self.routes, host, path), (host, path)


@settings(deadline=None)
@given(st.lists(STEP, max_size=12))
def test_the_table_agrees_with_a_dict(steps: list[tuple[str, object]]) -> None:
    async def run(directory: str) -> None:
        scenario = Scenario(Path(directory))
        scenario.start()
        for kind, argument in steps:
            step: Callable[[object], Awaitable[None]] = getattr(scenario, kind)
            await step(argument)
            scenario.check()
        await scenario.end()

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patch:
        patch.setattr("carrel_proxy.control.journal.LEAST_LOG", 300)  # so that it is outgrown
        asyncio.run(run(directory))
