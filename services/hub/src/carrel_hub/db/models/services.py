"""Services: programs beside the hub that act with rights of their own, or sign people in by it."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Service(SQLModel, table=True):
    """One service.

    Attributes:
        admin: It has every right of an administrator.
        from_settings: The settings name it; it goes when they no longer do.
        url: Where it listens; proxied at `{base}services/NAME/`. None when nothing is.
        host: The host that joined whose relay leads to it; empty where proxies reach `url` itself.
        command: What it is run by, for those who ask; empty for one that is run elsewhere.
        info: What its operator wants to be known of it.
        display: It is shown in the navigation, to those who may open it.
        client_id: Its OAuth client; None when people do not sign in to it.
        secret_hash: SHA-256 (hex) of the client's secret, which is the service's API token.
        redirect_uri: The one address that answers go to.
        allowed_scopes: What its client may ask for beside knowing who somebody is.
        no_confirm: Nobody is asked whether it may know who they are.
    """

    __tablename__ = "services"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, index=True, max_length=255)
    admin: bool = False
    from_settings: bool = False
    url: str | None = None
    host: str = Field(default="", max_length=255)
    command: list[str] = Field(default_factory=list, sa_type=JSON)
    info: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    display: bool = True
    client_id: str | None = Field(default=None, unique=True, index=True, max_length=255)
    secret_hash: str = Field(default="", repr=False, max_length=64)
    redirect_uri: str | None = None
    allowed_scopes: list[str] = Field(default_factory=list, sa_type=JSON)
    no_confirm: bool = False
    created: datetime = Field(sa_type=UtcDateTime)


class ServiceRun(SQLModel, table=True):
    """The process of a managed service: what is wanted, what is known.

    Attributes:
        id: Random, 12 hex digits: what agents call it.
        service: Its service's name. The row outlives the service until nothing runs.
        wanted: What it is to be started with, as a fingerprint of its settings; empty when it is
            to end.
        fingerprint: What it was started with last.
        state: What is known (`carrel_hub.services.runs.RunState`).
        generation: Counts starts. Reports of a lower one are stale.
        attempts: How often it ended soon after its start, one time after the other.
        next_attempt_at: When to take the next step.
        failure: The last `ExitReport` as JSON, until it is ready again.
    """

    __tablename__ = "service_runs"

    id: str = Field(primary_key=True, max_length=12)
    service: str = Field(unique=True, index=True, max_length=255)
    host: str = Field(max_length=255)
    wanted: str = Field(default="", max_length=64)
    fingerprint: str = Field(default="", max_length=64)
    state: str = Field(default="stopped", max_length=16)
    generation: int = 0
    pid: int = 0
    attempts: int = 0
    next_attempt_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    started_at: datetime | None = Field(default=None, sa_type=UtcDateTime)
    failure: dict[str, Any] | None = Field(default=None, sa_type=JSON)
