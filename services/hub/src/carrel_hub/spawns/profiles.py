"""Kinds of servers in the settings: `[hub.profiles.NAME]`."""

from collections.abc import Mapping
from typing import Any, Literal, Self
from urllib.parse import quote

from pydantic import BaseModel, ConfigDict, Field, model_validator

from carrel_hub.spawns.limits import GuaranteeSettings, LimitSettings
from carrel_hub.spawns.options import OptionName, OptionSettings
from carrel_shared.wire.base import ModuleName, RunnerName
from carrel_shared.wire.hosts import Labels

DEFAULT = "default"
PROFILE = "profile"
"""The option of a start that names the profile."""
SCRATCH_HOME = "scratch_home"
"""The option of every profile that asks for a scratch home, for one start."""
NO_OPTIONS = frozenset({PROFILE, SCRATCH_HOME, "next", "display_name", "home", "scratch"})
"""What forms and addresses say beside options."""
FORK = "fork"
"""The runner that runs JupyterLab only."""
CARREL, JUPYTERHUB = "carrel", "jupyterhub"
"""How a server knows its visitors: by the proxy's word, or by asking the hub itself."""


class ProfileSettings(BaseModel):
    """How one kind of server is run, and how it knows its visitors."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = Field(
        default=None, description="What people are shown it as; its name without."
    )
    description: str = Field(default="", description="What more people are told of it.")
    groups: list[str] = Field(
        default=[], description="Whose members may have such servers; everybody without any."
    )
    options: dict[OptionName, OptionSettings] = Field(
        default={},
        description="What people may choose of them, by name: `[hub.profiles.NAME.options.NAME]`."
        " Where there is something to choose, `/hub/spawn` asks for it.",
    )
    command: list[str] | None = Field(
        default=None, min_length=1, description="What is executed; JupyterLab without it."
    )
    environment: dict[str, str] = Field(
        default={}, description="Variables its servers get beside those that every server gets."
    )
    default_url: str | None = Field(
        default=None, pattern=r"^/", description="Where a browser lands on it."
    )
    directory: str = Field(
        default="",
        max_length=1000,
        pattern=r"^[^\x00\r\n]*$",
        description="Where its servers start, and JupyterLab shows files: a path below its user's"
        " home, or an absolute one; {username} in it is the user's name. Without it, and where it"
        " cannot be entered, the home.",
    )
    limits: LimitSettings = Field(
        default=LimitSettings(),
        description="The most each of its servers may use: memory, cpu, processes, open_files. A"
        " host that cannot enforce one of them starts none, unless `advisory = true` is with them.",
    )
    runner: RunnerName | None = Field(
        default=None,
        description="What runs its servers, of what their host offers: fork, exec, systemd, sudo,"
        " or a runner of the host's own. Without it the host chooses.",
    )
    preload: list[ModuleName] = Field(
        default=[],
        max_length=100,
        description="Python modules that its servers use and are to find imported, where they are"
        " forked and the host has them installed: server extensions, say.",
    )
    guarantee: GuaranteeSettings = Field(
        default=GuaranteeSettings(),
        description="What is kept free for each of its servers on the host it is placed on: memory,"
        " cpu.",
    )
    gpus: int = Field(
        default=0, ge=0, description="How many GPUs of a host each of its servers takes up."
    )
    labels: Labels = Field(
        default={}, description='Labels a host must have to run its servers, such as zone = "a".'
    )
    contract: Literal["carrel", "jupyterhub"] = Field(
        default="carrel",
        description="`carrel`: the proxy lets in only who may, and the server listens on the socket"
        " it is given. `jupyterhub`: the command is made for JupyterHub, as jupyterhub-singleuser"
        " is: it gets JupyterHub's variables with a token, listens on the port that"
        " JUPYTERHUB_SERVICE_URL names, and checks its visitors itself.",
    )

    csrf: Literal["origin", "app"] = Field(
        default="origin",
        description="Who refuses what pages of other origins make the browsers of people who are"
        " signed in send to it. `origin`: the proxy, all of it. `app`: the application alone, for"
        " those that know other origins they trust (Jupyter's `allow_origin`).",
    )

    @model_validator(mode="after")
    def _has_a_command(self) -> Self:
        if self.contract == JUPYTERHUB and self.command is None:
            raise ValueError("contract = 'jupyterhub' needs a command")
        if taken := self.options.keys() & NO_OPTIONS:
            raise ValueError(f"options: none can be called {min(taken)!r}")
        variables = [one.variable_of(name) for name, one in self.options.items()]
        if len(variables) != len(set(variables)):
            raise ValueError("options: two are given to the server in the same variable")
        return self


PLAIN = ProfileSettings(title="JupyterLab")


def preloaded(profiles: Mapping[str, ProfileSettings], labels: Labels) -> list[str]:
    """Return the modules that a host with these labels should have ready. Pure."""
    found = [
        name
        for profile in profiles.values()
        if profile.command is None and profile.labels.items() <= labels.items()
        for name in profile.preload
    ]
    return list(dict.fromkeys(found))


def default_runner(runner: str | None, profile: ProfileSettings) -> str | None:
    """Return the runner of the settings, unless it cannot run what the profile says. Pure."""
    return None if profile.command and runner == FORK else runner


def directory_of(profile: ProfileSettings, user: str) -> str:
    """Return where a user's server of a profile starts; empty for their home. Pure."""
    return profile.directory.replace("{username}", quote(user, safe="@ +"))


def wants_scratch_home(options: dict[str, Any]) -> bool:
    """Whether the options of a start ask for a scratch home. Pure."""
    wanted = options.get(SCRATCH_HOME)
    if isinstance(wanted, list) and len(wanted) == 1:  # as forms and addresses give it
        [wanted] = wanted
    return wanted is True or wanted in ("1", "true", "on", "yes")


def with_scratch_home(options: dict[str, Any], wanted: bool) -> dict[str, Any]:
    """Return the options of a start with a scratch home, or with its home as it is. Pure."""
    others = {name: value for name, value in options.items() if name != SCRATCH_HOME}
    return {**others, SCRATCH_HOME: True} if wanted else others
