"""What a start needs before a runner is asked: a socket, a log, a home, what fits that runner."""

import os
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

from carrel_agent.cgroups.group import GroupPlace
from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
from carrel_agent.process.launch_spec import LaunchSpec
from carrel_agent.runners.base import Launch, Launched, Runner
from carrel_agent.supervise.admission import refuse_unenforceable
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.pam_sessions import PamSession
from carrel_agent.supervise.patience import within
from carrel_agent.supervise.record import Record
from carrel_agent.supervise.search import end_remains
from carrel_agent.supervise.surroundings import Surroundings

HOME_SECONDS = 10.0
"""How long a home may take to show itself: the file server it lies on may be lost."""


@asynccontextmanager
async def prepared(around: Surroundings, record: Record, spec: LaunchSpec) -> AsyncIterator[Launch]:
    """Yield a launch: its socket bound, its log open. Both are this process's only meanwhile.

    Raises:
        LaunchError: If one of them cannot be had.
    """
    where = around.sockets.path(record.server_id)
    await end_remains(where, server_id=record.server_id, uid=record.uid)
    try:
        listener = around.sockets.bind(record.server_id)
    except OSError as error:
        raise LaunchError(f"its socket {where} cannot be made: {error.strerror}") from error
    with listener:
        try:
            output = await around.keeper.open_log(record.server_id, fresh=True)
        except (RefusedError, ChannelClosedError) as error:
            raise LaunchError(f"its output cannot be kept: {error}") from error
        try:
            if os.geteuid() == 0:
                # What a shell writes to /dev/stderr opens it anew, which takes the right to.
                os.fchown(output, spec.uid, -1)
            yield Launch(spec, listener.fileno(), output, record.limits)
        finally:
            os.close(output)


def fitted(runner: Runner, record: Record, launch: Launch) -> tuple[Launch, GroupPlace | None]:
    """Return a launch as this runner wants it, and the group that the process will join.

    Raises:
        LimitUnenforceableError: If this runner cannot enforce the limits.
    """
    refuse_unenforceable(runner, record.limits)
    group = runner.group(record.server_id)
    joined = tuple(map(str, group.directories)) if group else ()
    spec = replace(launch.spec, cgroups=joined)
    return replace(launch, spec=spec), group.place if group else None


async def launch_in_session(
    around: Surroundings,
    record: Record,
    runner: Runner,
    launch: Launch,
    intended: Callable[[], Awaitable[None]],
) -> Launched:
    """Launch, in a PAM session where the host's settings want one.

    Args:
        intended: Returns once the intent to do so is durable; no process is begun before.

    Raises:
        LaunchError: If there is none to be had, or no home.
    """
    if not around.pam_service or not getattr(runner, "wants_session", False):
        await require_home(launch.spec.home)
        await intended()
        return await runner.launch(launch)
    await intended()
    session = await PamSession.open(around.keeper, around.pam_service, record.account)
    try:
        await require_home(launch.spec.home)  # a session may make or mount it
        launched = await runner.launch(replace(launch, spec=session.applied_to(launch.spec)))
    except BaseException:
        session.give_up()
        raise
    session.hold(launched.pid, launched.start_ticks)
    return launched


async def require_home(path: str) -> None:
    """See that a home is there. One that nobody but its owner may look at counts as there.

    Raises:
        LaunchError: It is not, or does not show itself.
    """
    try:
        found = await within(HOME_SECONDS, ("home", path), lambda: os.stat(path))  # noqa: PTH116
    except (FileNotFoundError, NotADirectoryError):
        raise LaunchError(f"the home directory {path} does not exist on this host") from None
    except TimeoutError:
        raise LaunchError(
            f"the home directory {path} did not show itself within {HOME_SECONDS:g} seconds"
        ) from None
    except OSError:
        return
    if not stat.S_ISDIR(found.st_mode):
        raise LaunchError(f"the home directory {path} is no directory")
