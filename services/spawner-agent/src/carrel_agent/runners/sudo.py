"""The sudo runner: an agent without root starts servers as other accounts.

It may run one program as them (`process/sudo_helper.py`), by a line in sudoers that
`carrel-agent sudoers` prints. Processes end up below the keeper, which sees how they end. Control
groups would need root, so limits other than that of open files cannot be enforced.
"""

import asyncio
import contextlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from signal import Signals

import structlog

import carrel_agent
from carrel_agent.cgroups.group import CONTROLLERS, Group
from carrel_agent.errors import SetupError
from carrel_agent.runners.base import (
    Launch,
    Launched,
    LaunchUnclearError,
    RunnerContext,
    RunnerUnavailableError,
    Watch,
)
from carrel_agent.runners.handover import Handover
from carrel_agent.runners.processes import ProcessRunner
from carrel_agent.supervise.process_tree import Tree
from carrel_agent.supervise.record import Record
from carrel_agent.supervise.watch import ProcessWatch
from carrel_shared.identity import ProcessIdentity
from carrel_shared.wire.limits import Limits

log = structlog.get_logger(__name__)

HELPER = Path(carrel_agent.__file__).resolve().parent / "process" / "sudo_helper.py"
CALL_SECONDS = 30.0
MOST_HEARD = 16 * 1024


def helper_command() -> list[str]:
    """Return what sudo is to run, without its verb."""
    return [sys.executable, "-I", "-S", str(HELPER)]


def writable_parts() -> list[str]:
    """Return what of the helper the calling account could change; root is not asked."""
    if os.geteuid() == 0:
        return []
    program = Path(sys.executable).resolve()
    parts = [program, program.parent, HELPER, *list(HELPER.parents)[:3], *HELPER.parent.iterdir()]
    return [str(part) for part in parts if os.access(part, os.W_OK)]


def sudoers_line(agent: str, accounts: str) -> str:
    """Return the line that lets an agent start servers.

    Args:
        agent: The account that the agent runs as.
        accounts: Whose servers: an account, or a group with a `%` before it.
    """
    command = " ".join(word.replace(" ", r"\ ") for word in helper_command())
    verbs = ("start", "signal *", "end *")
    return f"{agent} ALL=({accounts}) NOPASSWD: " + ", ".join(f"{command} {v}" for v in verbs)


class SudoRunner(ProcessRunner):
    """Starts servers through sudo. Option: `sudo` (`/usr/bin/sudo`)."""

    name = "sudo"
    wants_session = False
    """sudo opens its own."""

    def __init__(self, context: RunnerContext) -> None:
        super().__init__(context)
        if unknown := set(context.options) - {"sudo"}:
            raise SetupError(f"runner_options.sudo: unknown option {min(unknown)!r}")
        self._sudo = str(context.options.get("sudo", "/usr/bin/sudo"))
        if not Path(self._sudo).exists():
            raise SetupError(f"the sudo runner needs {self._sudo}, and there is none")
        if own := writable_parts():
            raise SetupError(
                f"the sudo runner needs Carrel installed by root: this account can change {own[0]},"
                " and with it what it may run as others"
            )

    def refusal(self, limits: Limits) -> str | None:
        """Return that there is no way to enforce them."""
        if missing := Group(None, {}).cannot(limits):
            told = ", ".join(f"{kind} ({CONTROLLERS[kind]})" for kind in missing)
            return (
                f"the sudo runner cannot limit {told}: control groups need root. Set `advisory ="
                " true` beside the limits in the profile to start without"
            )
        return None

    def group(self, server_id: str) -> Group | None:
        """None: another account's process cannot be put into one."""
        return None

    async def launch(self, launch: Launch) -> Launched:
        """Have the helper start it, as its account."""
        account = launch.spec.environment["USER"]
        with Handover() as handover:
            process = await self._run(account, "start", stdin=handover.theirs.fileno())
            try:
                handover.give(launch)
                launched = await handover.hear()
            except RunnerUnavailableError as error:
                said = await _heard(process)
                if process.returncode in (0, None):
                    raise LaunchUnclearError(f"sudo: {error}") from error
                raise RunnerUnavailableError(f"sudo: {said or error}") from error
            # Its parent is the keeper only when the helper has ended.
            await _heard(process)
        return launched

    def watch(self, record: Record, on_end: Callable[[], None]) -> Watch:
        """Hold it by a pidfd; signals go through the helper."""
        assert record.handle is not None  # noqa: S101 - asked for what runs only
        return _SudoWatch(record.handle.identity, on_end, self, record.account)

    async def end(self, record: Record, tree: Callable[[], Tree]) -> int:
        """Have the helper kill what is marked as the server's."""
        ticks = record.handle.start_ticks if record.handle else record.intent_ticks
        said = await self.ask(record.account, "end", record.server_id, str(ticks))
        return int(said) if said.isdigit() else 0

    async def ask(self, account: str, verb: str, *arguments: str) -> str:
        """Have the helper do something; return what it printed."""
        process = await self._run(account, verb, *arguments)
        said = await _heard(process)
        if process.returncode not in (0, 1):
            log.error("sudo_refused", account=account, verb=verb, reason=said[:300])
        return said

    async def _run(
        self, account: str, *arguments: str, stdin: int = subprocess.DEVNULL
    ) -> asyncio.subprocess.Process:
        command = [self._sudo, "-n", "-H", "-u", account, "--", *helper_command(), *arguments]
        try:
            return await asyncio.create_subprocess_exec(
                *command,
                stdin=stdin,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LANG": "C.UTF-8"},
                cwd="/",
            )
        except OSError as error:
            raise RunnerUnavailableError(f"{self._sudo}: {error.strerror}") from error


async def _heard(process: asyncio.subprocess.Process) -> str:
    """Return what the helper printed before it ended.

    It runs as an account that may do with it what it likes: stop it, or have it print for ever.
    """
    assert process.stdout is not None  # noqa: S101 - a pipe
    try:
        async with asyncio.timeout(CALL_SECONDS):
            try:
                said = await process.stdout.readexactly(MOST_HEARD)
            except asyncio.IncompleteReadError as all_of_it:
                said = all_of_it.partial
            await process.wait()
    except TimeoutError:
        with contextlib.suppress(OSError):  # sudo is root's, and this agent may not be
            process.kill()
        return f"no answer within {CALL_SECONDS:g} seconds"
    return said.decode(errors="replace").strip()


class _SudoWatch(ProcessWatch):
    """A hold on a process that only its own account may signal."""

    def __init__(
        self,
        identity: ProcessIdentity,
        on_end: Callable[[], None],
        runner: SudoRunner,
        account: str,
    ) -> None:
        super().__init__(identity, on_end)
        self._runner = runner
        self._account = account

    async def send(self, number: Signals) -> None:
        """Have the helper signal it."""
        words = (self.identity.pid, self.identity.start_ticks, int(number))
        await self._runner.ask(self._account, "signal", *map(str, words))
