"""Groups of users."""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON
from sqlmodel import Field, SQLModel

from carrel_hub.db.types import UtcDateTime


class Group(SQLModel, table=True):
    """Users who are named together, in scopes such as `list:users!group=NAME`.

    Attributes:
        properties: Whatever those who manage it want to keep with it.
    """

    __tablename__ = "groups"

    id: int | None = Field(default=None, primary_key=True)
    name: str = Field(unique=True, index=True, max_length=255)
    properties: dict[str, Any] = Field(default_factory=dict, sa_type=JSON)
    created: datetime = Field(sa_type=UtcDateTime)


class UserGroup(SQLModel, table=True):
    """That a user is in a group."""

    __tablename__ = "user_groups"

    group_id: int = Field(foreign_key="groups.id", primary_key=True, ondelete="CASCADE")
    user_id: int = Field(foreign_key="users.id", primary_key=True, index=True, ondelete="CASCADE")
