"""The short way to `GET /user` gives the answers of the long one."""

from typing import Any

import pytest
from hub.users.conftest import NewPerson

from carrel_hub.users import quick


async def test_both_ways_lead_to_the_same_answer(
    new_person: NewPerson, monkeypatch: pytest.MonkeyPatch
) -> None:
    people = [await new_person("alice"), await new_person(None)]
    short = [await one.get("/user") for one in people]

    async def broken(*_: Any) -> None:
        raise RuntimeError("the short way is closed")

    monkeypatch.setattr(quick, "whoami", broken)
    long = [await one.get("/user") for one in people]
    for one, other in zip(short, long, strict=True):
        assert (one.status_code, one.json()) == (other.status_code, other.json())
        assert one.headers.keys() == other.headers.keys()
    assert [one.status_code for one in short] == [200, 403]
