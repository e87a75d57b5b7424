"""What the API answers is what is said of it, whoever calls and whatever is sent.

Schemathesis makes the calls from the document and judges the answers: no 5xx, no status, type or
shape that is not in it. The same calls each time.
"""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack
from itertools import count
from typing import Any, TypeVar

import httpx
import pytest
import requests
import schemathesis
from hub.fakes import FakeAgent
from hub.web.site import form_of
from hub.world import open_world
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from carrel_hub.app import create_public_app
from carrel_hub.auth.links import create_link
from carrel_hub.auth.tokens import issue_token
from carrel_hub.context import Hub as HubParts
from carrel_hub.db.models import User
from carrel_hub.groups.store import create_groups
from carrel_hub.services.bodies import WantedService
from carrel_hub.services.store import put_service
from carrel_hub.shares.store import grant_share
from carrel_hub.spawns.reconciler import Reconciler
from carrel_hub.spawns.service import ensure_server, request_start
from carrel_hub.spawns.states import State
from carrel_hub.users import operate
from carrel_hub.users.accounts import get_or_create_user
from carrel_hub.users.waiting import wait_for_server
from carrel_shared.clock import SystemClock

T = TypeVar("T")
Case = schemathesis.Case[Any]
Operation = schemathesis.APIOperation[Any, Any, Any, Any]

CALLERS = ("anonymous", "user", "browser", "admin", "service", "limited")
CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_schema_conformance,
]
EXAMPLES = 4
"""Calls of each kind for each operation and caller."""

NAVIGATION = {
    "Sec-Fetch-Mode": "navigate",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Site": "same-origin",
}

_ORDER = ["get", "post", "put", "patch", "delete"]
_SECONDS = 60
_PEOPLE = ("alice", "bob", "carol", "nobody")
_SERVERS = ("lab", "spare")


class Hub:
    """A hub with things in it, on a loop of its own, that is called from here."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._stack = AsyncExitStack()
        self.tokens: dict[str, str | None] = {"anonymous": None}
        self._thread.start()
        self._run(self._open())

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_SECONDS)

    async def _open(self) -> None:
        world = await self._stack.enter_async_context(
            open_world(
                clock=SystemClock(),
                agent=FakeAgent(),
                allow_named_servers=True,
                slow_spawn_seconds=0.05,
                slow_stop_seconds=0.05,
                agent_silence_seconds=3600,
            )
        )
        await world.report()
        world.hub.tasks.start(Reconciler(world.hub).run(), name="reconciler")
        world.hub.tasks.start(world.pusher.run(), name="push")
        at = world.hub.clock.now()
        async with world.hub.database.write() as session:
            people = {
                name: await get_or_create_user(
                    session, name, at=at, account=name, admin=name == "root-of-hub"
                )
                for name in (*_PEOPLE[:3], "root-of-hub")
            }
            for name in _SERVERS:
                await ensure_server(session, people["alice"], name, at=at)
            failed = await ensure_server(session, people["carol"], at=at)
            failed.state, failed.host = State.FAILED, "local"
            failed.failure = {"cause": "exited", "summary": "It ended.", "log_tail": ["words"]}
            session.add(failed)
            [group] = await create_groups(session, ["lab"], [people["bob"]], at=at, actor="hub")
            for name in ("", "lab"):
                row = await request_start(
                    session, world.hub, people["alice"], actor="hub", server_name=name
                )
                for who in (people["bob"], group):
                    await grant_share(session, row, who, ["access:servers"], at=at, actor="hub")
            for name in ("web", "caller"):
                wanted = WantedService(name=name, admin=name == "caller")
                service = await put_service(
                    session, world.hub, wanted, actor="hub", from_settings=name == "caller"
                )
            await issue_token(session, world.hub, people["alice"], actor="hub")  # a1
            for caller, owner, scopes in (
                ("user", people["alice"], ["inherit"]),
                ("admin", people["root-of-hub"], ["inherit"]),
                ("service", service, ["inherit"]),
                ("limited", people["root-of-hub"], ["list:users", "read:servers!user=alice"]),
            ):
                new = await issue_token(session, world.hub, owner, actor="hub", scopes=scopes)
                self.tokens[caller] = new.secret
        for row_id in await world.pending():
            await wait_for_server(
                world.hub, row_id, lambda now: now.state == "ready", seconds=_SECONDS
            )
        transport = httpx.ASGITransport(app=create_public_app(world.hub))
        self.client, self.browser = [
            await self._stack.enter_async_context(
                httpx.AsyncClient(transport=transport, base_url="http://hub")
            )
            for _ in range(2)
        ]
        await self._sign_in(world.hub, people["alice"])

    async def _sign_in(self, hub: HubParts, user: User) -> None:
        """Have a browser that calls as the pages' scripts do."""
        async with hub.database.write() as session:
            link = await create_link(session, hub, user)
        page = await self.browser.get(link.path, headers=NAVIGATION)
        form = form_of(page, "sign-in")
        await self.browser.post(form["action"], data=form["fields"], headers=NAVIGATION)
        await self.browser.get("/hub/home", headers=NAVIGATION)
        reply = await self.browser.get("/hub/api/user")
        assert (reply.status_code, reply.json()["name"]) == (200, "alice")
        xsrf = [cookie.value for cookie in self.browser.cookies.jar if cookie.name == "_xsrf"]
        self.browser.headers["X-XSRFToken"] = str(xsrf[-1])
        self.tokens["browser"] = None

    def document(self) -> dict[str, Any]:
        headers = {"Authorization": f"token {self.tokens['admin']}"}
        reply = self._run(self.client.get("/hub/api/openapi.json", headers=headers))
        found: dict[str, Any] = reply.json()
        return found

    def call(self, case: Case, caller: str) -> httpx.Response:
        sent = requests.Request(**case.as_transport_kwargs(base_url="http://hub")).prepare()
        headers = {str(name): str(value) for name, value in sent.headers.items()}
        headers.pop("Authorization", None)
        if (token := self.tokens[caller]) is not None:
            headers["Authorization"] = f"token {token}"
        client = self.browser if caller == "browser" else self.client
        body = sent.body.encode() if isinstance(sent.body, str) else sent.body or b""
        assert isinstance(body, bytes)
        return self._run(
            client.request(sent.method or "GET", sent.url or "", headers=headers, content=body)
        )

    def close(self) -> None:
        self._run(self._stack.aclose())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    monkeypatch.setattr(operate, "end_process", lambda: None)
    hub = Hub()
    yield hub
    hub.close()


