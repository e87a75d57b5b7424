"""The hub's settings: the `[hub]` table of `carrel.toml`, or `CARREL_HUB__...`."""

import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from carrel_hub.auth.settings import AuthSettings
from carrel_hub.db.address import with_driver
from carrel_hub.errors import InvalidRequestError
from carrel_hub.groups.settings import GroupSettings
from carrel_hub.places import Places
from carrel_hub.rbac.roles import DEFAULT_SCOPES, USER, Role, RoleBook
from carrel_hub.rbac.settings import CustomScopeName, CustomScopeSettings, RoleSettings
from carrel_hub.services.settings import ServiceSettings as ServiceEntry
from carrel_hub.spawns.naming import good_server_name
from carrel_hub.spawns.profiles import JUPYTERHUB, ProfileSettings
from carrel_shared.addresses import TcpAddress, check_upstream_host, parse_address
from carrel_shared.fields import AddressText, BasePath, LogLevel, PeerName, ServiceKey
from carrel_shared.settings import ServiceSettings
from carrel_shared.wire.base import RunnerName

_DOMAIN_URL = re.compile(
    r"https?://(?![0-9.]+[:/])[a-z0-9-]+(\.[a-z0-9-]+)+(:[0-9]{1,5})?/.*", re.IGNORECASE
)


