"""Roles and custom scopes in the settings: `[[hub.roles]]`, `[hub.custom_scopes]`."""

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator

from carrel_hub.groups.settings import UserName
from carrel_hub.rbac.custom import CustomScope, is_custom_name
from carrel_hub.rbac.roles import ADMIN, Role
from carrel_hub.rbac.scopes import is_scope


class RoleSettings(BaseModel):
    """A named set of scopes, and who has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str = Field(
        pattern=r"^[a-z][a-z0-9_~.-]{1,253}[a-z0-9]$",
        description="Its name. `user`, `server` and `token` change what those hold.",
    )
    description: str = Field(default="", description="What it is for.")
    scopes: list[str] = Field(default=[], description="What it holds, such as `list:users`.")
    users: list[UserName] = Field(default=[], description="Users who have it.")
    groups: list[str] = Field(default=[], description="Groups whose members have it.")
    services: list[str] = Field(default=[], description="Services that have it.")

    @field_validator("name")
    @classmethod
    def _not_admin(cls, value: str) -> str:
        if value == ADMIN:
            raise ValueError("the role admin holds everything, and cannot be changed")
        return value

    @field_validator("scopes")
    @classmethod
    def _known(cls, value: list[str]) -> list[str]:
        for text in value:
            if not is_scope(text):
                raise ValueError(f"there is no scope {text!r}")
        return value

    def as_role(self) -> Role:
        """Return it for the book of roles."""
        return Role(
            self.name,
            tuple(self.scopes),
            users=frozenset(self.users),
            groups=frozenset(self.groups),
            services=frozenset(self.services),
        )


def _custom_name(name: str) -> str:
    if not is_custom_name(name):
        raise ValueError(
            f"{name!r} cannot be the name of a scope: it is custom: and lower-case letters, digits"
            " and _ - : *"
        )
    return name


CustomScopeName = Annotated[str, AfterValidator(_custom_name)]


class CustomScopeSettings(BaseModel):
    """A scope that means something to the installation's own services."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    description: str = Field(
        min_length=1, description="What it allows, as people are asked for it."
    )
    subscopes: list[CustomScopeName] = Field(
        default=[], description="Other custom scopes that it includes."
    )

    def as_scope(self) -> CustomScope:
        """Return it for the book of roles."""
        return CustomScope(self.description, tuple(self.subscopes))
