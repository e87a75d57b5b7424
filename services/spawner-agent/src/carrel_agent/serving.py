"""The agent's life: put the parts together, take up what was left, serve until told to stop."""

import asyncio
import fcntl
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path

import structlog

from carrel_agent.app import create_app
from carrel_agent.cgroups.host import open_control_groups
from carrel_agent.errors import SetupError
from carrel_agent.fleet.connections import (
    check_credentials,
    hub_client,
    relay_client,
    renewal_of,
)
from carrel_agent.keeper.client import KeeperClient, inherited_socket
from carrel_agent.runners.choice import open_runners
from carrel_agent.settings import AgentSettings
from carrel_agent.supervise.accounts import Accounts, UnixAccounts, account_name, group_id
from carrel_agent.supervise.capacity import home_source
from carrel_agent.supervise.journal import Journal
from carrel_agent.supervise.logs import ServerLogs
from carrel_agent.supervise.reporting import HostFacts, Reporter
from carrel_agent.supervise.scratch import ScratchHomes, usual_place
from carrel_agent.supervise.service_accounts import WithServices
from carrel_agent.supervise.shared_account import SharedAccount
from carrel_agent.supervise.sockets import SocketDirectories
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.addresses import UnixAddress, bind_address, parse_address
from carrel_shared.clock import SystemClock
from carrel_shared.fleet import RenewedContext, listener_options
from carrel_shared.serving import Listener, serve
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

LOCK_SECONDS = 5.0
GRACEFUL_SECONDS = 2


class AlreadyRunningError(Exception):
    """Another agent has this state directory."""


async def run(settings: AgentSettings, environ: Mapping[str, str]) -> None:
    """Run the agent until SIGTERM, or until its keeper is gone.

    Raises:
        NoKeeperError: If no keeper started it.
        AlreadyRunningError: If another agent has its state.
        AddressError: If it cannot listen.
        SetupError: If a setting turns out to be wrong on this host.
        OSError: If a directory cannot be used.
    """
    check_credentials(settings)
    end = inherited_socket(environ)
    group = group_id(settings.socket_group)
    os.umask(0o077)
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = await _lock(settings.state_dir / "agent.lock")
    accounts = WithServices(
        await _accounts(settings),
        shared=_shared_account(settings),
        connecting=group,
        own_uid=os.geteuid(),
    )
    clock = SystemClock()
    groups = open_control_groups(settings.state_dir)
    keeper = KeeperClient(end, on_lost=_keeper_lost)
    supervisor = Supervisor(
        keeper=keeper,
        journal=Journal(settings.state_dir / "servers"),
        sockets=SocketDirectories(settings.run_dir, group=group),
        logs=ServerLogs(settings.state_dir / "logs"),
        runners=open_runners(settings, keeper, clock, groups),
        default_runners=settings.default_runners,
        clock=clock,
        python=settings.python or sys.executable,
        lang=environ.get("LANG", "C.UTF-8"),
        accounts=accounts,
        groups=groups,
        scratch=ScratchHomes(
            settings.scratch_dir or usual_place(), clock=clock, keep_days=settings.scratch_days
        ),
        pam_service=settings.pam_service if os.geteuid() == 0 else "",
        stop_times=(settings.interrupt_seconds, settings.terminate_seconds),
    )
    tasks = TaskOwner()
    renewed = RenewedContext(settings.fleet) if settings.fleet is not None else None
    async with hub_client(settings) as hub, relay_client(settings) as relay:
        reporter = Reporter(
            supervisor,
            facts=HostFacts(
                name=settings.name,
                accounts=accounts.reported,
                state_dir=settings.state_dir,
                labels=settings.labels,
                homes=home_source() if settings.homes is None else settings.homes,
            ),
            hub=hub,
            key=settings.hub_key.get_secret_value(),
            relay=relay,
        )
        app = create_app(
            supervisor,
            reporter,
            hub_key=settings.key.get_secret_value(),
            on_network=renewed is not None,
        )
        address = parse_address(settings.listen)
        listener = bind_address(address)
        if isinstance(address, UnixAddress):
            _open_to_group(Path(address.path), group)
        await supervisor.recover()
        tasks.start(reporter.run(), name="reporter")
        if renewed is not None:
            tasks.start(renewal_of(settings, hub, renewed, group).run(), name="certificate")
        try:
            await serve(
                [Listener(app, [listener], listener_options(renewed) if renewed else {})],
                on_started=lambda: log.info("agent_ready", listen=str(address)),
                graceful_seconds=GRACEFUL_SECONDS,
            )
        finally:
            await tasks.close()
            await supervisor.close()
            keeper.close()
            os.close(lock)
    log.info("agent_ended")


async def _accounts(settings: AgentSettings) -> Accounts:
    if settings.accounts == "unix":
        return UnixAccounts(settings.min_uid, any_account=settings.starts_as_others)
    name = _shared_account(settings)
    if name is None:
        raise SetupError("shared_account: root runs no servers, so another account is needed")
    return await SharedAccount.open(name, settings.shared_homes or "", min_uid=settings.min_uid)


def _shared_account(settings: AgentSettings) -> str | None:
    """Return the account that everybody's servers run as, where one is asked for."""
    if settings.accounts == "unix":
        return None
    own = None if os.geteuid() == 0 else account_name(os.geteuid())
    return settings.shared_account or own


def _keeper_lost() -> None:
    # Without its keeper the agent cannot tell how servers end; the next keeper starts a new agent.
    log.error("keeper_lost", advice="the agent ends; servers go on")
    signal.raise_signal(signal.SIGTERM)


def _open_to_group(path: Path, group: int | None) -> None:
    if group is not None and os.geteuid() == 0:
        os.chown(path, 0, group)
        path.chmod(0o660)


async def _lock(path: Path) -> int:
    """Take the state directory, giving an agent that is just ending a moment.

    Raises:
        AlreadyRunningError: If it is still taken then.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    for _ in range(int(LOCK_SECONDS / 0.05)):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            await asyncio.sleep(0.05)
        else:
            return descriptor
    os.close(descriptor)
    raise AlreadyRunningError(f"another agent runs on {path.parent}")
