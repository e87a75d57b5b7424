"""The short ways give the answers of the long ones, faults included."""

from typing import Any

import pytest
from hub.users.conftest import NewPerson

from carrel_hub.users import quick

ASKED = [
    ("GET", "/user"),
    ("GET", "/user?include_stopped_servers=1"),
    ("GET", "/users/alice"),
    ("GET", "/users/nobody"),
    ("GET", "/users/"),
    ("GET", "/users/alice/"),
    ("DELETE", "/users/alice/server"),
    ("DELETE", "/users/nobody/server"),
    ("POST", "/users/nobody/server"),
    ("POST", "/users//server"),
]


async def answers(people: list[Any]) -> list[tuple[int, str, set[str]]]:
    found = []
    for person in people:
        for method, path in ASKED:
            reply = await person.request(method, path)
            found.append((reply.status_code, reply.text, set(reply.headers)))
        reply = await person.post("/users/alice/server", content=b"{")
        found.append((reply.status_code, reply.text, set(reply.headers)))
    return found


async def test_both_ways_lead_to_the_same_answer(
    new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [await new_person("alice"), await new_person("bob"), await new_person(None)]
    short = await answers(people)
    monkeypatch.setattr(quick, "_split", lambda path: (f"no way to {path}", ""))
    assert await answers(people) == short
    assert {200, 204, 400, 403, 404} <= {status for status, _, _ in short}
