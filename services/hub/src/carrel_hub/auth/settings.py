"""Settings of signing in: `[hub.auth]`."""

import re
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.expressions import Expression

MIN_USER_PASSWORD = 8
MIN_ADMIN_PASSWORD = 32
"""Shared passwords (AUTH-15): many people know the one, and the other opens everything."""


class AuthSettings(BaseModel):
    """Who may sign in, and how. Nobody, until a rule here says so."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    authenticator: Literal["pam", "shared-password", "dummy", "none"] = Field(
        default="pam",
        description="How passwords are checked: `pam` asks carrel-pam; `shared-password` knows one"
        " for everybody; `dummy` believes every name, for tests alone; `none` refuses them all.",
    )
    pam_socket: str | None = Field(
        default=None, description="Where carrel-pam listens: unix:/path."
    )
    dummy_password: SecretStr | None = Field(
        default=None, description="What `dummy` wants to hear from everybody; nothing without it."
    )
    user_password: SecretStr | None = Field(
        default=None,
        description=f"The password of `shared-password`, {MIN_USER_PASSWORD} characters or more.",
    )
    admin_password: SecretStr | None = Field(
        default=None,
        description="With `shared-password`, the one that those in `admin_users` must use instead,"
        f" {MIN_ADMIN_PASSWORD} characters or more.",
    )
    group_passwords: dict[str, SecretStr] = Field(
        default={},
        description="With `shared-password`, further passwords by group: whoever signs in with one"
        " is put into that group.",
    )
    username_map: dict[str, str] = Field(
        default={},
        description="What those who sign in by a name are called here instead, by that name. What"
        " runs for them still runs as the account that their password proved.",
    )
    username_pattern: Expression | None = Field(
        default=None, description="A regular expression that every user's name must fit, whole."
    )
    allowed_users: list[str] = Field(default=[], description="Names that may sign in.")
    allow_all: bool | None = Field(
        default=None,
        description="Let in everybody whose password is right. Without it nobody is, but with"
        " `dummy` and no `allowed_users` everybody.",
    )
    allow_existing_users: bool = Field(
        default=False,
        description="Let in whoever is known already, such as those an administrator has made.",
    )
    blocked_users: list[str] = Field(
        default=[],
        description="Names that are refused everywhere, whatever else is said of them. They lose"
        " their rights, groups and servers when the hub starts.",
    )
    admin_users: list[str] = Field(
        default=[], description="Names that may sign in and are administrators."
    )
    link_from: Literal["this-machine", "anywhere"] = Field(
        default="this-machine",
        description="Where one-time sign-in links work: in browsers on the machine itself, or"
        " wherever the installation is reached. For containers, where a browser's own address is"
        " not seen.",
    )
    session_days: float = Field(default=14, gt=0, description="How long a sign-in lasts.")
    max_failures: int = Field(
        default=10,
        gt=0,
        description="Failed sign-ins from one address before whoever is there must wait.",
    )
    max_failures_for_name: int = Field(
        default=100,
        gt=0,
        description="Failed sign-ins for one name, from everywhere, before that name must wait."
        " More than from one address, so that nobody is kept out by a single guesser.",
    )
    failure_window_seconds: float = Field(
        default=300, gt=0, description="How long a failed sign-in counts."
    )

    @property
    def everybody(self) -> bool:
        """Whether everybody whose password is right is let in."""
        if self.allow_all is not None:
            return self.allow_all
        return self.authenticator == "dummy" and not self.allowed_users

    @property
    def checks_passwords(self) -> bool:
        """Whether anybody at all can sign in with a password."""
        if self.authenticator == "pam":
            return self.pam_socket is not None
        return self.authenticator != "none"

    @field_validator("username_map")
    @classmethod
    def _in_one_spelling(cls, value: dict[str, str]) -> dict[str, str]:
        return {normalise_name(old): normalise_name(new) for old, new in value.items()}

    def name_of(self, raw: str) -> str:
        """Return what somebody is called here: the one spelling, mapped, and fit for a user.

        Raises:
            InvalidNameError: It is no name, or none that users have here.
        """
        name = normalise_name(raw)
        name = self.username_map.get(name, name)
        if self.username_pattern is not None and not re.fullmatch(self.username_pattern, name):
            raise InvalidNameError(f"a user name must fit {self.username_pattern} here")
        return name

    @model_validator(mode="after")
    def _passwords_fit(self) -> Self:
        if self.authenticator != "shared-password":
            return self
        user, admin = _text(self.user_password), _text(self.admin_password)
        if not user and not self.group_passwords:
            raise ValueError("shared-password needs user_password or group_passwords")
        for where, text in [("user_password", user), *_groups(self.group_passwords)]:
            if text and len(text) < MIN_USER_PASSWORD:
                raise ValueError(f"{where} must have {MIN_USER_PASSWORD} characters or more")
        if admin and len(admin) < MIN_ADMIN_PASSWORD:
            raise ValueError(f"admin_password must have {MIN_ADMIN_PASSWORD} characters or more")
        if self.admin_users and not admin:
            raise ValueError("admin_users sign in with admin_password, which is not set")
        every = [user, admin, *(text for _, text in _groups(self.group_passwords))]
        given = [text for text in every if text]
        if len(given) != len(set(given)):
            raise ValueError("two of the shared passwords are the same")
        return self


def _text(secret: SecretStr | None) -> str:
    return secret.get_secret_value() if secret is not None else ""


def _groups(passwords: dict[str, SecretStr]) -> list[tuple[str, str]]:
    return [(f"group_passwords.{name}", _text(secret)) for name, secret in passwords.items()]
