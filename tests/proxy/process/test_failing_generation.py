"""New workers that do not come: the old ones go on as if nothing had been asked."""

import os
import signal
from pathlib import Path

import pytest
from proxy.process.program import carrel, chp, load_on, until
from proxy.wire import open_upstream

pytestmark = pytest.mark.anyio


async def test_new_workers_that_die_leave_everything_to_the_old_ones(short_dir: Path) -> None:
    async with open_upstream() as upstream, chp(short_dir, "--workers", "2") as program:
        await program.route("/", upstream.target)
        olds = program.workers()
        async with load_on(program.port) as load:
            program.signal(signal.SIGHUP)
            # Those that the new parent starts, not the launcher that makes the plan.
            await until("new workers", lambda: len(program.workers()) == 4)
            for pid in set(program.workers()) - set(olds):
                os.kill(pid, signal.SIGKILL)
            await program.said("reload_failed")
            await until("the end of the new ones", lambda: program.workers() == olds)
            await load.more(50)
            assert (await program.call("DELETE", "/api/routes/"))[0] == 204
            await program.route("/", upstream.target)
            await program.reload()
            await load.more(50)
        assert [lost for lost in load.lost if "404" not in lost] == []


async def test_an_end_does_not_wait_for_workers_that_were_just_started(short_dir: Path) -> None:
    async with carrel(short_dir, workers=2, drain_seconds=600) as program:
        program.signal(signal.SIGHUP)
        await until("new workers", lambda: len(program.workers()) == 4)
        program.signal(signal.SIGTERM)
        assert await program.ended() == 0
