"""The journal: whatever breaks, reading gives an unbroken run of what was written."""

import errno
import json
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.control.journal import DAMAGED, LEAST_LOG, Journal, read_lines


@pytest.fixture
def path(short_dir: Path) -> Path:
    return short_dir / "a.journal"


@pytest.fixture
def written(path: Path) -> Journal:
    journal = Journal(path)
    journal.replace(b'{"whole":1}')
    journal.append([b'{"then":2}', b'{"then":3}'])
    return journal


RECORDS = [b'{"whole":1}', b'{"then":2}', b'{"then":3}']


def test_what_was_written_is_read(written: Journal, path: Path) -> None:
    again = Journal(path)
    assert again.read() == RECORDS
    again.append([b'{"then":4}'])
    assert Journal(path).read() == [*RECORDS, b'{"then":4}']
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_person_can_read_it(written: Journal, path: Path) -> None:
    lines = path.read_text().splitlines()
    assert [json.loads(line[9:]) for line in lines] == [{"whole": 1}, {"then": 2}, {"then": 3}]


def test_json_of_several_lines_is_one_record(written: Journal, path: Path) -> None:
    written.append([b'{\n "a": "x\\ny"\n}\n'])
    (record,) = Journal(path).read()[3:]
    assert json.loads(record) == {"a": "x\ny"}


def test_no_file_is_no_record(path: Path) -> None:
    journal = Journal(path)
    assert journal.read() == []
    assert journal.is_broken


def test_it_is_cut_anywhere(written: Journal, path: Path) -> None:
    data = path.read_bytes()
    for size in range(len(data)):
        path.write_bytes(data[:size])
        journal = Journal(path)
        whole_lines = data[:size].count(b"\n")
        assert journal.read() == RECORDS[:whole_lines]
        at_the_end_of_a_line = size > 0 and data[:size].endswith(b"\n")
        assert journal.is_broken != at_the_end_of_a_line


def test_any_byte_of_it_is_changed(written: Journal, path: Path) -> None:
    data = path.read_bytes()
    for at in range(len(data)):
        path.write_bytes(data[:at] + bytes((data[at] ^ 0x20,)) + data[at + 1 :])
        journal = Journal(path)
        assert journal.read() == RECORDS[: data[:at].count(b"\n")]
        assert journal.is_broken


def test_a_damaged_file_is_kept_aside(written: Journal, path: Path) -> None:
    data = path.read_bytes().replace(b"then", b"than", 1)
    path.write_bytes(data)
    journal = Journal(path)
    assert journal.read() == RECORDS[:1]
    journal.replace(b'{"whole":4}')
    assert path.with_name(path.name + DAMAGED).read_bytes() == data
    assert Journal(path).read() == [b'{"whole":4}']


def test_a_torn_last_line_is_no_damage(written: Journal, path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])
    assert Journal(path).read() == RECORDS[:2]
    assert not path.with_name(path.name + DAMAGED).exists()


def test_nothing_is_added_to_what_is_broken(written: Journal, path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"torn")
    with pytest.raises(OSError, match="not as it was left"):
        written.append([b"{}"])
    assert written.is_broken
    assert Journal(path).read() == RECORDS
    written.replace(b"{}")
    written.append([b"[]"])
    assert Journal(path).read() == [b"{}", b"[]"]


@pytest.fixture
def full_disk(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    real = os.write

    def write(descriptor: int, data: memoryview) -> int:
        if len(data) > 4:
            return real(descriptor, data[:4])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "write", write)
        yield


def test_a_full_disk_leaves_what_was_there(
    written: Journal, path: Path, full_disk: Iterator[None]
) -> None:
    before = path.read_bytes()
    with pytest.raises(OSError, match="No space left"):
        written.append([b'{"then":4}'])
    assert path.read_bytes() == before
    assert written.is_broken


def test_a_link_is_not_followed(written: Journal, path: Path, short_dir: Path) -> None:
    elsewhere = short_dir / "elsewhere"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    with pytest.raises(OSError, match="symbolic link"):
        written.append([b"{}"])


def test_it_says_when_it_has_outgrown_the_whole(written: Journal) -> None:
    record = b'"%b"' % (b"x" * (LEAST_LOG // 8))
    for _ in range(7):
        written.append([record])
    assert not written.is_overgrown
    written.append([record])
    assert written.is_overgrown
    written.replace(record)
    assert not written.is_overgrown


RECORD = st.recursive(st.integers() | st.text(), st.lists, max_leaves=3).map(
    lambda value: json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")
)
STEP = st.one_of(
    st.tuples(st.just("replace"), RECORD),
    st.tuples(st.just("append"), st.lists(RECORD, max_size=3)),
    st.tuples(st.just("restart"), st.none()),
    st.tuples(st.just("crash"), st.integers(0, 200)),
)


@given(st.lists(STEP, max_size=15))
def test_it_agrees_with_a_list(steps: list[tuple[str, object]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "j"
        journal, model = Journal(path), list[bytes]()
        for kind, argument in steps:
            if kind == "append" and not journal.is_broken:
                assert isinstance(argument, list)
                journal.append(argument)
                model += argument
            elif kind == "replace" or (kind == "append" and model):
                record = argument if isinstance(argument, bytes) else b"0"
                journal.replace(record)
                model = [record]
            elif kind == "crash" and path.exists():
                assert isinstance(argument, int)
                data = path.read_bytes()[: -argument or None]
                path.write_bytes(data)
                model = model[: data.count(b"\n")]
            journal = Journal(path) if kind in ("restart", "crash") else journal
            if kind in ("restart", "crash"):
                assert journal.read() == model
            assert read_lines(path.read_bytes() if path.exists() else b"")[0] == model
