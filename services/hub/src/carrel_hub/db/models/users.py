"""People."""

from datetime import datetime

from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class User(SQLModel, table=True):
    """Somebody who may sign in.

    Attributes:
        name: Normalised, unique; may change.
        account: The unix account the user's servers run as; None for a hub-only administrator.
        console: Let in because the person at the console of `carrel up` said so.
        disabled: Refused everywhere, whatever rules say.
    """

    __tablename__ = "users"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, index=True, max_length=255)
    admin: bool = False
    account: str | None = Field(default=None, max_length=255)
    console: bool = False
    disabled: bool = False
    created: datetime = Field(sa_type=UtcDateTime)
    last_activity: datetime | None = Field(default=None, sa_type=UtcDateTime, index=True)
