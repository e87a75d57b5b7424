"""Of several addresses of a service, one that answers is asked, and nothing that counts twice."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from carrel_shared.addresses import AddressError, parse_addresses
from carrel_shared.failover import ONCE, service_client


@asynccontextmanager
async def replica(path: Path, *, answers: bool = True) -> AsyncIterator[list[bytes]]:
    """A service that answers with its name, or takes a request and hangs up."""
    asked: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked.append(await reader.readuntil(b"\r\n\r\n"))
            if answers:
                name = path.name.encode()
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n" % len(name))
                writer.write(b"Connection: close\r\n\r\n" + name)
                await writer.drain()
        finally:
            writer.close()

    server = await asyncio.start_unix_server(serve, path)
    async with server:
        yield asked


async def test_one_that_is_away_is_passed_over_and_one_that_answered_is_asked_again(
    tmp_path: Path,
) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    async with service_client(f"unix:{one}, unix:{other}") as client:
        async with replica(other):
            assert (await client.get("/")).text == "other"
            async with replica(one):
                assert (await client.get("/")).text == "other"
        async with replica(one):
            assert (await client.get("/")).text == "one"
        with pytest.raises(httpx.ConnectError):
            await client.get("/")


async def test_a_call_that_was_cut_off_is_made_again_unless_it_counts(tmp_path: Path) -> None:
    one, other = tmp_path / "one", tmp_path / "other"
    async with replica(one, answers=False) as first, replica(other) as second:
        async with service_client(f"unix:{one},unix:{other}") as client:
            assert (await client.post("/", content=b"x")).text == "other"
        assert (len(first), len(second)) == (1, 1)
        async with service_client(f"unix:{one},unix:{other}") as client:
            with pytest.raises(httpx.RemoteProtocolError):
                await client.post("/", content=b"x", extensions={ONCE: True})
            assert (len(first), len(second)) == (2, 1)
            assert (await client.get("/")).text == "other"


def test_addresses_are_read_as_people_write_them() -> None:
    found = parse_addresses("unix:/a, 10.0.0.1:80,http://hub:81")
    assert [str(one) for one in found] == ["unix:/a", "10.0.0.1:80", "hub:81"]
    for text in ("unix:/a,", "unix:/a,unix:/a", ","):
        with pytest.raises(AddressError):
            parse_addresses(text)
