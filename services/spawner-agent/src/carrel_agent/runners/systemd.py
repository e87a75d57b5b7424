"""The systemd runner: each server is a transient service of the system's manager.

systemd is the parent, keeps the exit status until it has been read, holds the processes together
and enforces the limits. The service's program is `process/received.py`, which gets everything that
is a secret over a socket, so that the properties, which everybody may read, hold none.
"""

import asyncio
import hashlib
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

from carrel_agent.cgroups.group import Group
from carrel_agent.cgroups.mounts import Mount, read_mounts
from carrel_agent.errors import LimitUnenforceableError, SetupError
from carrel_agent.keeper.client import ProcessExit
from carrel_agent.runners.base import (
    Launch,
    Launched,
    LaunchUnclearError,
    RunnerContext,
    RunnerUnavailableError,
)
from carrel_agent.runners.handover import Handover, receiver_command
from carrel_agent.runners.processes import ProcessRunner
from carrel_agent.runners.system_bus import Property, SystemdError, SystemdManager
from carrel_agent.supervise.confinement import group_of, refuse_below_use, usage_of
from carrel_agent.supervise.process_tree import Tree, kill_tree
from carrel_agent.supervise.record import Record
from carrel_shared.wire.limits import Limits

log = structlog.get_logger(__name__)

NO_LIMIT = 2**64 - 1
ACCOUNTED = ("Memory", "CPU", "Tasks")
EXITED = 1
"""CLD_EXITED, as ExecMainCode has it."""
OPTIONS = frozenset({"slice", "properties"})


class SystemdRunner(ProcessRunner):
    """Runs servers as transient services.

    Options: `slice` (`carrel.slice`), and `properties`, a table of further properties of the
    services (systemd.resource-control(5), systemd.exec(5)), whose values are texts, numbers,
    booleans, or lists of texts.
    """

    name = "systemd"
    wants_session = False
    """A service's property `PAMName` is systemd's way."""

    def __init__(self, context: RunnerContext) -> None:
        super().__init__(context)
        if unknown := set(context.options) - OPTIONS:
            raise SetupError(f"runner_options.systemd: unknown option {min(unknown)!r}")
        if os.geteuid() != 0:
            raise SetupError("the systemd runner needs an agent that runs as root")
        if shutil.which("systemctl") is None:
            raise SetupError("the systemd runner needs systemd, and there is none on this host")
        self._slice = str(context.options.get("slice", "carrel.slice")).removesuffix(".slice")
        self._more = [
            (name, _variant(value))
            for name, value in dict(context.options.get("properties", {})).items()
        ]
        self._tag = hashlib.sha256(os.fsencode(context.state_dir)).hexdigest()[:8]
        self._systemd = SystemdManager()

    def unit(self, server_id: str) -> str:
        """Return what a server's service is called; other agents of this host have other names."""
        return f"carrel-{self._tag}-{server_id}.service"

    def slice(self, server_id: str) -> str:
        """Return the slice that a server's service is alone in, and that has its limits.

        A service's own control group goes as soon as nothing runs in it, and with it what the
        kernel counted there; its slice's stays until it is stopped.
        """
        return f"{self._slice}-{self._tag}-{server_id}.slice"

    def refusal(self, limits: Limits) -> str | None:
        """Nothing: whether systemd enforces them is seen once the service is there."""
        return None

    def group(self, server_id: str) -> Group | None:
        """None: systemd makes the control group, and puts the process into it."""
        return None

    async def prepare(self, record: Record) -> None:
        """Stop what is left of an earlier start."""
        try:
            await self._stop(record.server_id)
        except SystemdError as error:
            raise RunnerUnavailableError(str(error)) from error

    async def launch(self, launch: Launch) -> Launched:
        """Start a service, see its limits in force, and hand the server over to it."""
        unit = self.unit(launch.spec.server_id)
        with Handover() as handover:
            try:
                limits = (self.slice(launch.spec.server_id), _limit_properties(launch.limits))
                await self._systemd.start(unit, self._properties(launch, handover), [limits])
            except SystemdError as error:
                raise RunnerUnavailableError(f"systemd refused: {error}") from error
            try:
                launched = await handover.hear()
                group = _group_of(launched.pid, unit, self.slice(launch.spec.server_id))
                if (missing := group.cannot(launch.limits)) and not launch.limits.advisory:
                    raise RunnerUnavailableError(
                        f"systemd does not enforce the limits of {', '.join(missing)} on this host"
                    )
                handover.give(launch)
            except RunnerUnavailableError:
                await self._give_up(launch.spec.server_id)
                raise
        return Launched(launched.pid, launched.start_ticks, group.place)

    async def _stop(self, server_id: str) -> None:
        await self._systemd.stop(self.unit(server_id))
        await self._systemd.stop(self.slice(server_id))

    async def _give_up(self, server_id: str) -> None:
        try:
            await self._stop(server_id)
        except SystemdError as error:
            raise LaunchUnclearError(str(error)) from error

    def _properties(self, launch: Launch, handover: Handover) -> list[Property]:
        program, *arguments = receiver_command()
        return [
            ("Description", ("s", f"Carrel server {launch.spec.server_id}")),
            ("ExecStart", ("a(sasb)", [(program, [program, *arguments], False)])),
            ("StandardInputFileDescriptor", ("h", handover.theirs)),
            ("StandardOutputFileDescriptor", ("h", launch.log)),
            ("StandardErrorFileDescriptor", ("h", launch.log)),
            # Ended or not, it stays until the agent has read how.
            ("RemainAfterExit", ("b", True)),
            # One process that is killed for memory does not end the others.
            ("OOMPolicy", ("s", "continue")),
            ("Slice", ("s", self.slice(launch.spec.server_id))),
            *((f"{kind}Accounting", ("b", False)) for kind in ACCOUNTED),
            *self._more,
        ]

    async def adopt(self, record: Record) -> None:
        """Nothing: systemd keeps track."""

    async def end(self, record: Record, tree: Callable[[], Tree]) -> int:
        """Kill what is left in the service's control group."""
        group = group_of(record)
        if group is None:  # found again without its record
            return await kill_tree(tree)
        return await asyncio.to_thread(group.kill)

    async def exit_of(self, record: Record) -> ProcessExit | None:
        """Ask systemd."""
        handle = record.handle
        try:
            found = await self._systemd.service(self.unit(record.server_id))
        except SystemdError as error:
            log.warning("exit_not_known", server_id=record.server_id, reason=str(error))
            return None
        if handle is None or found is None or found["ExecMainPID"] != handle.pid:
            return None
        code, status = int(found["ExecMainCode"]), int(found["ExecMainStatus"])
        if not code:
            return None
        return ProcessExit(
            pid=handle.pid,
            start_ticks=handle.start_ticks,
            code=status if code == EXITED else None,
            signal=None if code == EXITED else status,
            at=found["ExecMainExitTimestamp"] / 1e6,
        )

    async def forget(self, record: Record) -> None:
        """Stop the service, in which nothing runs any more."""
        try:
            await self._stop(record.server_id)
        except SystemdError as error:
            log.warning("unit_not_stopped", server_id=record.server_id, reason=str(error))

    async def change_limits(self, record: Record, limits: Limits) -> None:
        """Have systemd change them."""
        group = group_of(record)
        refuse_below_use(usage_of(record, group), limits)
        if limits.open_files != record.limits.open_files:
            raise LimitUnenforceableError(
                "open_files: systemd does not change it while a server runs; start it anew"
            )
        if group is not None and (missing := group.cannot(limits)) and not limits.advisory:
            raise LimitUnenforceableError(
                f"this server has no control group for {', '.join(missing)}; start it anew"
            )
        try:
            await self._systemd.set_properties(
                self.slice(record.server_id), _limit_properties(limits)
            )
        except SystemdError as error:
            raise LimitUnenforceableError(f"systemd refused: {error}") from error


