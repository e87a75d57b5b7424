"""A hub where people may share their servers and know each other's names."""

from collections.abc import AsyncIterator, Awaitable, Callable

import httpx
import pytest
from hub.users.conftest import new_person
from hub.world import World, open_world

from carrel_shared.clock import ManualClock

NewPerson = Callable[..., Awaitable[httpx.AsyncClient]]

__all__ = ["new_person"]


@pytest.fixture
async def live() -> AsyncIterator[World]:
    async with open_world(
        clock=ManualClock(),
        allow_named_servers=True,
        extra_user_scopes=["shares!user", "read:users:name", "read:groups:name"],
        custom_scopes={"custom:notes:read": {"description": "read the notes"}},
        public_url="https://hub.test/",
    ) as world:
        yield world


@pytest.fixture
async def alice(new_person: NewPerson) -> httpx.AsyncClient:
    """Somebody with a server called `lab`, which does not run."""
    made = await new_person("alice")
    assert (await made.put("/users/alice/servers/lab")).status_code == 201
    return made
