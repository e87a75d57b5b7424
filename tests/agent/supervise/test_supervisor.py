"""What the supervisor keeps of servers that are no more."""

from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from agent.supervise.test_journal import names, record

from carrel_agent.errors import UnknownServerError
from carrel_agent.supervise.journal import FORGOTTEN_LASTS, Journal
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.clock import ManualClock

ID, OTHER = "0123456789ab", "ba9876543210"


async def supervisor_of(journal: Journal, clock: ManualClock) -> Supervisor:
    async def done() -> None:
        return None

    others: Any = SimpleNamespace(
        load_exits=done,
        unclaimed=list,
        open_fifos=set,
        left_over=set,
        ids=list,
        prepare=lambda: None,
        sweep=lambda _living: [],
        close=lambda: None,
    )
    made = Supervisor(
        keeper=others,
        journal=journal,
        sockets=others,
        logs=others,
        runners={},
        default_runners=["fork"],
        clock=clock,
        python="/usr/bin/python3",
        lang="C.UTF-8",
        accounts=others,
        groups=others,
        scratch=others,
        stop_times=(1, 1),
    )
    await made.recover()
    return made


async def test_what_was_forgotten_long_ago_is_dropped(tmp_path: Path) -> None:
    journal, clock = Journal(tmp_path), ManualClock()
    then = record().model_copy(update={"requested_at": clock.now() - timedelta(days=300)})
    exit_ = record().exit
    assert exit_ is not None
    ended = then.model_copy(update={"exit": exit_.model_copy(update={"at": clock.now()})})
    await journal.save(ended.model_copy(update={"forgotten": True}))
    await journal.save(ended.model_copy(update={"server_id": OTHER}))
    supervisor = await supervisor_of(journal, clock)
    try:
        # It ran for long: its end counts, not its beginning.
        supervisor.drop_long_forgotten()
        assert names(tmp_path) == [f"{ID}.json", f"{OTHER}.json"]
        clock.advance(FORGOTTEN_LASTS.total_seconds() + 1)
        supervisor.drop_long_forgotten()
        assert names(tmp_path) == [f"{OTHER}.json"]
        assert supervisor.report(OTHER).exit is not None
        with pytest.raises(UnknownServerError):
            supervisor.report(ID)
    finally:
        await supervisor.close()
