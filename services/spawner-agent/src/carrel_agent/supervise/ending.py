"""Asking a process to end, ever less politely."""

import signal

import structlog

from carrel_agent.runners.base import Watch
from carrel_shared.failpoints import failpoint

log = structlog.get_logger(__name__)


async def end_process(watch: Watch, *, interrupt_seconds: float, terminate_seconds: float) -> None:
    """Return when the process has been killed, or has ended before that.

    A notebook server without a terminal ends at the first SIGINT, and ends its kernels before.
    """
    await watch.send(signal.SIGINT)
    failpoint("agent.stop.signalled")
    if await watch.wait_ended(interrupt_seconds):
        return
    await watch.send(signal.SIGTERM)
    await watch.send(signal.SIGCONT)  # a process that is stopped would never hear of it
    if await watch.wait_ended(terminate_seconds):
        return
    log.warning("process_killed", pid=watch.identity.pid)
    await watch.send(signal.SIGKILL)
