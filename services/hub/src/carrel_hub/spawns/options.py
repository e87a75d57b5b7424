"""What people may choose of a server: `[hub.profiles.NAME.options.NAME]`. Pure.

Nothing is taken that the settings do not name, and no value that they do not allow.
"""

import re
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StringConstraints,
    field_validator,
    model_validator,
)

from carrel_hub.expressions import Expression

OptionName = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
Value = str | int | bool

MOST_TEXT = 1000
_WORDS = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}
_NUMBER = re.compile(r"[+-]?[0-9]{1,15}", re.ASCII)
_VARIABLE = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_THEIRS = re.compile(
    r"(LD_|PYTHON|JUPYTER|JPY_|BASH_|GIT_|SSL_).*|CARREL_(?!OPTION_).*"
    r"|PATH|HOME|USER|LOGNAME|SHELL|ENV|IFS|TMPDIR|LANG",
    re.IGNORECASE,
)
"""Variables that decide which code runs, or as whom: none that a form may fill in."""


class OptionSettings(BaseModel):
    """One thing that people may choose of the servers of a profile."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str | None = Field(default=None, description="What the form calls it; its name without.")
    help: str = Field(default="", description="What more the form says of it.")
    kind: Literal["choice", "text", "number", "switch"] = Field(
        default="choice", description="One of `choices`, a line of text, a whole number, yes or no."
    )
    choices: dict[str, str] = Field(
        default={}, description="With `choice`: each value, and what the form calls it."
    )
    default: str | int | bool | None = Field(
        default=None,
        description="What it is for those who do not say. Without it the first of `choices`, no"
        " text, no number, or no.",
    )
    required: bool = Field(
        default=False, description="Have everybody say, where there is no default."
    )
    minimum: int | None = Field(default=None, description="The least that a number may be.")
    maximum: int | None = Field(default=None, description="The most that a number may be.")
    pattern: Expression | None = Field(
        default=None, description="A regular expression that a text must fit, whole."
    )
    max_length: int = Field(
        default=200, ge=1, le=MOST_TEXT, description="How many characters a text may have."
    )
    variable: str | None = Field(
        default=None,
        description="The variable in which the server finds it; `CARREL_OPTION_NAME` without. A"
        " switch is 1 or 0.",
    )

    @field_validator("variable")
    @classmethod
    def _may_be_theirs(cls, value: str | None) -> str | None:
        if value is None:
            return None
        if not _VARIABLE.fullmatch(value):
            raise ValueError(f"{value!r} is no name for a variable")
        if _NOT_THEIRS.fullmatch(value):
            raise ValueError(f"{value} decides what runs, so nobody may fill it in in a form")
        return value

    @model_validator(mode="after")
    def _makes_sense(self) -> Self:
        if (self.kind == "choice") != bool(self.choices):
            raise ValueError("choices belong to kind = 'choice', and it needs some")
        if self.default is not None:
            try:
                self.read(self.default)
            except ValueError as error:
                raise ValueError(f"default: {error}") from error
        return self

    @property
    def effective_default(self) -> Value | None:
        """What it is for those who do not say; None where it is nothing then."""
        if self.default is not None:
            return self.read(self.default)
        if self.kind == "choice":
            return None if self.required else next(iter(self.choices))
        return False if self.kind == "switch" else None

    def read(self, given: Any) -> Value | None:
        """Return a value as it is kept; None for an empty field of a form.

        Args:
            given: As a form, an address or JSON has it; forms and addresses give lists.

        Raises:
            ValueError: It is none that this option has; the message is for people.
        """
        if isinstance(given, list):
            if len(given) != 1:
                raise ValueError("say it once")
            [given] = given
        if isinstance(given, str) and not given.strip() and given not in self.choices:
            return None
        match self.kind:
            case "choice":
                return self._read_choice(given)
            case "number":
                return self._read_number(given)
            case "switch":
                return self._read_switch(given)
            case "text":
                return self._read_text(given)

    def variable_of(self, name: str) -> str:
        """Return the variable in which the server finds the option of that name."""
        return self.variable or f"CARREL_OPTION_{name.upper()}"

    def _read_choice(self, given: Any) -> str:
        if isinstance(given, str) and given in self.choices:
            return given
        raise ValueError(f"choose one of {', '.join(self.choices)}")

    def _read_number(self, given: Any) -> int:
        if isinstance(given, str) and _NUMBER.fullmatch(given.strip()):
            given = int(given)
        if isinstance(given, bool) or not isinstance(given, int):
            raise ValueError("write a whole number")
        if self.minimum is not None and given < self.minimum:
            raise ValueError(f"{self.minimum} is the least")
        if self.maximum is not None and given > self.maximum:
            raise ValueError(f"{self.maximum} is the most")
        return given

    def _read_switch(self, given: Any) -> bool:
        if isinstance(given, bool):
            return given
        if isinstance(given, str) and given.lower() in _WORDS:
            return _WORDS[given.lower()]
        raise ValueError("say on or off")

    def _read_text(self, given: Any) -> str:
        if not isinstance(given, str):
            raise ValueError("write text")
        text = given.strip()
        if len(text) > self.max_length:
            raise ValueError(f"{self.max_length} characters are the most")
        if not text.isprintable():
            raise ValueError("it holds a character that cannot be printed")
        if self.pattern is not None and not re.fullmatch(self.pattern, text):
            raise ValueError(f"it must fit {self.pattern}")
        return text


def in_variable(value: Value) -> str:
    """Return a value as a server's environment holds it."""
    return str(int(value)) if isinstance(value, bool) else str(value)
