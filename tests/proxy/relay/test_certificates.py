"""Who is let in by whom: every wrong certificate is refused, and the log says why."""

import asyncio
import shutil
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
from proxy.authority import EDGE, Authority, Pair
from proxy.hub import FakeHub
from proxy.relay.fleet import HOST, Fleet, logged, open_fleet, open_relay
from proxy.running import plain_route
from proxy.wire import Upstream, eventually, open_upstream
from structlog.testing import capture_logs

from carrel_proxy.core.identity import host_identity, is_identity
from carrel_proxy.mutual_tls import MutualTls, towards_edges, towards_relays
from carrel_shared.fleet import FleetFiles
from carrel_shared.settings import SettingsError

PREFIX = "/user/alice/"
HOST_URI = f"carrel://host/{HOST}"
Make = Callable[[Authority, Authority], Pair]


async def ask(fleet: Fleet, upstream: Upstream) -> int:
    fleet.relay.route(plain_route(upstream.target, PREFIX, peer_uid=None))
    fleet.edge.route(plain_route(fleet.relay.target, PREFIX, host_id=HOST))
    async with fleet.edge.client() as client:
        return (await client.ask(PREFIX)).status


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda own, _: own.issue("old", HOST_URI, days=-1), "has expired"),
        (lambda _, other: other.issue("other", HOST_URI), "certificate"),
        (lambda own, _: own.host("host-c"), f"carrel://host/host-c where {HOST_URI} is needed"),
        (lambda own, _: own.edge("wrong"), f"{EDGE} where {HOST_URI} is needed"),
        (lambda own, _: own.issue("nobody", hosts=("127.0.0.1",)), "nothing where"),
        (lambda own, _: own.issue("both", HOST_URI, "carrel://host/host-c"), "where"),
        (lambda own, _: own.issue("edge-too", HOST_URI, EDGE), "where"),
    ],
)
async def test_an_edge_sends_nothing_to_another_relay(
    make: Make, reason: str, short_dir: Path, hub: FakeHub
) -> None:
    own, other = Authority(short_dir), Authority(short_dir, "other")
    relay = make(own, other)
    relay = Pair(own.file, relay.cert, relay.key)
    with capture_logs() as logs:
        async with (
            open_upstream() as upstream,
            open_fleet(short_dir, hub, own, edge=own.edge(), relay=relay) as fleet,
        ):
            assert await ask(fleet, upstream) == 502
            assert upstream.connections == 0
    assert reason in logged(logs, "relay_refused")


async def answer_in_the_clear(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read(1)
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    await reader.read()


async def test_what_speaks_no_tls_is_no_relay(short_dir: Path, hub: FakeHub) -> None:
    with capture_logs() as logs:
        async with open_upstream() as squatter, open_fleet(short_dir, hub) as fleet:
            squatter.script = answer_in_the_clear
            target = squatter.target.replace("http:", "https:")
            fleet.edge.route(plain_route(target, PREFIX, host_id=HOST))
            async with fleet.edge.client() as client:
                assert (await client.ask(PREFIX)).status == 502
            assert squatter.requests == []
    assert logged(logs, "relay_refused")


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda own, _: own.issue("old", EDGE, days=-1), "expired"),
        (lambda _, other: other.issue("other", EDGE), "certificate"),
        (lambda own, _: own.host("host-c"), f"carrel://host/host-c where {EDGE} is needed"),
        (lambda own, _: own.issue("nobody"), "nothing where"),
        (lambda own, _: own.issue("caps", "carrel://role/EDGE"), "where"),
        (lambda own, _: own.issue("both", EDGE, HOST_URI), "where"),
    ],
)
async def test_a_relay_takes_requests_from_edges_alone(
    make: Make, reason: str, short_dir: Path
) -> None:
    own, other = Authority(short_dir), Authority(short_dir, "other")
    visitor = make(own, other)
    with capture_logs() as logs:
        assert await knock(short_dir, own, Pair(own.file, visitor.cert, visitor.key)) == b""
    assert reason in logged(logs, "edge_refused")


async def test_a_relay_takes_nothing_from_who_shows_nothing(short_dir: Path) -> None:
    own = Authority(short_dir)
    with capture_logs() as logs:
        assert await knock(short_dir, own, None) == b""
    assert "did not return a certificate" in logged(logs, "edge_refused")


async def test_a_relay_takes_nothing_in_the_clear(short_dir: Path) -> None:
    own = Authority(short_dir)
    async with open_upstream() as upstream, open_relay(short_dir, own.host(HOST)) as relay:
        relay.route(plain_route(upstream.target, "/"))
        with capture_logs() as logs:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
            writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
            assert b"HTTP/" not in await until_end(reader)
            writer.close()
        assert upstream.connections == 0
    assert logged(logs, "edge_refused")


