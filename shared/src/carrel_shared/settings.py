"""Settings are typed data: one TOML file with a table for each service, overridden by environment.

`carrel.toml` holds `[hub]`, `[proxy]` and `[agent]`; each service reads its own table. A variable
`CARREL_HUB__BASE_URL` overrides `base_url` in `[hub]`; a further `__` goes one level deeper. The
whole is validated before anything starts, and a key nobody knows is an error, with its line.
"""

import json
import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

TABLES = ("hub", "proxy", "agent")


class SettingsError(Exception):
    """The settings cannot be used. The message lists every problem with its place."""


class ServiceSettings(BaseSettings):
    """Base of each service's settings. Subclasses set `table` and their `env_prefix`."""

    table: ClassVar[str]

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_nested_delimiter="__", validate_default=True
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The environment wins over the file, which arrives as keyword arguments."""
        return env_settings, init_settings


S = TypeVar("S", bound=ServiceSettings)


def load_settings(cls: type[S], path: Path | None, environ: Mapping[str, str]) -> S:
    """Read a service's settings from its table in `path` and from the environment.

    Args:
        path: The TOML file; None for settings from the environment alone.
        environ: Checked for names with the service's prefix that no setting has.

    Raises:
        SettingsError: Naming each unknown or wrong setting and where it stands.
    """
    text, values = "", {}
    if path is not None:
        try:
            text = path.read_text(encoding="utf-8")
            document = tomllib.loads(text)
        except OSError as error:
            raise SettingsError(f"{path}: {error.strerror}") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise SettingsError(f"{path}: {error}") from error
        if unknown := sorted(set(document) - set(TABLES)):
            line = _line_of(text, (unknown[0],))
            raise SettingsError(
                f"{path}{line}: unknown table or key {unknown[0]!r}; the tables are"
                f" {', '.join(f'[{t}]' for t in TABLES)}"
            )
        values = document.get(cls.table, {})
    problems = list(_unknown_variables(cls, environ))
    try:
        settings = cls(**values)
    except ValidationError as error:
        for detail in error.errors():
            place = tuple(str(part) for part in detail["loc"])
            where = f"{path}{_line_of(text, (cls.table, *place))}" if path else "environment"
            problems.append(f"{where}: {cls.table}.{'.'.join(place)}: {detail['msg']}")
    if problems:
        raise SettingsError("\n".join(problems))
    return settings


def _unknown_variables(cls: type[ServiceSettings], environ: Mapping[str, str]) -> Iterator[str]:
    prefix = str(cls.model_config.get("env_prefix", ""))
    for name in sorted(environ):
        if name.upper().startswith(prefix):
            field = name[len(prefix) :].split("__")[0].lower()
            if field not in cls.model_fields:
                yield f"environment: {name}: no such setting"


def _line_of(text: str, place: tuple[str, ...]) -> str:
    """Return `:LINE` of a key in TOML text, or nothing where it cannot be told."""
    table: tuple[str, ...] = ()
    best = ""
    for number, raw in enumerate(text.splitlines(), start=1):
        line = raw.strip()
        if line.startswith("["):
            table = tuple(p.strip().strip("\"'") for p in line.strip("[]").split("."))
            here = table
        elif "=" in line and not line.startswith("#"):
            key = line.split("=", 1)[0].strip()
            here = (*table, *(p.strip().strip("\"'") for p in key.split(".")))
        else:
            continue
        # A list index or a key inside an inline table has no line of its own: its parent's will do.
        if here == place[: len(here)]:
            best = f":{number}"
    return best


def generate_config(cls: type[ServiceSettings]) -> str:
    """Return a TOML table with every setting, its meaning and its default, all commented out."""
    lines = [f"[{cls.table}]"]
    for name, field in cls.model_fields.items():
        lines.append("")
        lines += [f"# {line}" for line in _wrap(field.description or "")]
        default = default_text(field)
        lines.append(f"# {name} = {default}" if default else f'# {name} = ""  # not set')
    return "\n".join(lines) + "\n"


def _wrap(text: str) -> list[str]:
    import textwrap

    return textwrap.wrap(" ".join(text.split()), width=96)


def default_text(field: FieldInfo) -> str:
    """Return a setting's default as TOML, or nothing if it has none or is unset by default."""
    if field.is_required():
        return ""
    value = field.get_default(call_default_factory=True)
    return "" if value is None else _toml(value)


def _toml(value: Any) -> str:
    if isinstance(value, SecretStr):
        return '""'
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return str(value)
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{k} = {_toml(v)}" for k, v in value.items()) + "}"
    if isinstance(value, list | tuple | set | frozenset):
        return "[" + ", ".join(_toml(v) for v in value) + "]"
    return json.dumps(str(value))


def process_environment() -> Mapping[str, str]:
    """Return the environment of this process; services read it here and nowhere else."""
    return os.environ
