"""Write docs/settings.md from the services' settings classes: `make docs`."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from carrel_agent.settings import AgentSettings
from carrel_hub.settings import HubSettings
from carrel_proxy.settings import ProxySettings
from carrel_shared.settings import ServiceSettings, default_text

TARGET = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
INTRODUCTION = """# Settings

One file, `carrel.toml`, with a table for each service; name it with `--config`. A variable such
as `CARREL_HUB__BASE_URL` overrides `base_url` in `[hub]` (lists and tables as JSON; a further `__`
goes one level deeper). Unknown keys are errors. `carrel-hub --generate-config`, `carrel-proxy
--generate-config` and `carrel-agent --generate-config` print a file with every setting.

`carrel up` sets the addresses, directories and keys of all three by itself.

This page is made from the code by `make docs`.
"""


def nested_models(annotation: object) -> Iterator[type[BaseModel]]:
    """Yield the settings models inside a field's type."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for inner in get_args(annotation):
        yield from nested_models(inner)


def rows(fields: dict[str, FieldInfo], prefix: str = "") -> Iterator[str]:
    """Yield a table row for each setting, those of nested models after their own."""
    for name, field in fields.items():
        text = default_text(field)
        default = "**required**" if field.is_required() else f"`{text}`" if text else "not set"
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        models = list(nested_models(field.annotation))
        yield f"| `{prefix}{name}` | {'see below' if models else default} | {meaning} |"
        for model in models:
            yield from rows(model.model_fields, f"{prefix}{name}.")


def reference() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    classes: tuple[type[ServiceSettings], ...] = (HubSettings, ProxySettings, AgentSettings)
    for cls in classes:
        parts.append(
            f"\n## [{cls.table}]\n\n| Setting | Default | Meaning |\n| --- | --- | --- |\n"
        )
        parts.append("\n".join(rows(cls.model_fields)) + "\n")
    return "".join(parts)


if __name__ == "__main__":
    if sys.argv[1:] == ["--check"]:
        sys.exit(TARGET.read_text(encoding="utf-8") != reference())
    TARGET.write_text(reference(), encoding="utf-8")
