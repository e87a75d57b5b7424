"""Values of a kind that nobody needs, and that must not be a fault of the hub's."""

from typing import Any

import pytest
from hub.users.conftest import NewPerson

from carrel_hub.groups.bodies import MOST_NAMES


@pytest.mark.parametrize("size", ["9" * 400 + "G", "1" + "0" * 30, "9" * 21 + "K"])
async def test_limits_beyond_all_bounds(size: str, new_person: NewPerson) -> None:
    ada = await new_person("ada", admin=True)
    assert (await ada.post("/users/ada/server")).status_code == 201
    reply = await ada.put("/users/ada/server/limits", json={"memory": size})
    assert reply.status_code == 400


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/groups/g/users", {"users": [f"u{n}" for n in range(MOST_NAMES + 1)]}),
        ("/groups", {"groups": [f"g{n}" for n in range(MOST_NAMES + 1)]}),
    ],
)
async def test_more_names_than_a_statement_has_values(
    path: str, body: dict[str, Any], new_person: NewPerson
) -> None:
    ada = await new_person("ada", admin=True)
    assert (await ada.post("/groups/g")).status_code == 201
    reply = await ada.post(path, json=body)
    assert reply.status_code == 400
    assert "at most" in reply.json()["message"]


@pytest.mark.parametrize(
    "client_id", ["service-", "service-\n", "service-a b", "service-" + "x" * 248]
)
async def test_client_ids_that_headers_or_columns_cannot_hold(
    client_id: str, new_person: NewPerson
) -> None:
    ada = await new_person("ada", admin=True)
    body = {"oauth_client_id": client_id, "url": "http://127.0.0.1:9000"}
    assert (await ada.post("/services/s", json=body)).status_code == 400