async def test_a_flood_of_strangers_does_not_fill_the_log(short_dir: Path) -> None:
    own = Authority(short_dir)
    async with open_relay(short_dir, own.host(HOST)) as relay:
        with capture_logs() as logs:
            for _ in range(20):
                reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
                writer.write(b"no TLS at all, and long enough to be read as what it is not")
                await until_end(reader)
                writer.close()
    assert len([line for line in logs if line["event"] == "edge_refused"]) < 5


async def knock(directory: Path, own: Authority, visitor: Pair | None) -> bytes:
    """Ask a relay as somebody else than an edge; return what it says."""
    context = ssl.create_default_context(cafile=str(own.file))
    context.check_hostname = False
    if visitor is not None:
        context.load_cert_chain(visitor.cert, visitor.key)
    async with open_upstream() as upstream, open_relay(directory, own.host(HOST)) as relay:
        relay.route(plain_route(upstream.target, "/"))
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", relay.port, ssl=context)
        except OSError:
            return b""
        writer.write(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        said = await until_end(reader)
        writer.close()
        assert upstream.connections == 0
        assert relay.relay.edge.connections == 0
        return said


async def until_end(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(60):
        try:
            return await reader.read()
        except OSError:
            return b""


async def test_renewed_certificates_are_picked_up(short_dir: Path, hub: FakeHub) -> None:
    own = Authority(short_dir)
    edge, relay = own.issue("edge", EDGE, days=-1), own.host(HOST)
    async with (
        open_upstream() as upstream,
        open_fleet(short_dir, hub, own, edge=edge, relay=relay) as fleet,
    ):
        with capture_logs() as logs:
            assert await ask(fleet, upstream) == 503
        assert "expired" in logged(logs, "edge_refused")
        assert "fleet_cert" in logged(logs, "target_ended")
        own.issue("edge", EDGE)
        assert await ask(fleet, upstream) == 200
        own.issue(f"host-{HOST}", HOST_URI, days=-1)
        fleet.edge.route()
        with capture_logs() as logs:
            assert await ask(fleet, upstream) == 502
        assert "expired" in logged(logs, "relay_refused")
        await eventually(lambda: fleet.relay.relay.edge.connections == 0)


def test_half_a_renewal_changes_nothing(short_dir: Path) -> None:
    own = Authority(short_dir)
    pair = own.edge()
    files = FleetFiles(pair.ca, pair.cert, pair.key)
    tls = MutualTls(files, towards_relays)
    before = tls.context()
    renewed = own.edge("renewed")
    shutil.copy(renewed.cert, pair.cert)  # the key is still the old one
    with capture_logs() as logs:
        assert tls.context() is before
        assert tls.context() is before
    assert len(logs) == 1
    shutil.copy(renewed.key, pair.key)
    assert tls.context() is not before


@pytest.mark.parametrize("missing", ["ca", "cert", "key"])
def test_files_that_cannot_be_used_are_named(missing: str, short_dir: Path) -> None:
    pair = Authority(short_dir).host(HOST)
    path = {"ca": pair.ca, "cert": pair.cert, "key": pair.key}[missing]
    path.write_text("nonsense")
    with pytest.raises(SettingsError, match=str(path)):
        MutualTls(FleetFiles(pair.ca, pair.cert, pair.key), towards_edges)


async def test_an_edge_begins_before_the_hub_has_made_its_certificate(
    short_dir: Path, hub: FakeHub
) -> None:
    authority = Authority(short_dir)
    pair = authority.edge()
    cert = pair.cert.rename(short_dir / "aside")
    with capture_logs() as logs:
        async with (
            open_upstream() as upstream,
            open_fleet(short_dir, hub, authority, edge=pair) as fleet,
        ):
            assert await ask(fleet, upstream) == 502
            cert.rename(pair.cert)
            assert await ask(fleet, upstream) == 200
    assert "is not there yet" in logged(logs, "relay_refused")


def test_a_locked_key_is_no_key(short_dir: Path) -> None:
    pair = Authority(short_dir).issue("host", HOST_URI, passphrase=b"s3same")
    with pytest.raises(SettingsError, match="encrypted"):
        MutualTls(FleetFiles(pair.ca, pair.cert, pair.key), towards_edges)


def test_one_identity_and_no_other() -> None:
    expected = host_identity("b")

    def says(*uris: str) -> bool:
        names = tuple(("URI", uri) for uri in uris)
        return is_identity({"subjectAltName": (*names, ("DNS", "b.example"))}, expected)

    assert says("carrel://host/b")
    assert says("carrel://host/b", "https://elsewhere.example/")
    assert not says()
    assert not says("carrel://host/B")
    assert not says("carrel://host/b", "CARREL://host/c")
    assert not is_identity(None, expected)
    assert not is_identity({"subjectAltName": (("DNS", "carrel://host/b"),)}, expected)
