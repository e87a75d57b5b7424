"""Whether and by what a server is started here, and the record that it begins with. No I/O."""

import os
import time
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from carrel_agent.cgroups.group import Group
from carrel_agent.errors import InvalidRequestError, LimitUnenforceableError
from carrel_agent.process.launch_spec import LaunchSpec
from carrel_agent.runners.base import Runner
from carrel_agent.supervise.accounts import Account
from carrel_agent.supervise.launching import shown_command
from carrel_agent.supervise.record import Record
from carrel_shared.identity import boot_id
from carrel_shared.wire.limits import Limits
from carrel_shared.wire.servers import ServerSpec

JUPYTERLAB = ("jupyter", "lab")


def choose_runners(
    spec: ServerSpec, runners: Mapping[str, Runner], defaults: Sequence[str]
) -> list[Runner]:
    """Return what to try, in order. A zygote imports one program, the host's JupyterLab.

    Raises:
        InvalidRequestError: If nothing here can run it.
    """
    if spec.listen != "socket" and not spec.command:
        raise InvalidRequestError("only a command can listen on a port of its own, or nowhere")
    if spec.runner is not None:
        if spec.runner == "fork" and spec.command:
            raise InvalidRequestError("the fork runner runs JupyterLab only, not a command")
        if spec.runner not in runners:
            known = ", ".join(sorted(runners))
            raise InvalidRequestError(f"this host has no runner {spec.runner!r}; it has {known}")
        return [runners[spec.runner]]
    return [runners[name] for name in (defaults[-1:] if spec.command else defaults)]


def refuse_unenforceable(runner: Runner, limits: Limits) -> None:
    """Refuse limits that would be none, unless they are only advice.

    Raises:
        LimitUnenforceableError: Saying which, and why.
    """
    if (refusal := runner.refusal(limits)) and not limits.advisory:
        raise LimitUnenforceableError(refusal)


def new_record(
    spec: ServerSpec,
    account: Account,
    launch: LaunchSpec,
    *,
    runner: Runner,
    group: Group | None,
    socket: str,
    port: int,
    own_account: bool,
    scratch: str = "",
    now: datetime,
) -> Record:
    """Return the record of a start that is about to be decided.

    Args:
        own_account: The account is its user's and nobody else's.
        scratch: Its scratch home.
    """
    return Record(
        server_id=spec.server_id,
        generation=spec.generation,
        user=spec.user,
        server_name=spec.server_name,
        account=account.name,
        uid=account.uid,
        gid=account.gid if own_account else None,
        runner=runner.name,
        socket=socket,
        port=port,
        listens=spec.listen != "nowhere",
        base_url=spec.base_url,
        home=account.home,
        scratch=scratch,
        command=shown_command(launch.argv or JUPYTERLAB),
        any_answer=bool(spec.command),
        boot_id=boot_id(),
        limits=spec.limits,
        group=group.place if group else None,
        intent_ticks=ticks_since_boot(),
        requested_at=now,
        deadline_at=now + timedelta(seconds=spec.start_timeout_seconds),
    )


def ticks_since_boot() -> int:
    """Return now in the unit of `/proc/PID/stat`'s start time, rounded down."""
    seconds = time.clock_gettime(time.CLOCK_BOOTTIME)
    return int(seconds * os.sysconf("SC_CLK_TCK")) - 1
