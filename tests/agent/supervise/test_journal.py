"""The journal survives what happens to its files."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from carrel_agent.supervise.journal import FORGOTTEN_LASTS, Journal, JournalError
from carrel_agent.supervise.record import Handle, Record
from carrel_shared.wire.servers import ExitReport

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def names(directory: Path) -> list[str]:
    return sorted(path.name for path in directory.iterdir())


def record(server_id: str = "0123456789ab", *, forgotten: bool = False) -> Record:
    return Record(
        server_id=server_id,
        generation=3,
        user="alice",
        account="alice",
        uid=1000,
        runner="fork",
        socket="/run/x/http.sock",
        base_url="/user/alice/",
        boot_id="b",
        intent_ticks=5,
        requested_at=NOW,
        deadline_at=NOW + timedelta(seconds=60),
        handle=Handle(pid=1, start_ticks=2, boot_id="b"),
        exit=ExitReport(code=1, cause="exited", summary="It ended.", log_tail=["ö"], at=NOW),
        forgotten=forgotten,
    )


async def test_what_was_saved_is_loaded_whole(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "servers")
    await journal.save(record())
    assert Journal(tmp_path / "servers").load(NOW) == [record()]
    assert (tmp_path / "servers").stat().st_mode & 0o777 == 0o700
    assert (tmp_path / "servers/0123456789ab.json").stat().st_mode & 0o777 == 0o600


async def test_a_byte_wrong_anywhere_never_keeps_the_agent_from_starting(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.save(record())
    await journal.save(record("ba9876543210"))
    path = tmp_path / "0123456789ab.json"
    whole = path.read_bytes()
    for place in range(0, len(whole), 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 0x15]) + whole[place + 1 :])
        loaded = Journal(tmp_path).load(NOW)
        assert record("ba9876543210") in loaded
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert Journal(tmp_path).load(NOW) == [record("ba9876543210")]
        assert path.with_suffix(".corrupt").read_bytes() == whole[:length]


async def test_a_record_under_another_servers_name_is_put_aside(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.save(record())
    (tmp_path / "0123456789ab.json").rename(tmp_path / "ba9876543210.json")
    assert journal.load(NOW) == []
    assert (tmp_path / "ba9876543210.corrupt").exists()


async def test_generations_are_remembered_for_a_week(tmp_path: Path) -> None:
    journal = Journal(tmp_path)
    await journal.save(record(forgotten=True))
    assert len(journal.load(NOW + FORGOTTEN_LASTS)) == 1
    assert journal.load(NOW + FORGOTTEN_LASTS + timedelta(seconds=1)) == []
    assert names(tmp_path) == []


def test_a_half_written_file_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".0123456789ab.json.1f2e").write_bytes(b"{")
    assert Journal(tmp_path).load(NOW) == []
    assert names(tmp_path) == []


async def test_a_disk_that_takes_nothing_is_an_error_with_its_place(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "servers")
    (tmp_path / "servers").rmdir()
    with pytest.raises(JournalError, match=str(tmp_path)):
        await journal.save(record())
