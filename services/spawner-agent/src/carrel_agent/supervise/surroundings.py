"""What every server needs of the agent it runs under."""

from collections.abc import Callable
from dataclasses import dataclass

from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.runners.base import Runner
from carrel_agent.supervise.journal import Journal
from carrel_agent.supervise.logs import ServerLogs
from carrel_agent.supervise.process_tree import Tree
from carrel_agent.supervise.record import Record
from carrel_agent.supervise.scratch import ScratchHomes
from carrel_agent.supervise.sockets import SocketDirectories
from carrel_shared.clock import Clock


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What servers share.

    Attributes:
        runners: By name.
        stop_times: How long SIGINT and SIGTERM are given where nobody asked for the stop.
        changed: Called after each change that the hub should hear of; with whether it should at
            once, since what its users wait for may depend on it.
        groups: Makes control groups.
        pam_service: Whose sessions servers get; empty for none.
        scratch: Homes for servers whose users' own cannot be used.
        tree: Which processes are a server's, as things stand; also whether its end was witnessed.
    """

    keeper: KeeperClient
    journal: Journal
    sockets: SocketDirectories
    logs: ServerLogs
    runners: dict[str, Runner]
    clock: Clock
    stop_times: tuple[float, float]
    changed: Callable[[bool], None]
    groups: ControlGroups
    pam_service: str
    scratch: ScratchHomes
    tree: Callable[[Record, bool], Tree]
