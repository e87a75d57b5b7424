"""Bodies of responses: what goes on, and how their end is known, however they come in pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.body import ResponseBody
from carrel_proxy.core.chunks import ChunkError, ChunkReader, frame
from carrel_proxy.core.framing import Body

DATA = st.binary(min_size=1, max_size=300)


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, position = [], 0
    for size in sizes:
        pieces.append(data[position : position + size])
        position += size
    return [piece for piece in [*pieces, data[position:]] if piece]


def unframed(data: bytes) -> bytes:
    reader = ChunkReader()
    body = b"".join(reader.feed(data))
    assert reader.done
    return body


@given(DATA, st.lists(st.integers(1, 50)), st.binary(max_size=5))
def test_a_sized_body_ends_where_it_said(data: bytes, sizes: list[int], more: bytes) -> None:
    body = ResponseBody(Body.SIZED, Body.SIZED, len(data))
    sent = b""
    for piece in cut(data + more, sizes):
        if not body.done:
            sent += body.feed(piece)
    assert sent == data
    assert body.done


def test_what_follows_a_sized_body_makes_the_connection_unclean() -> None:
    body = ResponseBody(Body.SIZED, Body.SIZED, 2)
    assert body.feed(b"abc") == b"ab"
    assert body.done
    assert not body.clean


@given(DATA, st.lists(st.integers(1, 50)), st.sampled_from([Body.CHUNKED, Body.UNTIL_CLOSE]))
def test_a_chunked_body_is_framed_as_the_client_needs_it(
    data: bytes, sizes: list[int], onward: Body
) -> None:
    body = ResponseBody(Body.CHUNKED, onward, 0)
    sent = b"".join(body.feed(piece) for piece in cut(frame([data], last=True), sizes))
    assert (unframed(sent) if onward is Body.CHUNKED else sent) == data
    assert body.done
    assert body.clean


@given(DATA, st.lists(st.integers(1, 50)), st.sampled_from([Body.CHUNKED, Body.UNTIL_CLOSE]))
def test_a_body_without_a_length_ends_with_its_connection(
    data: bytes, sizes: list[int], onward: Body
) -> None:
    body = ResponseBody(Body.UNTIL_CLOSE, onward, 0)
    sent = b"".join(body.feed(piece) for piece in cut(data, sizes))
    assert not body.done
    sent += body.end()
    assert (unframed(sent) if onward is Body.CHUNKED else sent) == data


def test_malformed_chunks_are_refused() -> None:
    with pytest.raises(ChunkError):
        ResponseBody(Body.CHUNKED, Body.CHUNKED, 0).feed(b"zz\r\n")
