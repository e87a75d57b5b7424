"""Frames are counted by their headers alone."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.frames import CLOSE_RESTARTING, FrameCounter, is_one_short_frame


def frame(size: int, *, masked: bool = False) -> bytes:
    """Return a binary frame of that many bytes of payload, which look like headers."""
    mask = 0x80 if masked else 0
    if size < 126:
        head = bytes((0x82, mask | size))
    elif size < 1 << 16:
        head = bytes((0x82, mask | 126)) + size.to_bytes(2)
    else:
        head = bytes((0x82, mask | 127)) + size.to_bytes(8)
    return head + (b"mask" if masked else b"") + b"\x88" * size


SIZES = st.sampled_from([0, 1, 125, 126, 127, 65535, 65536, 70_000])
FRAMES = st.lists(st.tuples(SIZES, st.booleans()), max_size=5)


@given(FRAMES, st.lists(st.integers(min_value=0)))
def test_a_boundary_is_where_a_frame_ends(
    frames: list[tuple[int, bool]], places: list[int]
) -> None:
    data, ends = b"", {0}
    for size, masked in frames:
        data += frame(size, masked=masked)
        ends.add(len(data))
    near = {end + offset for end in ends for offset in range(-2, 12)}
    bounds = sorted(
        {0, *(p for p in near if 0 <= p <= len(data)), *(p % (len(data) + 1) for p in places)}
    )
    counter = FrameCounter()
    for start, end in pairwise(bounds):
        counter.count(data[start:end])
        assert (counter.left == 0) == (end in ends)


@given(st.lists(st.tuples(SIZES, st.booleans()), min_size=1, max_size=2), st.integers(0, 80_000))
def test_a_short_frame_is_known_at_sight(frames: list[tuple[int, bool]], end: int) -> None:
    data = b"".join(frame(size, masked=masked) for size, masked in frames)[:end]
    counter = FrameCounter()
    counter.count(data)
    if is_one_short_frame(data):
        assert (counter.left, len(data) < 128) == (0, True)


@given(st.tuples(SIZES, st.booleans()), st.lists(st.integers(0, 80_000), min_size=1))
def test_the_rest_of_a_frame_ends_where_it_does(one: tuple[int, bool], places: list[int]) -> None:
    first = frame(one[0], masked=one[1])
    data = first + frame(5) * 3
    begun = 1 + places[0] % (len(first) - 1)
    counter = FrameCounter()
    counter.count(data[:begun])
    rest = b""
    for start, end in pairwise(
        sorted({begun, len(data), *(max(begun, p % len(data)) for p in places)})
    ):
        if counter.left:
            rest += counter.rest_of_frame(data[start:end])
    assert data[:begun] + rest == first
    assert counter.left == 0


@pytest.mark.parametrize("step", [1, 3, 1000])
def test_the_close_frame_is_one_frame(step: int) -> None:
    counter = FrameCounter()
    for start in range(0, len(CLOSE_RESTARTING), step):
        counter.count(CLOSE_RESTARTING[start : start + step])
    assert counter.left == 0
    assert int.from_bytes(CLOSE_RESTARTING[2:]) == 1012
