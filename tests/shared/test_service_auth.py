"""The gate in front of every internal API: no key, no entry; a newer caller is refused by name."""

from typing import Any

import httpx
import pytest

from carrel_shared.service_auth import (
    EmptyKeyError,
    ServiceGate,
    check_key,
    clean_request_id,
    new_key,
    service_headers,
)
from carrel_shared.wire import REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION

KEYS = {"hub": new_key(), "agent:local": new_key()}


async def whoami(scope: Any, _receive: Any, send: Any) -> None:
    state = scope["state"]
    body = f"{state.get('caller')} {state['request_id']}".encode()
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": body})


def client(keys: dict[str, str] = KEYS) -> httpx.AsyncClient:
    gate = ServiceGate(whoami, keys=keys, service="carrel-agent", open_paths=frozenset({"/health"}))
    return httpx.AsyncClient(transport=httpx.ASGITransport(gate), base_url="http://gate")


async def test_a_known_caller_is_named_and_its_request_id_goes_on() -> None:
    async with client() as http:
        reply = await http.get("/x", headers=service_headers(KEYS["agent:local"], "abc-1"))
    assert reply.text == "agent:local abc-1"


@pytest.mark.parametrize(
    "authorization",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer wrong",
        f"Basic {KEYS['hub']}",
        f"Bearer {KEYS['hub']} x",
        KEYS["hub"],
    ],
    ids=["empty", "no key", "blank key", "wrong key", "basic", "something after", "no scheme"],
)
async def test_everybody_else_is_refused_without_a_hint(authorization: str) -> None:
    headers = {WIRE_HEADER: str(WIRE_VERSION), "Authorization": authorization}
    async with client() as http:
        reply = await http.get("/x", headers=headers)
    assert reply.status_code == 401
    assert reply.json()["code"] == "unauthorized"


@pytest.mark.parametrize("which", [("hub", "agent:local"), ("hub", "hub")])
async def test_a_key_is_shown_once(which: tuple[str, str]) -> None:
    """Of two, one reader would take the first and another the last."""
    shown = [("Authorization", f"Bearer {KEYS[each]}") for each in which]
    async with client() as http:
        reply = await http.get("/x", headers=[(WIRE_HEADER, str(WIRE_VERSION)), *shown])
    assert reply.status_code == 401


async def test_a_newer_caller_is_refused_by_name() -> None:
    headers = service_headers(KEYS["hub"]) | {WIRE_HEADER: str(WIRE_VERSION + 1)}
    async with client() as http:
        reply = await http.get("/x", headers=headers)
    assert reply.status_code == 400
    assert "upgrade carrel-agent" in reply.json()["message"]


@pytest.mark.parametrize("version", ["", "one", "-1", "٣", "0"])
async def test_a_version_nobody_speaks_is_refused(version: str) -> None:
    headers = service_headers(KEYS["hub"])
    sent = [(k.encode(), v.encode()) for k, v in headers.items() if k != WIRE_HEADER]
    sent.append((WIRE_HEADER.encode(), version.encode()))
    async with client() as http:
        reply = await http.get("/x", headers=sent)
    assert reply.status_code == 400


async def test_only_the_open_path_needs_no_key() -> None:
    async with client() as http:
        assert (await http.get("/health")).status_code == 200
        assert (await http.get("/health/x")).status_code == 401


@pytest.mark.parametrize("keys", [{}, {"hub": ""}, {"hub": "short"}])
def test_a_service_without_real_keys_does_not_start(keys: dict[str, str]) -> None:
    with pytest.raises(EmptyKeyError):
        ServiceGate(whoami, keys=keys, service="carrel-agent")


def test_the_message_names_the_setting() -> None:
    with pytest.raises(EmptyKeyError, match=r"agent\.key"):
        check_key("agent.key", "")


@pytest.mark.parametrize("sent", [None, "", "a b", "x" * 65, "a\nb", "é"])
def test_a_malformed_request_id_is_replaced(sent: str | None) -> None:
    assert clean_request_id(sent) != sent


async def test_the_refusal_does_not_echo_the_key() -> None:
    headers = service_headers("k" * 40)
    async with client() as http:
        reply = await http.get("/x", headers=headers)
    assert "k" * 40 not in reply.text
    assert REQUEST_ID_HEADER not in reply.headers
