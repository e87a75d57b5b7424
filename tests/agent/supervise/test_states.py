"""What follows from a record, as tables."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from carrel_agent.supervise.record import Handle, Record, Stop
from carrel_agent.supervise.states import (
    Adoption,
    StartVerdict,
    StopVerdict,
    judge_adoption,
    judge_start,
    judge_stop,
    report_of,
    state_of,
)
from carrel_shared.wire.servers import ExitReport, ServerState

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HANDLE = Handle(pid=10, start_ticks=20, boot_id="b")
STOP = Stop(reason="alice asked", interrupt_seconds=1, terminate_seconds=1, at=NOW)


def ended(cause: str) -> ExitReport:
    return ExitReport(cause=cause, summary="", at=NOW)


def record(**fields: Any) -> Record:
    return Record(
        **{
            "server_id": "0123456789ab",
            "generation": 3,
            "user": "alice",
            "account": "alice",
            "uid": 1000,
            "runner": "fork",
            "socket": "/run/x/http.sock",
            "base_url": "/user/alice/",
            "boot_id": "b",
            "intent_ticks": 5,
            "requested_at": NOW,
            "deadline_at": NOW + timedelta(seconds=60),
            **fields,
        }
    )


@pytest.mark.parametrize(
    ("fields", "state"),
    [
        ({}, ServerState.STARTING),
        ({"handle": HANDLE}, ServerState.STARTING),
        ({"handle": HANDLE, "ready_at": NOW}, ServerState.READY),
        ({"handle": HANDLE, "ready_at": NOW, "stop": STOP}, ServerState.STOPPING),
        ({"handle": HANDLE, "never_ready": True}, ServerState.STOPPING),
        ({"ready_at": NOW, "exit": ended("stopped")}, ServerState.STOPPED),
        ({"ready_at": NOW, "exit": ended("signalled")}, ServerState.FAILED),
        ({"ready_at": NOW, "stop": STOP, "exit": ended("host_rebooted")}, ServerState.FAILED),
    ],
)
def test_the_state_follows_from_the_record(fields: dict[str, Any], state: ServerState) -> None:
    assert state_of(record(**fields)) is state


def test_what_is_not_known_is_unknown_and_not_dead() -> None:
    assert state_of(record(), unresolved=True) is ServerState.UNKNOWN
    assert state_of(record(exit=ended("exited")), unresolved=True) is ServerState.FAILED


def test_a_target_is_told_only_while_something_answers_there() -> None:
    assert report_of(record(handle=HANDLE)).target is None
    ready = report_of(record(handle=HANDLE, ready_at=NOW))
    assert (ready.target, ready.peer_uid) == ("unix:/run/x/http.sock", 1000)
    assert report_of(record(ready_at=NOW, exit=ended("exited"))).target is None


@pytest.mark.parametrize(
    ("known", "generation", "verdict"),
    [
        (None, 1, StartVerdict.NEW),
        (record(), 3, StartVerdict.SAME),
        (record(), 2, StartVerdict.STALE),
        (record(), 4, StartVerdict.RUNNING),
        (record(exit=ended("stopped")), 3, StartVerdict.SAME),
        (record(exit=ended("stopped")), 4, StartVerdict.NEW),
        (record(exit=ended("stopped")), 2, StartVerdict.STALE),
        (record(exit=ended("stopped"), forgotten=True), 3, StartVerdict.STALE),
        (record(exit=ended("stopped"), forgotten=True), 4, StartVerdict.NEW),
    ],
)
def test_a_start_is_judged_by_generation(
    known: Record | None, generation: int, verdict: StartVerdict
) -> None:
    assert judge_start(known, generation) is verdict


@pytest.mark.parametrize(
    ("known", "generation", "verdict"),
    [
        (None, 1, StopVerdict.UNKNOWN),
        (record(), 3, StopVerdict.STOP),
        (record(), 2, StopVerdict.STALE),
        (record(), 4, StopVerdict.UNKNOWN),
        (record(exit=ended("exited")), 3, StopVerdict.ENDED),
        (record(exit=ended("exited"), forgotten=True), 3, StopVerdict.UNKNOWN),
    ],
)
def test_a_stop_is_judged_by_generation(
    known: Record | None, generation: int, verdict: StopVerdict
) -> None:
    assert judge_stop(known, generation) is verdict


@pytest.mark.parametrize(
    ("fields", "boot_id", "adoption"),
    [
        ({"handle": HANDLE}, "b", Adoption.FOLLOW),
        ({"handle": HANDLE}, "other", Adoption.REBOOTED),
        ({}, "b", Adoption.SEARCH),
        ({}, "other", Adoption.REBOOTED),
        ({"handle": HANDLE, "exit": ended("exited")}, "other", Adoption.KEEP),
    ],
)
def test_a_record_is_taken_up_by_boot_and_handle(
    fields: dict[str, Any], boot_id: str, adoption: Adoption
) -> None:
    assert judge_adoption(record(**fields), boot_id) is adoption
