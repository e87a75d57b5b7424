"""Addresses are read strictly, and a listener never takes over a living one."""

import socket
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_shared.addresses import (
    AddressError,
    TcpAddress,
    UnixAddress,
    bind_address,
    http_client,
    parse_address,
)


@pytest.fixture
def short_dir() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="ca", dir="/tmp") as name:
        yield Path(name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("unix:/run/carrel/hub.sock", UnixAddress("/run/carrel/hub.sock")),
        ("127.0.0.1:8000", TcpAddress("127.0.0.1", 8000)),
        ("http://127.0.0.1:8000/", TcpAddress("127.0.0.1", 8000)),
        ("[::1]:80", TcpAddress("::1", 80)),
    ],
)
def test_reads_what_people_write(text: str, expected: object) -> None:
    assert parse_address(text) == expected
    assert parse_address(str(expected)) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        "host:",
        ":80",
        "unix:relative",
        "unix:/a\0b",
        "h:99999",
        "h:\uff18\uff10",
        "u@h:80",
        "h/x:1",
    ],
)
def test_refuses_what_could_be_misread(text: str) -> None:
    with pytest.raises(AddressError):
        parse_address(text)


def test_a_path_too_long_for_a_socket_says_so() -> None:
    with pytest.raises(AddressError, match="107 bytes"):
        parse_address("unix:/" + "x" * 120)


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("::1", True), ("localhost", True), ("0.0.0.0", False)],
)
def test_knows_what_only_this_machine_reaches(host: str, loopback: bool) -> None:
    assert TcpAddress(host, 1).is_loopback is loopback


def test_a_dead_socket_is_replaced_and_a_living_one_is_not(short_dir: Path) -> None:
    address = UnixAddress(str(short_dir / "s"))
    bind_address(address).close()
    with bind_address(address) as living:
        assert living.getsockname() == address.path
        with pytest.raises(AddressError, match="answers there already"):
            bind_address(address)


def test_a_file_in_the_way_is_not_removed(short_dir: Path) -> None:
    path = short_dir / "s"
    path.write_text("precious")
    with pytest.raises(AddressError, match="in the way"):
        bind_address(UnixAddress(str(path)))
    assert path.read_text() == "precious"


def test_a_unix_socket_gets_the_mode_asked_for(short_dir: Path) -> None:
    path = short_dir / "s"
    with bind_address(UnixAddress(str(path)), mode=0o660):
        assert path.stat().st_mode & 0o777 == 0o660


def test_a_taken_port_is_named() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(AddressError, match=f"127.0.0.1:{port}"):
            bind_address(TcpAddress("127.0.0.1", port))


async def test_a_client_reaches_a_unix_socket_and_nothing_else(short_dir: Path) -> None:
    async with http_client(UnixAddress(str(short_dir / "none"))) as client:
        assert not client.follow_redirects
        with pytest.raises(Exception, match="No such file"):
            await client.get("/")
