"""Lines are written if they can be, and nobody waits for them."""

import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_shared.lines import LineWriter

SECONDS = 60.0


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = os.pipe()
    yield ends
    for end in ends:
        os.close(end)


def test_lines_arrive_whole_and_in_order(tmp_path: Path) -> None:
    path = tmp_path / "log"
    with path.open("wb") as file:
        lines = LineWriter(file.fileno())
        for number in range(1000):
            lines.write(f"line {number} \udcff\n")
        assert lines.settle(SECONDS)
    written = path.read_text().splitlines()
    assert written == [f"line {number} \\udcff" for number in range(1000)]
    assert lines.left_out == 0


def test_a_pipe_that_nobody_reads_holds_nobody_up(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    size = fcntl.fcntl(writer, fcntl.F_SETPIPE_SZ, 4096)
    lines = LineWriter(writer, most_waiting=64 * 1024)
    for _ in range(5000):
        lines.write("x" * 99 + "\n")
    assert not lines.settle(0.05)
    taken = 5000 - lines.left_out
    assert 64 * 1024 // 100 - 1 <= taken <= (64 * 1024 + size) // 100 + 1
    got = 0
    while got < taken * 100:  # and what was taken is written once somebody reads
        got += len(os.read(reader, 65536))
    assert lines.settle(SECONDS)


@pytest.mark.parametrize("path", ["/dev/full"])
def test_a_full_disk_loses_lines_and_nothing_else(path: str) -> None:
    with Path(path).open("wb", buffering=0) as full:
        lines = LineWriter(full.fileno())
        lines.write("one\n")
        assert lines.settle(SECONDS)
        lines.write("two\n")
        assert lines.settle(SECONDS)
    assert lines.left_out == 2


def test_a_reader_that_is_gone_does_no_harm(pipe: tuple[int, int]) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    lines = LineWriter(writer)
    lines.write("one\n")
    assert lines.settle(SECONDS)
    os.close(writer)
    assert lines.left_out == 1


def test_a_descriptor_that_does_not_block_gets_all_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    lines = LineWriter(writer)
    for _ in range(2000):
        lines.write("x" * 99 + "\n")
    got = 0
    while got < 200_000:
        got += len(os.read(reader, 65536))
    assert lines.settle(SECONDS)
    assert lines.left_out == 0


def test_a_child_writes_its_own_lines(pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    lines = LineWriter(writer)
    lines.write("parent\n")
    assert lines.settle(SECONDS)
    child = os.fork()
    if child == 0:
        lines.write("child\n")
        os._exit(0 if lines.settle(SECONDS) else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert os.read(reader, 100) == b"parent\nchild\n"
