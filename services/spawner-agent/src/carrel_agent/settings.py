"""The agent's settings: the `[agent]` table of `carrel.toml`, or `CARREL_AGENT__...`."""

import os
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from carrel_shared.addresses import MAX_UNIX_PATH, TcpAddress, parse_addresses
from carrel_shared.fields import AddressesText, AddressText, LogLevel, PeerName, ServiceKey
from carrel_shared.fleet import FleetFiles
from carrel_shared.settings import ServiceSettings
from carrel_shared.wire.base import RunnerName
from carrel_shared.wire.hosts import Labels

_LONGEST_SOCKET = "s/0123456789ab/http.sock"


class AgentSettings(ServiceSettings):
    """Every setting of the agent."""

    table: ClassVar[str] = "agent"
    model_config = SettingsConfigDict(env_prefix="CARREL_AGENT__")

    name: PeerName = Field(
        default="local",
        description="This host's name, as the hub's settings give it.",
    )
    listen: AddressText = Field(
        description="Where the hub calls the agent: unix:/path or host:port."
    )
    key: ServiceKey = Field(description="What the hub shows the agent.")
    hub_url: AddressesText = Field(
        description="The hub's `internal_listen`, where the agent reports: unix:/path or host:port;"
        " of several hubs all of them, with commas between."
    )
    hub_key: ServiceKey = Field(description="What the agent shows the hub.")
    fleet_ca: Path | None = Field(
        default=None,
        description="PEM file with the hub's authority, on another machine than the hub: then"
        " `listen` and `hub_url` are host:port and speak TLS. The three fleet files belong"
        " together; `carrel-agent join` writes them and the agent renews them.",
    )
    fleet_cert: Path | None = Field(
        default=None,
        description="PEM file with this host's certificate, which says URI:carrel://host/NAME.",
    )
    fleet_key: Path | None = Field(
        default=None, description="PEM file with the key of fleet_cert; it may be the same file."
    )
    relay: AddressText | None = Field(
        default=None,
        description="Where this host's relay is told its routes, its `control_listen`. A host on"
        " another machine than the proxies needs one.",
    )
    relay_key: ServiceKey | None = Field(
        default=None, description="What the agent shows the relay, its `control_key`."
    )
    labels: Labels = Field(
        default={},
        description='What profiles may ask of a host, such as zone = "a": the hub places servers'
        " by it.",
    )
    homes: str | None = Field(
        default=None,
        max_length=255,
        description="What people's homes lie on, by a name of your choice, where several hosts have"
        " the same ones: the hub then sees to it that everybody is the same uid on all of them."
        " Without it the source of /home, where that is a network file system.",
    )
    state_dir: Path = Field(
        description="Where the agent keeps its journal, and the keeper exits and servers' output."
    )
    run_dir: Path = Field(
        description="Servers' sockets are made below it, in s/SERVER_ID. A short path: a socket's"
        " may have 107 bytes."
    )
    socket_group: str | None = Field(
        default=None,
        description="The group of hub and proxy, which may connect to the agent and to the servers."
        " Without it only the agent's own account may.",
    )
    python: str = Field(
        default="",
        description="The Python whose JupyterLab is run, an absolute path; empty for the agent's"
        " own. It needs carrel-agent installed.",
    )
    min_uid: int = Field(
        default=1000,
        gt=0,
        description="Accounts with a lower uid are the system's and never run servers.",
    )
    accounts: Literal["unix", "shared-insecure"] = Field(
        default="unix",
        description="Whose account servers run as: `unix`, their users'; `shared-insecure`, one for"
        " all, for workshops and tests: whoever has a server then can read what the others have.",
    )
    shared_account: str | None = Field(
        default=None,
        description="With `shared-insecure`, the unix account of all servers; never root. Without"
        " it the agent's own, unless that is root.",
    )
    shared_homes: str | None = Field(
        default=None,
        description="With `shared-insecure`, an absolute path with {username} in its last part,"
        " where each name has its home folder.",
    )
    preload: list[Annotated[str, Field(pattern=r"^[A-Za-z_][\w.]*$")]] = Field(
        default=[],
        description="Modules that forked servers are to find imported, beside those of JupyterLab"
        " itself: what server extensions use. One that starts threads is left out.",
    )
    trusted_owners: list[str] = Field(
        default=[],
        description="Accounts, beside root and the agent's own, that may be able to change the"
        " Python environment that JupyterLab is forked from. Whoever can change it can be root and"
        " every user, so with others servers are executed instead, and the log says why.",
    )
    zygote_idle_seconds: float = Field(
        default=1800,
        gt=0,
        description="After this long without a start the preloaded JupyterLab is let go.",
    )
    pam_service: str = Field(
        default="",
        pattern=r"^[A-Za-z0-9._-]*$",
        description="The PAM service (a file in /etc/pam.d) that opens a session for each forked or"
        " executed server, and closes it afterwards; empty for none. Costs a small process each.",
    )
    scratch_dir: Path | None = Field(
        default=None,
        description="Where scratch homes are made, for people whose own home is full or missing: a"
        " directory of the agent's account that others cannot write, made if missing. Without it"
        " /var/tmp/carrel-scratch.",
    )
    scratch_days: float = Field(
        default=7, ge=0, description="How long one is kept once its server has ended."
    )
    default_runners: list[RunnerName] = Field(
        default=["fork", "exec"],
        min_length=1,
        description="What runs a server where its profile names no runner: each is tried in turn."
        " Commands of profiles are run by the last.",
    )
    runners: dict[RunnerName, str] = Field(
        default={},
        description='Runners of your own, by name: "module:Class" of a package that is installed'
        " beside the agent. Packages with an entry point need no mention.",
    )
    runner_options: dict[RunnerName, dict[str, Any]] = Field(
        default={}, description="Options of a runner, by its name: see docs/runners.md."
    )
    interrupt_seconds: float = Field(
        default=5,
        ge=0,
        description="How long a server that never answered is given to end after SIGINT.",
    )
    terminate_seconds: float = Field(
        default=3, ge=0, description="How long it is given after SIGTERM, before SIGKILL."
    )
    log_level: LogLevel = Field(default="info", description="What is logged.")
    log_json: bool = Field(default=False, description="Log JSON lines instead of text.")

    @field_validator("python")
    @classmethod
    def _executable(cls, value: str) -> str:
        if value and not (os.path.isabs(value) and os.access(value, os.X_OK)):  # noqa: PTH117
            raise ValueError(f"{value!r} is not the absolute path of a program")
        return value

    @property
    def starts_as_others(self) -> bool:
        """Whether servers may run as other accounts though the agent is not root."""
        return "sudo" in self.default_runners or "sudo" in self.runner_options

    @model_validator(mode="after")
    def _fleet_is_whole(self) -> Self:
        files = (self.fleet_ca, self.fleet_cert, self.fleet_key)
        if None in files and files != (None, None, None):
            raise ValueError("fleet_ca, fleet_cert and fleet_key belong together: set all or none")
        if (self.relay is None) != (self.relay_key is None):
            raise ValueError("relay and relay_key belong together: set both or none")
        for name in ("listen", "hub_url"):
            addresses = parse_addresses(getattr(self, name))
            if self.fleet_ca and not all(isinstance(one, TcpAddress) for one in addresses):
                raise ValueError(f"{name}: with the fleet files this is host:port")
        return self

    @property
    def fleet(self) -> FleetFiles | None:
        """This host's credentials; None where agent and hub share a machine."""
        if self.fleet_ca is None or self.fleet_cert is None or self.fleet_key is None:
            return None
        return FleetFiles(self.fleet_ca, self.fleet_cert, self.fleet_key)

    @model_validator(mode="after")
    def _shared_is_whole(self) -> Self:
        if self.accounts != "shared-insecure":
            return self
        homes = self.shared_homes or ""
        if not homes.startswith("/") or "{username}" not in homes.rpartition("/")[2]:
            raise ValueError("shared_homes must be an absolute path with {username} at its end")
        return self

    @field_validator("state_dir", "run_dir", "scratch_dir")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_absolute():
            raise ValueError("must be an absolute path")
        return value

    @field_validator("run_dir")
    @classmethod
    def _short(cls, value: Path) -> Path:
        if len(os.fsencode(value / _LONGEST_SOCKET)) > MAX_UNIX_PATH:
            room = MAX_UNIX_PATH - len(_LONGEST_SOCKET) - 1
            raise ValueError(f"may have {room} bytes, because sockets lie below it")
        return value
