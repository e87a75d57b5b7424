"""Following output costs no more than looking at it now and then."""

import asyncio
from pathlib import Path

import pytest

from carrel_agent.supervise.follow import LOOK_SECONDS, MAX_BYTES, follow
from carrel_agent.supervise.logs import ServerLogs

ID = "0123456789ab"


async def test_a_flood_is_read_a_piece_at_each_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To make 8 MiB a second fit to be shown takes half a core, for each who follows."""
    looks: list[float] = []
    sleep = asyncio.sleep

    async def look(seconds: float) -> None:
        looks.append(seconds)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", look)
    logs, ended = ServerLogs(tmp_path), asyncio.Event()
    ring = logs.ring(ID)
    ring.touch()
    line = b"x" * 99 + b"\n"
    pieces: list[bytes] = []
    async for piece in follow(logs, ID, 1, ended=ended.is_set):
        if not pieces:
            ring.write_bytes(line * (4 * MAX_BYTES // len(line)))
        pieces.append(piece)
        if len(pieces) == 4:
            assert looks == [LOOK_SECONDS] * 2, "one before each piece but the first"
            ended.set()
    assert b"".join(pieces) == ring.read_bytes(), "all the rest of it when it has ended"
