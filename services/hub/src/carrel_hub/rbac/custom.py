"""Scopes that an installation defines for its own services: `custom:...` (contract 3.1). Pure.

They mean nothing to the hub. It hands them out, cuts them down, filters and names them like its
own, and services ask for them.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

_NAME = re.compile(r"custom:[a-z0-9][a-z0-9_*:-]+[a-z0-9_*]")


def is_custom_name(name: str) -> bool:
    """Whether a scope of that name is one an installation may define."""
    return _NAME.fullmatch(name) is not None


@dataclass(frozen=True, slots=True)
class CustomScope:
    """One of them.

    Attributes:
        description: What it allows, in words, for those who are asked to grant it.
        subscopes: What it includes: others of the same kind.
    """

    description: str
    subscopes: tuple[str, ...] = ()


def with_subscopes(scopes: Iterable[str], defined: Mapping[str, CustomScope]) -> list[str]:
    """Return scopes with all that the custom ones among them include, each with its filter."""
    found: dict[str, None] = {}
    todo = list(scopes)
    while todo:
        text = todo.pop(0)
        if text in found:
            continue
        found[text] = None
        name, bang, target = text.partition("!")
        if name in defined:
            todo += [f"{included}{bang}{target}" for included in defined[name].subscopes]
    return list(found)
