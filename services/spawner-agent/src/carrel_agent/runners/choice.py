"""Which runners this host has: those of the agent, of installed packages, and of its settings."""

from collections.abc import Callable
from importlib import import_module
from importlib.metadata import entry_points

from carrel_agent.cgroups.host import ControlGroups
from carrel_agent.errors import SetupError
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.runners.base import Runner, RunnerContext
from carrel_agent.settings import AgentSettings
from carrel_shared.clock import Clock

ENTRY_POINTS = "carrel_agent.runners"
BUILT_IN = {
    "fork": "carrel_agent.runners.fork:ForkRunner",
    "exec": "carrel_agent.runners.exec:ExecRunner",
    "systemd": "carrel_agent.runners.systemd:SystemdRunner",
    "sudo": "carrel_agent.runners.sudo:SudoRunner",
}
ALWAYS = ("fork", "exec")
"""Runners that need nothing but the agent. The others are made if the settings name them."""


def open_runners(
    settings: AgentSettings, keeper: KeeperClient, clock: Clock, groups: ControlGroups
) -> dict[str, Runner]:
    """Make the runners of this host.

    Raises:
        SetupError: If one that is named cannot be had.
    """
    installed = {entry.name: entry.value for entry in entry_points(group=ENTRY_POINTS)}
    asked = [*settings.default_runners, *settings.runner_options, *settings.runners]
    places = {**installed, **BUILT_IN, **settings.runners}
    made: dict[str, Runner] = {}
    for name in dict.fromkeys([*ALWAYS, *installed, *asked]):
        if name not in places:
            raise SetupError(f"there is no runner {name!r}; there are {', '.join(sorted(places))}")
        context = RunnerContext(
            keeper=keeper,
            clock=clock,
            groups=groups,
            state_dir=settings.state_dir,
            python=settings.python,
            zygote_idle_seconds=settings.zygote_idle_seconds,
            preload=tuple(settings.preload),
            trusted_owners=tuple(settings.trusted_owners),
            options=settings.runner_options.get(name, {}),
        )
        made[name] = _load(name, places[name])(context)
        made[name].name = name
    return made


def _load(name: str, place: str) -> Callable[[RunnerContext], Runner]:
    module, _, attribute = place.partition(":")
    try:
        found: Callable[[RunnerContext], Runner] = getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise SetupError(f"runner {name!r} ({place}) cannot be loaded: {error}") from error
    return found
