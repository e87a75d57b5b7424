"""A host goes on reporting, whatever breaks."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from carrel_agent.supervise import reporting
from carrel_agent.supervise.reporting import HostFacts, Reporter
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.agents import AgentReportReply


async def test_a_fault_that_nobody_expected_is_not_the_end_of_reports(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "FAULT_SECONDS", 0.01)
    faults, reported = [ValueError("a route that is none"), KeyError("x")], asyncio.Event()

    def reports() -> list[Any]:
        if faults:
            raise faults.pop()
        return []

    async def request(*_: object, **_more: object) -> Any:
        reported.set()
        content = AgentReportReply(heartbeat_seconds=60).model_dump_json().encode()
        return SimpleNamespace(status_code=200, content=content)

    async def forget_reported(*_: object) -> None:
        return None

    supervisor: Any = SimpleNamespace(
        reports=reports,
        on_change=lambda _listener: None,
        prefer=lambda _modules: None,
        forget_reported=forget_reported,
    )
    hub: Any = SimpleNamespace(request=request)
    facts = HostFacts(name="local", accounts="any", state_dir=tmp_path)
    tasks = TaskOwner()
    tasks.start(Reporter(supervisor, facts=facts, hub=hub, key="k" * 40).run(), name="reporter")
    try:
        async with asyncio.timeout(60):
            await reported.wait()
        assert not faults
    finally:
        await tasks.close()