class PeerSettings(BaseModel):
    """A proxy or an agent: where it is called, and the keys of both directions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: PeerName = Field(description="Its name; unique.")
    url: AddressText = Field(description="Where its control API listens: unix:/path or host:port.")
    key: ServiceKey = Field(description="What the hub shows it.")
    caller_key: ServiceKey = Field(description="What it shows the hub.")


class HubSettings(ServiceSettings):
    """Every setting of the hub."""

    table: ClassVar[str] = "hub"
    model_config = SettingsConfigDict(env_prefix="CARREL_HUB__")

    base_url: BasePath = Field(
        default="/",
        description="Path of the whole installation below its address, a slash at both ends.",
    )
    public_url: str | None = Field(
        default=None,
        description="The address people use, such as https://hub.example.org/. Without it the hub"
        " goes by what its proxies forward.",
    )
    user_domains: bool = Field(
        default=False,
        description="Give every user a host of their own, one label below that of `public_url`, so"
        " that browsers keep people's servers apart. Needs a DNS entry and a certificate for all of"
        " them (*.hub.example.org).",
    )
    listen: AddressText = Field(
        description="Where proxies bring the public's requests: unix:/path or host:port. Forwarded"
        " headers are believed here, so nobody but proxies may reach it."
    )
    advertise: AddressText | None = Field(
        default=None,
        description="Where proxies reach `listen`, if that is another address, such as"
        " 10.0.0.5:8081 for a hub that listens on 0.0.0.0:8081. Each of several hubs has its own.",
    )
    internal_listen: AddressText = Field(
        description="Where agents, proxies and the console call the hub: unix:/path or host:port."
    )
    fleet_listen: AddressText | None = Field(
        default=None,
        description="Where hosts on other machines join and report, host:port; TLS under an"
        " authority of the hubs' own, which is in the database. Without it there are no other"
        " machines. See agents.md.",
    )
    state_dir: Path = Field(description="Where the hub keeps its database and signing key.")
    database_url: SecretStr | None = Field(
        default=None,
        description="The database: postgresql://USER:PASSWORD@HOST/NAME, or sqlite:////PATH."
        " Without it, SQLite in `state_dir`/hub.sqlite. See databases.md.",
    )
    signing_key: ServiceKey | None = Field(
        default=None,
        description="What cookies are signed by. Several hubs need the same. Without it, one that"
        " is made at the first start and kept in `state_dir`/cookie.key.",
    )
    former_signing_key: ServiceKey | None = Field(
        default=None,
        description="What `signing_key` was before it was changed, for one start: what the database"
        " holds sealed by it is sealed anew. See databases.md.",
    )
    proxies: list[PeerSettings] = Field(default=[], description="The proxies that get the routes.")
    agents: list[PeerSettings] = Field(default=[], description="The hosts that run servers.")
    console_key: ServiceKey | None = Field(
        default=None, description="What `carrel up` shows the hub; nobody else has it."
    )
    auth: AuthSettings = Field(default=AuthSettings(), description="Who may sign in, and how.")
    roles: list[RoleSettings] = Field(
        default=[], description="Roles, and who has them: `[[hub.roles]]`."
    )
    extra_user_scopes: list[str] = Field(
        default=[],
        description="What everybody may do beside what is their own, such as `shares!user`: added"
        " to the role `user` unless `roles` says what that one holds.",
    )
    custom_scopes: dict[CustomScopeName, CustomScopeSettings] = Field(
        default={},
        description="Scopes for the installation's own services, by name:"
        ' `[hub.custom_scopes."custom:NAME"]`.',
    )
    groups: dict[str, GroupSettings] = Field(
        default={},
        description="Groups that are there from the start, by name: `[hub.groups.NAME]`.",
    )
    services: list[ServiceEntry] = Field(
        default=[], description="Services that are there from the start: `[[hub.services]]`."
    )
    profiles: dict[str, ProfileSettings] = Field(
        default={},
        description="Kinds of servers, by name: `[hub.profiles.NAME]`. The one called `default` is"
        " started unless the options of a start name another as `profile`; without it that is"
        " JupyterLab.",
    )
    api_url: str | None = Field(
        default=None,
        pattern=r"^https?://",
        description="Where servers that know JupyterHub's API call it, without a slash at its end,"
        " such as http://127.0.0.1:8000/hub/api. Needed by profiles with `contract`"
        ' = "jupyterhub".',
    )
    default_url: str = Field(
        default="/lab", pattern=r"^/", description="Where a browser lands on its server."
    )
    landing_url: str | None = Field(
        default=None,
        pattern=r"^/([^/\\\s][^\\\s]*)?$",
        description="Where a browser goes from `/hub/` and after signing in, unless it wanted to be"
        " somewhere: a path with `base_url` in front, such as /hub/home; {username} in it is the"
        " user's name. Without it see `redirect_to_server`.",
    )
    redirect_to_server: bool = Field(
        default=True,
        description="Without `landing_url`, have people go to their server, or start it; else to"
        " their home page.",
    )
    shutdown_on_logout: bool = Field(
        default=False, description="Stop the servers of whoever signs out."
    )
    runner: RunnerName | None = Field(
        default=None, description="How servers are run; the agent chooses without it."
    )
    environment: dict[str, str] = Field(
        default={}, description="Variables every server gets. No secrets: its user can read them."
    )
    start_timeout_seconds: float = Field(
        default=60, gt=0, description="How long a server may take to answer."
    )
    slow_spawn_seconds: float = Field(
        default=10,
        ge=0,
        description="How long the REST API waits for a start before it answers 202.",
    )
    slow_stop_seconds: float = Field(
        default=10,
        ge=0,
        description="How long the REST API waits for a stop before it answers 202.",
    )
    token_expires_in_max_seconds: int = Field(
        default=0,
        ge=0,
        description="How long a token that somebody asks for may be good, and is if they do not"
        " say. 0 for no limit, and tokens without an end.",
    )
    oauth_require_pkce: bool = Field(
        default=False,
        description="Let nobody sign in to a service, or a server made for JupyterHub, without a"
        " PKCE challenge. What Carrel's proxy guards always needs one.",
    )
    default_server_name: str = Field(
        default="",
        description="Which of somebody's servers `/hub/user-redirect/` leads to, where there are"
        " named ones.",
    )
    allow_named_servers: bool = Field(
        default=False, description="Let people have servers beside their default one, by name."
    )
    named_server_limit: int = Field(
        default=0,
        ge=0,
        description="How many named servers somebody may have, running or not. 0 for no limit.",
    )
    active_server_limit: int = Field(
        default=0,
        ge=0,
        description="How many servers may run in all; more are refused. 0 for no limit.",
    )
    concurrent_spawn_limit: int = Field(
        default=100,
        ge=0,
        description="How many servers may be starting at once; more wait for their turn. 0 for no"
        " limit.",
    )
    spawn_queue_limit: int | None = Field(
        default=None,
        ge=0,
        description="How many starts may wait for their turn; more are refused for a while. 0 to"
        " have none wait, as with JupyterHub. Without it as many as there are.",
    )
    placement: Literal["spread", "pack"] = Field(
        default="spread",
        description="Which of several hosts with room gets a server, unless its owner was on one of"
        " them before: the one with the fewest servers for each core (`spread`), or the one with"
        " the most (`pack`).",
    )
    agent_silence_seconds: float = Field(
        default=35,
        gt=0,
        description="After this long without a report, an agent's servers are `unknown`.",
    )
    authenticate_prometheus: bool = Field(
        default=True,
        description="Give `/hub/metrics` only to those with the scope `read:metrics`.",
    )
    metrics_prefix: str = Field(
        default="jupyterhub",
        pattern=r"^[a-zA-Z_][a-zA-Z0-9_]*$",
        description="What the names of JupyterHub's metrics begin with.",
    )
    history_days: int = Field(
        default=90,
        ge=1,
        description="How long the history of servers and the audit trail are kept.",
    )
    drain_seconds: float | None = Field(
        default=None,
        ge=0,
        description="How long this hub goes on after SIGTERM while it tells the proxies to ask"
        " another one. More than a proxy's `upstream_idle_seconds`, so that no request is lost."
        " Without it 5, or 0 with SQLite, where there is no other hub.",
    )
    log_level: LogLevel = Field(default="info", description="What is logged.")
    log_json: bool = Field(default=False, description="Log JSON lines instead of text.")

    @model_validator(mode="after")
    def _has_domains_for_users(self) -> "HubSettings":
        if self.user_domains and not _DOMAIN_URL.fullmatch(self.public_url or ""):
            raise ValueError(
                "user_domains needs public_url, with a name that users' hosts can be below, such as"
                " https://hub.example.org/"
            )
        return self

    @field_validator("default_server_name")
    @classmethod
    def _can_name_a_server(cls, value: str) -> str:
        try:
            return good_server_name(value) if value else ""
        except InvalidRequestError as error:
            raise ValueError(error.message) from error

    @model_validator(mode="after")
    def _lands_somewhere(self) -> "HubSettings":
        rootward = (self.base_url, self.hub_prefix, self.hub_prefix.rstrip("/"))
        if self.landing_url is not None and self.landing_url.partition("?")[0] in rootward:
            raise ValueError(f"landing_url: {self.landing_url} leads to itself")
        return self

    @property
    def places(self) -> Places:
        """Where browsers find what."""
        if not self.user_domains or self.public_url is None:
            return Places(self.base_url)
        parts = urlsplit(self.public_url.lower())
        usual = {"http": 80, "https": 443}[parts.scheme]  # browsers leave it out of an origin
        port = f":{parts.port}" if parts.port not in (None, usual) else ""
        api_host = urlsplit(self.api_url or "").hostname or ""
        return Places(
            self.base_url,
            f"{parts.scheme}://{parts.hostname}{port}",
            api_host if api_host != parts.hostname and ":" not in api_host else "",
        )

    @property
    def hub_prefix(self) -> str:
        """The hub's own path: `{base}hub/`."""
        return f"{self.base_url}hub/"

    @field_validator("advertise")
    @classmethod
    def _can_be_reached(cls, value: str | None) -> str | None:
        address = parse_address(value) if value is not None else None
        if isinstance(address, TcpAddress):
            check_upstream_host(address)
        return value

    @field_validator("database_url")
    @classmethod
    def _names_a_driver(cls, value: SecretStr | None) -> SecretStr | None:
        return None if value is None else SecretStr(with_driver(value.get_secret_value()))

    @property
    def effective_database_url(self) -> str:
        if self.database_url is not None:
            return self.database_url.get_secret_value()
        return f"sqlite:///{self.state_dir / 'hub.sqlite'}"

    @property
    def effective_drain_seconds(self) -> float:
        if self.drain_seconds is not None:
            return self.drain_seconds
        return 0.0 if self.effective_database_url.startswith("sqlite") else 5.0

    @cached_property
    def role_book(self) -> RoleBook:
        """Every role, those that are always there included."""
        roles = [role.as_role() for role in self.roles]
        if all(role.name != USER for role in roles):
            roles.append(Role(USER, (*DEFAULT_SCOPES[USER], *self.extra_user_scopes)))
        custom = {name: scope.as_scope() for name, scope in self.custom_scopes.items()}
        return RoleBook(roles, custom)

    @model_validator(mode="after")
    def _scopes_exist(self) -> Self:
        book, places = self.role_book, [("extra_user_scopes", self.extra_user_scopes)]
        places += [(f"role {role.name!r}", role.scopes) for role in self.roles]
        places += [(f"custom scope {n!r}", one.subscopes) for n, one in self.custom_scopes.items()]
        places += [
            (f"service {entry.name!r}", entry.oauth_client_allowed_scopes)
            for entry in self.services
        ]
        for place, scopes in places:
            for text in scopes:
                if not book.knows(text):
                    raise ValueError(f"{place}: there is no scope {text!r}")
        return self

    @model_validator(mode="after")
    def _named_things_exist(self) -> Self:
        services = [entry.name for entry in self.services]
        for kind, names in (("services", services), ("roles", [role.name for role in self.roles])):
            if twice := {name for name in names if names.count(name) > 1}:
                raise ValueError(f"{kind}: {min(twice)!r} is there twice")
        for role in self.roles:
            if unknown := set(role.services) - set(services):
                raise ValueError(f"role {role.name!r}: there is no service {min(unknown)!r}")
        tokens = [entry.api_token.get_secret_value() for entry in self.services if entry.api_token]
        if len(tokens) != len(set(tokens)):
            raise ValueError("services: two have the same api_token")
        if self.api_url is None and any(
            profile.contract == JUPYTERHUB for profile in self.profiles.values()
        ):
            raise ValueError("a profile with contract = 'jupyterhub' needs api_url")
        hosts = [peer.name for peer in self.agents]
        for entry in self.services:
            if entry.command is None:
                continue
            if self.api_url is None:
                raise ValueError(f"services: {entry.name!r} has a command, so api_url is needed")
            if entry.host is None and not hosts:
                raise ValueError(f"services: no agent runs {entry.name!r}: say its `host`")
            if entry.host is not None and entry.host not in hosts and self.fleet_listen is None:
                raise ValueError(
                    f"services: no agent runs {entry.name!r}: {entry.host} is not among the agents,"
                    " and without fleet_listen no host can join"
                )
        return self
