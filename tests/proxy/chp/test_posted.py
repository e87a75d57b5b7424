"""R20: what is posted as a route is kept and shown again, or refused, and nothing in between."""

import json
from typing import Any

import pytest
from proxy.chp.inside import ROUTES, Chp, running

from carrel_proxy.chp.posted import DEEPEST, MOST_BYTES, PostedError, read_route


def nested(depth: int) -> str:
    return '{"target": "http://h", "more": ' + "[" * depth + "]" * depth + "}"


@pytest.mark.parametrize(
    "body",
    [
        nested(DEEPEST),
        nested(900),  # could be read, and then not be written
        nested(100_000),
        '{"target": "http://h", "more": ' + '{"a": ' * 10_000 + "1" + "}" * 10_001,
        '{"target": "http://h", "more": NaN}',
        '{"target": "http://h", "more": -Infinity}',
        '{"target": "http://h", "more": 1e999}',
        '{"target": "http://h", "more": ' + "9" * 10_000 + "}",
        '{"target": ["http://h"]}',
        '{"target": null}',
        '"target"',
        "",
    ],
)
def test_what_could_not_be_shown_again_is_not_taken(body: str) -> None:
    with pytest.raises(PostedError):
        read_route(body.encode())


@pytest.mark.parametrize(
    "route",
    [
        {"__proto__": {"target": "x"}, "constructor": {}, "__class__": "y"},
        {"user": "alice", "server_name": "", "hub": True, "number": 1.5},
        {"half": "\ud800", "nul": "\0"},
        json.loads(nested(DEEPEST - 1)),
    ],
)
async def test_everything_else_is_shown_as_it_was_posted(route: dict[str, Any]) -> None:
    posted = {"target": "http://127.0.0.1:7", **route}
    posted["target"] = "http://127.0.0.1:7"
    async with running() as chp:
        answer = await chp.api.post(f"{ROUTES}/__proto__", content=json.dumps(posted))
        assert answer.status_code == 201
        shown = (await chp.routes())["/__proto__"]
        del shown["last_activity"]
        assert shown == posted


async def test_a_large_body_is_refused_before_it_is_all_there() -> None:
    sent = 0

    async def ten_megabytes() -> Any:
        nonlocal sent
        yield b'{"target": "http://127.0.0.1:7", "more": "'
        while sent < 10_000_000:
            sent += 50_000
            yield b"x" * 50_000
        yield b'"}'

    async with running() as chp:
        answer = await _post(chp, ten_megabytes())
        assert answer == 413
        assert sent <= MOST_BYTES + 50_000
        assert await chp.routes() == {}


async def _post(chp: Chp, parts: Any) -> int:
    """Post what comes in parts; the status of the answer."""
    answered: list[dict[str, Any]] = []
    following = aiter(parts)

    async def receive() -> dict[str, Any]:
        part = await anext(following, None)
        return {"type": "http.request", "body": part or b"", "more_body": part is not None}

    async def send(message: dict[str, Any]) -> None:
        answered.append(message)

    scope = {
        "type": "http",
        "method": "POST",
        "raw_path": f"{ROUTES}/large".encode(),
        "headers": [(b"authorization", chp.api.headers["authorization"].encode())],
        "query_string": b"",
    }
    await chp.proxy.api(scope, receive, send)
    status: int = answered[0]["status"]
    return status
