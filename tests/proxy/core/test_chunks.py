"""Chunked framing: one verdict however the bytes are cut, and nothing in doubt is passed on."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.chunks import MAX_EXTENSIONS, ChunkError, ChunkReader, frame

PIECES = st.lists(st.binary(min_size=1, max_size=300), max_size=8)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    bounds = sorted({place % (len(data) + 1) for place in places} | {0, len(data)})
    return [data[a:b] for a, b in pairwise(bounds)]


def read(parts: list[bytes]) -> tuple[bytes, bool, bytes]:
    """Return what a reader makes of parts: data, whether it ended, and what came after."""
    reader, data, surplus = ChunkReader(), b"", b""
    for part in parts:
        if reader.done:
            surplus += part
        else:
            data += b"".join(reader.feed(part))
    return data, reader.done, reader.surplus + surplus


@given(PIECES, st.lists(st.integers(min_value=0)), st.binary(max_size=20))
def test_what_was_framed_is_read_back(pieces: list[bytes], places: list[int], after: bytes) -> None:
    wire = b"".join(frame([piece], last=False) for piece in pieces) + frame([b""], last=True)
    assert read(cut(wire + after, places)) == (b"".join(pieces), True, after)


@given(
    st.lists(
        st.sampled_from([b"\r", b"\n", b"\r\n", b"0", b"5", b"a", b";", b"x: y", b"hello", b" "]),
        max_size=14,
    ).map(b"".join),
    st.lists(st.integers(min_value=0)),
)
def test_the_verdict_does_not_depend_on_the_cuts(wire: bytes, places: list[int]) -> None:
    def verdict(parts: list[bytes]) -> object:
        try:
            return read(parts)
        except ChunkError:
            return "refused"

    assert verdict(cut(wire, places)) == verdict([wire])


@pytest.mark.parametrize(
    "flood", [b"1;" + b"a" * 300, b"1;a=b\r\nx\r\n" * (MAX_EXTENSIONS // 4 + 1)]
)
def test_a_flood_of_extensions_is_refused(flood: bytes) -> None:
    with pytest.raises(ChunkError):
        ChunkReader().feed(flood)


def test_a_flood_of_trailers_is_refused() -> None:
    with pytest.raises(ChunkError):
        ChunkReader().feed(b"0\r\n" + b"name: value\r\n" * 1000)


def test_pieces_become_one_chunk() -> None:
    assert frame([b"ab", b"cd"], last=True) == b"4\r\nabcd\r\n0\r\n\r\n"
    assert frame([], last=True) == b"0\r\n\r\n"
    assert frame([], last=False) == b""
