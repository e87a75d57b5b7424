"""Every route of the hub's applications, for tests that hold for all of them."""

from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.types import ASGIApp

from carrel_hub import app as app_module
from carrel_hub.app import create_internal_app, create_public_app
from carrel_hub.context import Hub


def build_apps(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> tuple[list[FastAPI], ASGIApp, ASGIApp]:
    """Return the applications whose routes there are, and the public and the internal one whole."""
    made: list[FastAPI] = []
    new_app = app_module._new_app

    def remembered(*args: object) -> FastAPI:
        made.append(new_app(*args))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(app_module, "_new_app", remembered)
    public, internal = create_public_app(hub), create_internal_app(hub)
    return made, public, internal


def routes(holder: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield method and path of every route of an application, or of a router in it."""
    for route in holder.routes:
        if isinstance(route, APIRoute):
            for method in sorted(route.methods or ()):
                yield method, prefix + route.path
        else:  # FastAPI keeps what was included as it is; any other kind has no router and fails
            yield from routes(route.original_router, prefix + route.include_context.prefix)
