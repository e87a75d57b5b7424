"""The hub's settings: the `[hub]` table of `carrel.toml`, or `CARREL_HUB__...`."""

from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator
from pydantic_settings import SettingsConfigDict

from carrel_shared.addresses import AddressError, parse_address
from carrel_shared.service_auth import EmptyKeyError, check_key
from carrel_shared.settings import ServiceSettings


class PeerSettings(BaseModel):
    """A proxy or an agent: where it is called, and the keys of both directions."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$", description="Its name; unique.")
    url: str = Field(description="Where its control API listens: unix:/path or host:port.")
    key: SecretStr = Field(description="What the hub shows it.")
    caller_key: SecretStr = Field(description="What it shows the hub.")

    @field_validator("url")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            parse_address(value)
        except AddressError as error:
            raise ValueError(str(error)) from error
        return value

    @model_validator(mode="after")
    def _keys_are_secrets(self) -> "PeerSettings":
        try:
            check_key(f"{self.name}.key", self.key.get_secret_value())
            check_key(f"{self.name}.caller_key", self.caller_key.get_secret_value())
        except EmptyKeyError as error:
            raise ValueError(str(error)) from error
        return self


class AuthSettings(BaseModel):
    """Who may sign in, and how. Nobody, until a rule here says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authenticator: Literal["pam", "none"] = Field(
        default="pam",
        description="How passwords are checked: `pam` asks carrel-pam, `none` refuses them all.",
    )
    pam_socket: str | None = Field(
        default=None, description="Where carrel-pam listens: unix:/path."
    )
    allowed_users: list[str] = Field(default=[], description="Names that may sign in.")
    allow_all: bool = Field(
        default=False,
        description="Let in everybody whose password is right.",
    )
    admin_users: list[str] = Field(
        default=[], description="Names that may sign in and are administrators."
    )
    session_days: float = Field(default=14, gt=0, description="How long a sign-in lasts.")
    max_failures: int = Field(
        default=10,
        gt=0,
        description="Failed sign-ins from one address, or for one name, before both must wait.",
    )
    failure_window_seconds: float = Field(
        default=300, gt=0, description="How long a failed sign-in counts."
    )


class HubSettings(ServiceSettings):
    """Every setting of the hub."""

    table: ClassVar[str] = "hub"
    model_config = SettingsConfigDict(env_prefix="CARREL_HUB__")

    base_url: str = Field(
        default="/",
        pattern=r"^/([A-Za-z0-9._~-]+/)*$",
        description="Path of the whole installation below its address, a slash at both ends.",
    )
    public_url: str | None = Field(
        default=None,
        description="The address people use, such as https://hub.example.org/. Without it the hub"
        " goes by what its proxies forward.",
    )
    listen: str = Field(
        description="Where proxies bring the public's requests: unix:/path or host:port. Forwarded"
        " headers are believed here, so nobody but proxies may reach it."
    )
    internal_listen: str = Field(
        description="Where agents, proxies and the console call the hub: unix:/path or host:port."
    )
    state_dir: Path = Field(description="Where the hub keeps its database and signing key.")
    database_url: str | None = Field(
        default=None,
        description="The database. Without it, SQLite in `state_dir`/hub.sqlite.",
    )
    proxies: list[PeerSettings] = Field(default=[], description="The proxies that get the routes.")
    agents: list[PeerSettings] = Field(default=[], description="The hosts that run servers.")
    console_key: SecretStr | None = Field(
        default=None, description="What `carrel up` shows the hub; nobody else has it."
    )
    auth: AuthSettings = Field(default=AuthSettings(), description="Who may sign in, and how.")
    default_url: str = Field(
        default="/lab", pattern=r"^/", description="Where a browser lands on its server."
    )
    runner: Literal["fork", "exec"] | None = Field(
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
        description="How long the REST API waits for a start or a stop before it answers 202.",
    )
    concurrent_spawn_limit: int = Field(
        default=100,
        ge=0,
        description="How many servers may be starting at once; more are refused for a while. 0 for"
        " no limit.",
    )
    agent_silence_seconds: float = Field(
        default=35,
        gt=0,
        description="After this long without a report, an agent's servers are `unknown`.",
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        default="info", description="What is logged."
    )
    log_json: bool = Field(default=False, description="Log JSON lines instead of text.")

    @field_validator("listen", "internal_listen")
    @classmethod
    def _readable(cls, value: str) -> str:
        try:
            parse_address(value)
        except AddressError as error:
            raise ValueError(str(error)) from error
        return value

    @property
    def hub_prefix(self) -> str:
        """The hub's own path: `{base}hub/`."""
        return f"{self.base_url}hub/"

    @property
    def effective_database_url(self) -> str:
        return self.database_url or f"sqlite+aiosqlite:///{self.state_dir / 'hub.sqlite'}"
