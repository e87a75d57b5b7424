"""The authority under which hosts on other machines are known."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime

THE_ONE = 1


class FleetAuthority(SQLModel, table=True):
    """The one authority of all hubs on this database; no row before the first is needed.

    Attributes:
        certificate: PEM.
        sealed: Its keys, which nobody can read without the hubs' signing key (`hosts.sealing`).
    """

    __tablename__ = "fleet_authority"

    id: int = Field(default=THE_ONE, primary_key=True)
    certificate: str
    sealed: str
    created: datetime = Field(sa_type=UtcDateTime)