def _limit_properties(limits: Limits) -> list[Property]:
    cores = limits.cpu_cores
    return [
        ("MemoryMax", ("t", limits.memory_bytes or NO_LIMIT)),
        ("MemorySwapMax", ("t", NO_LIMIT if limits.memory_bytes is None else 0)),
        ("CPUQuotaPerSecUSec", ("t", NO_LIMIT if cores is None else round(cores * 1e6))),
        ("TasksMax", ("t", limits.processes or NO_LIMIT)),
        *((f"{kind}Accounting", ("b", True)) for kind in ACCOUNTED),
    ]


def _variant(value: Any) -> tuple[str, Any]:
    if isinstance(value, bool):
        return "b", value
    if isinstance(value, int):
        return "t", value
    if isinstance(value, str):
        return "s", value
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return "as", value
    raise SetupError(f"runner_options.systemd.properties: {value!r} is of no kind that is known")


def _group_of(pid: int, unit: str, slice_: str) -> Group:
    """Return the control group of a service: its own for its processes, its slice's for limits."""
    own = Path(f"/proc/{pid}/cgroup").read_text(encoding="utf-8")
    unified: Path | None = None
    controllers: dict[str, tuple[Path, int]] = {}
    for mount in read_mounts():
        place = mount.point / _place(mount, own)
        limited = place.parent if place.name == unit else place
        if mount.version == 2 and place.name == unit:
            unified = place
        if limited.name != slice_:
            continue
        if mount.version == 1:
            controllers |= dict.fromkeys(mount.controllers, (limited, 1))
        else:
            offered = (limited / "cgroup.controllers").read_text(encoding="ascii").split()
            controllers |= dict.fromkeys({"memory", "cpu", "pids"} & set(offered), (limited, 2))
    return Group(unified, controllers)


def _place(mount: Mount, own: str) -> str:
    """Return a process's group in one hierarchy, below where that is mounted."""
    for line in own.splitlines():
        _number, names, path = line.split(":", 2)
        if (mount.version == 2 and not names) or mount.controllers & set(names.split(",")):
            return path.strip("/")
    return ""