def known(path: str, parameter: str) -> tuple[str, ...]:
    """Return values of a part of a path that there is something for, and one that there is not."""
    if parameter == "token_id":
        return ("a1", "a0", "1")
    if parameter == "cookie_name":
        return ("jupyterhub-hub-login", "other")
    if parameter == "token":
        return ("unknown",)
    if parameter == "server_name" or (parameter == "name" and "{owner}" in path):
        return _SERVERS
    if "/groups/" in path and parameter in ("name", "group_name"):
        return ("lab", "nothing")
    if "/services/" in path:
        return ("web", "caller", "nothing")
    return _PEOPLE


# The hub, in its own thread, draws from `random` while Hypothesis watches over that.
@pytest.mark.filterwarnings("ignore:Do not use the `random` module inside strategies")
@pytest.mark.timeout(300)
@pytest.mark.parametrize("caller", CALLERS)
def test_nothing_is_answered_that_is_not_described(hub: Hub, caller: str) -> None:
    schema = schemathesis.openapi.from_dict(hub.document())
    operations = sorted(
        (found.ok() for found in schema.get_all_operations() if isinstance(found, Ok)),
        key=lambda one: (one.path.endswith("/shutdown"), _ORDER.index(one.method), one.path),
    )
    assert len(operations) > 80
    for operation in operations:
        try_out(hub, operation, caller)


def try_out(hub: Hub, operation: Operation, caller: str) -> None:
    """Make calls of one kind; each value of a path that is known has its turn."""
    turns = count()

    @settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(case=cases(operation))
    def judge(case: Case) -> None:
        turn = next(turns)
        for name in case.path_parameters:
            choices = [*known(operation.path, name), None]
            turn, choice = divmod(turn, len(choices))
            if (value := choices[choice]) is not None:
                case.path_parameters[name] = value
        case.validate_response(hub.call(case, caller), checks=CHECKS)

    judge()


def cases(operation: Operation) -> st.SearchStrategy[Case]:
    """Return calls that fit the description, and calls that do not."""
    fitting: st.SearchStrategy[Case] = operation.as_strategy(
        generation_mode=GenerationMode.POSITIVE
    )
    if operation.body or operation.query:
        return fitting | operation.as_strategy(generation_mode=GenerationMode.NEGATIVE)
    return fitting
