"""Whether an answer is one that the description of the API allows."""

from typing import Any

import httpx
from jsonschema_rs import Draft202012Validator


def problem(
    document: dict[str, Any], method: str, template: str, reply: httpx.Response
) -> str | None:
    """Return what is wrong with an answer, or None.

    Args:
        template: The path as the document has it.
    """
    responses = document["paths"][template][method.lower()]["responses"]
    said = responses.get(str(reply.status_code))
    if said is None:
        return f"{reply.status_code} is not described"
    content = said.get("content")
    kind = reply.headers.get("content-type", "").partition(";")[0]
    if content is None:
        return f"a body of {kind!r} is not described" if reply.content else None
    if kind not in content:
        return f"the type {kind!r} is not described"
    schema = content[kind].get("schema")
    if schema is None or kind != "application/json":
        return None
    validator = Draft202012Validator({**schema, "components": document["components"]})
    error = next(iter(validator.iter_errors(reply.json())), None)
    return None if error is None else f"{list(error.instance_path)}: {error.message}"
