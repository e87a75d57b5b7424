"""What comes next, as a table."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from carrel_hub.db.models import Server
from carrel_hub.spawns.states import Decision, State, Step, decide, may_start

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
TIMEOUT = timedelta(seconds=60)


def _row(state: State, **values: Any) -> Server:
    known: dict[str, Any] = {
        "id": "0123456789ab",
        "user_id": 1,
        "client_id": "c",
        "created": NOW,
        "requested_at": NOW,
        "admitted_at": NOW,
        "state": state,
    }
    return Server(**{**known, **values})


def _after(seconds: float) -> datetime:
    return NOW + timedelta(seconds=seconds)


@pytest.mark.parametrize(
    ("row", "reachable", "now", "expected"),
    [
        (_row(State.STOPPED), False, NOW, Decision(Step.WAIT)),
        (_row(State.FAILED), False, NOW, Decision(Step.WAIT)),
        (_row(State.READY), False, NOW, Decision(Step.WAIT)),
        (_row(State.UNKNOWN), False, _after(9999), Decision(Step.WAIT)),
        (_row(State.QUEUED), False, NOW, Decision(Step.PLACE)),
        (_row(State.QUEUED, host="h"), False, NOW, Decision(Step.SEND)),
        (
            _row(State.QUEUED, host="h", next_attempt_at=_after(3)),
            False,
            NOW,
            Decision(Step.WAIT, _after(3)),
        ),
        (
            _row(State.QUEUED, host="h", next_attempt_at=_after(90)),
            False,
            NOW,
            Decision(Step.WAIT, _after(60)),
        ),
        (_row(State.QUEUED), False, _after(60), Decision(Step.GIVE_UP)),
        (_row(State.QUEUED, admitted_at=None), False, _after(9999), Decision(Step.WAIT)),
        (_row(State.QUEUED, admitted_at=_after(9000)), False, _after(9030), Decision(Step.PLACE)),
        (_row(State.STARTING, host="h"), False, NOW, Decision(Step.ASK)),
        (_row(State.STARTING, host="h"), False, _after(69), Decision(Step.ASK)),
        (_row(State.STARTING, host="h"), False, _after(70), Decision(Step.ABORT)),
        (_row(State.STARTING, host="h", route_number=4), False, NOW, Decision(Step.WAIT)),
        (_row(State.STARTING, host="h", route_number=4), True, NOW, Decision(Step.PROMOTE)),
        (_row(State.STOPPING), False, NOW, Decision(Step.SETTLE)),
        (_row(State.STOPPING, host="h"), False, _after(9999), Decision(Step.SEND_STOP)),
    ],
)
def test_the_next_step(row: Server, reachable: bool, now: datetime, expected: Decision) -> None:
    assert decide(row, reachable=reachable, start_timeout=TIMEOUT, now=now) == expected


def test_only_what_has_ended_may_start() -> None:
    startable = {state for state in State if may_start(_row(state)) is None}
    assert startable == {State.STOPPED, State.FAILED}
