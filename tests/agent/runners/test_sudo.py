"""The helper runs as the account whose servers are meant: it may be stopped, or made to print."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.runners import sudo
from carrel_agent.runners.base import RunnerContext
from carrel_agent.runners.sudo import MOST_HEARD, SudoRunner

HELPERS = {
    "stopped": "kill -STOP $$",
    "floods": "exec cat /dev/zero",
    "prints and stays": "echo 3; exec sleep 600",
}


def runner(tmp_path: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> SudoRunner:
    monkeypatch.setattr(sudo, "writable_parts", list)
    program = tmp_path / "sudo"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)
    unused: Any = None
    return SudoRunner(
        RunnerContext(
            keeper=unused,
            clock=unused,
            groups=unused,
            state_dir=tmp_path,
            options={"sudo": str(program)},
        )
    )


@pytest.mark.parametrize("name", HELPERS)
async def test_a_helper_that_does_not_end_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    killed: list[asyncio.subprocess.Process] = []

    def refuse(process: asyncio.subprocess.Process) -> None:
        killed.append(process)
        raise PermissionError

    kill = asyncio.subprocess.Process.kill
    monkeypatch.setattr(asyncio.subprocess.Process, "kill", refuse)
    monkeypatch.setattr(sudo, "CALL_SECONDS", 0.5)
    said = await runner(tmp_path, HELPERS[name], monkeypatch).ask("alice", "signal", "1", "2", "9")
    assert said == "no answer within 0.5 seconds"
    [process] = killed
    kill(process)
    rest, _ = await process.communicate()
    assert len(rest) <= 32 * MOST_HEARD, "no more was taken in"


async def test_what_a_helper_says_is_heard(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert await runner(tmp_path, "echo 3", monkeypatch).ask("alice", "end", "0", "1") == "3"
