"""A hold on one process."""

import asyncio
import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import replace

import pytest

from carrel_agent.supervise.watch import ProcessGoneError, ProcessWatch, real_uid
from carrel_shared.identity import ProcessIdentity, identify


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen(["sleep", "100"]) as process:
        yield process
        process.kill()


def identity_of(process: subprocess.Popen[bytes]) -> ProcessIdentity:
    found = identify(process.pid)
    assert found is not None
    return found


async def test_its_end_is_heard_of_once(sleeper: subprocess.Popen[bytes]) -> None:
    heard = []
    watch = ProcessWatch(identity_of(sleeper), lambda: heard.append(1))
    assert not await watch.wait_ended(0.01)
    await watch.send(signal.SIGKILL)
    assert await watch.wait_ended(60)
    await watch.send(signal.SIGKILL)
    await asyncio.sleep(0.01)
    watch.close()
    watch.close()
    assert heard == [1]


async def test_another_process_with_its_pid_is_not_it(sleeper: subprocess.Popen[bytes]) -> None:
    here = identity_of(sleeper)
    for other in (replace(here, start_ticks=1), replace(here, boot_id="another")):
        with pytest.raises(ProcessGoneError):
            ProcessWatch(other, lambda: None)
    assert sleeper.poll() is None


async def test_having_no_descriptor_left_is_no_proof_of_death(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_pid: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(os, "pidfd_open", refuse)
    here = identity_of(sleeper)
    with pytest.raises(OSError, match="Too many"):
        ProcessWatch(here, lambda: None)
    with pytest.raises(ProcessGoneError):
        ProcessWatch(replace(here, start_ticks=1), lambda: None)


def test_who_a_process_runs_as(sleeper: subprocess.Popen[bytes]) -> None:
    assert real_uid(sleeper.pid) == os.getuid()
    assert real_uid(2**22 + 1) is None
