"""Puts the document together: the routes there are, with what is said of each. Pure."""

import re
from collections.abc import Iterable
from typing import Any

from fastapi.openapi.utils import get_openapi
from starlette.routing import BaseRoute

from carrel_hub import JUPYTERHUB_API_VERSION
from carrel_hub.openapi.operations import (
    ALWAYS,
    CHANGING,
    JSON,
    OPERATIONS,
    PLAIN,
    Answer,
    Operation,
)
from carrel_hub.openapi.schemas import COMPONENTS

_READING = ("get", "head")
_PARAMETER = re.compile(r"\{([^}]+)\}")


class UndocumentedError(Exception):
    """Nothing is said in `operations` of a route there is; the message names it."""


def describe_api(routes: Iterable[BaseRoute]) -> dict[str, Any]:
    """Return the OpenAPI document of the REST API.

    Raises:
        UndocumentedError: There is a route of which nothing is said.
    """
    found = get_openapi(
        title="Carrel", version=JUPYTERHUB_API_VERSION, routes=list(routes), openapi_version="3.1.0"
    )
    paths = {
        path: {method: _operation(method, path, known) for method, known in methods.items()}
        for path, methods in found["paths"].items()
    }
    return {
        "openapi": found["openapi"],
        "info": {
            "title": "Carrel",
            "version": JUPYTERHUB_API_VERSION,
            "description": "JupyterHub's REST API, as Carrel answers it.",
        },
        "paths": paths,
        "components": {
            "schemas": COMPONENTS,
            "securitySchemes": {
                "token": {"type": "apiKey", "name": "Authorization", "in": "header"}
            },
        },
        "security": [{"token": []}],
    }


def endpoint_name(method: str, path: str, operation_id: str) -> str:
    """Return the name of the function that answers, out of the framework's id for the call."""
    tail = re.sub(r"\W", "_", f"{path}_{method}")
    return operation_id.removesuffix(tail)


def _operation(method: str, path: str, known: dict[str, Any]) -> dict[str, Any]:
    name = endpoint_name(method, path, known["operationId"])
    said = OPERATIONS.get(name)
    if said is None:
        raise UndocumentedError(f"{method.upper()} {path}: nothing is said of {name!r}")
    found: dict[str, Any] = {
        "operationId": known["operationId"],
        "summary": known.get("description", "").partition("\n")[0],
        "parameters": [*_path_parameters(path), *_query_parameters(said)],
        "responses": {
            **{str(status): _answer(answer) for status, answer in said.answers.items()},
            **_refusals(method, said),
        },
    }
    if said.body is not None:
        found["requestBody"] = {
            "required": said.needs_body,
            "content": {said.body_kind: {"schema": said.body}},
        }
    return found


def _path_parameters(path: str) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for name in _PARAMETER.findall(path)
    ]


def _query_parameters(said: Operation) -> list[dict[str, Any]]:
    return [
        {"name": name, "in": "query", "required": False, "schema": schema}
        for name, schema in said.query.items()
    ]


def _answer(answer: Answer) -> dict[str, Any]:
    if answer.kind is None:
        return {"description": answer.words}
    content = {} if answer.schema is None else {"schema": answer.schema}
    kinds: dict[str, Any] = {answer.kind: content}
    if answer.or_text:
        kinds[PLAIN] = {"schema": {"type": "string"}}
    return {"description": answer.words, "content": kinds}


def _refusals(method: str, said: Operation) -> dict[str, Any]:
    words = {**ALWAYS, **({} if method in _READING else CHANGING), **said.refusals}
    return {
        str(status): {"description": text, "content": {JSON: {"schema": said.error}}}
        for status, text in words.items()
    }
