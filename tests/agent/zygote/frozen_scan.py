"""Run in a process of its own: import what the zygote imports, and look for the sentinel.

Prints what the environment left behind: in globals of modules, in attributes and trait defaults
of classes, in default arguments of functions, and in the containers they hold.

    read NAME       a variable that was read during the imports
    frozen PLACE    a place that holds a value of the environment after them
    survives PLACE  one that still does after the child's resets
"""

import importlib
import inspect
import os
import sys
import types
from collections.abc import Iterator
from typing import Any

SENTINEL = "sentinel-"
DEPTH = 3


def holds(value: Any, depth: int = DEPTH) -> bool:
    """Whether a value is, or contains, text with the sentinel in it."""
    if isinstance(value, str):
        return SENTINEL in value
    if isinstance(value, bytes):
        return SENTINEL.encode() in value
    if depth == 0:
        return False
    if isinstance(value, dict):
        return any(holds(part, depth - 1) for pair in list(value.items()) for part in pair)
    if isinstance(value, list | tuple | set | frozenset):
        return any(holds(part, depth - 1) for part in list(value))
    if hasattr(type(value), "__fspath__"):
        return SENTINEL in str(value)
    return False


def inside(owner: Any, name: str) -> Iterator[tuple[str, Any]]:
    """Yield what a class or function keeps, by name."""
    for attribute, value in list(vars(owner).items()):
        yield f"{name}.{attribute}", value
        # traitlets' descriptors hold the default of an instance's attribute. Statically, because
        # six's lazy modules import something for whatever they are asked.
        for kept in ("default_value", "default_args"):
            yield f"{name}.{attribute}", inspect.getattr_static(value, kept, None)
        if isinstance(value, types.FunctionType):
            yield f"{name}.{attribute}()", (value.__defaults__, value.__kwdefaults__)


def everything() -> Iterator[tuple[str, Any]]:
    """Yield each named thing of each loaded module."""
    for module_name, module in sorted(sys.modules.items()):
        if module is None or module_name in ("__main__", "__mp_main__", "os", "posix"):
            continue
        for name, value in list(vars(module).items()):
            place = f"{module_name}.{name}"
            yield place, value
            if isinstance(value, types.FunctionType):
                yield f"{place}()", (value.__defaults__, value.__kwdefaults__)
            elif isinstance(value, type) and value.__module__ == module_name:
                yield from inside(value, place)
            elif not isinstance(value, types.ModuleType) and type(value).__module__ == module_name:
                yield place, getattr(value, "__dict__", {})


def places() -> list[str]:
    return sorted({place for place, value in everything() if holds(value)})


def traced_imports(modules: list[str]) -> set[str]:
    """Import modules and return the names of the environment variables that were asked for."""
    read: set[str] = set()
    original = os._Environ.__getitem__

    def traced(self: Any, key: Any) -> Any:
        read.add(str(key))
        return original(self, key)

    os._Environ.__getitem__ = traced  # type: ignore[method-assign]
    try:
        for module in modules:
            try:
                importlib.import_module(module)
            except ImportError:
                continue
    finally:
        os._Environ.__getitem__ = original  # type: ignore[method-assign]
    return read


def main() -> None:
    for name in sorted(traced_imports(sys.argv[1:])):
        print("read", name)
    for place in places():
        print("frozen", place)

    from carrel_agent.zygote import resets

    resets.forget_the_zygote({"HOME": "/clean", "USER": "clean"}, "/clean")
    for place in places():
        print("survives", place)


if __name__ == "__main__":
    main()
