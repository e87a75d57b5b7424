"""Bodies that are sent to cost much, or slowly, so that what holds changes meanwhile."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import httpx
import pytest
from hub.users.conftest import NewPerson
from hub.web.site import ORIGIN, Site, form_of
from hub.world import World
from sqlmodel import col, delete, select
from structlog.testing import capture_logs

from carrel_hub.app import create_public_app
from carrel_hub.auth.sessions import end_other_sessions
from carrel_hub.db.models import Token, User
from carrel_hub.middleware import MAX_BODY_BYTES
from carrel_hub.web.forms import MOST_BYTES, MOST_FIELDS, URLENCODED

_FORM = {"Content-Type": URLENCODED}


def slowly(
    first: bytes, happens: Callable[[], Awaitable[Any]], rest: bytes
) -> AsyncIterator[bytes]:
    """Send a body in two parts, between which something happens."""

    async def parts() -> AsyncIterator[bytes]:
        yield first
        await happens()
        yield rest

    return parts()


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"&" * MOST_FIELDS, 400),
        (b"a=&" * MOST_FIELDS, 400),
        (b"&" * MOST_BYTES, 400),
        (b"a=" + b"%" * MOST_BYTES, 413),
        (b"&" * (MOST_FIELDS - 1), 403),
    ],
)
async def test_a_form_of_a_stranger_is_not_read_at_any_length(
    body: bytes, status: int, site: Site
) -> None:
    reply = await site.client().post("/hub/login", content=body, headers=_FORM)
    assert reply.status_code == status


@pytest.mark.parametrize("name", [b'"a"', b'"\xff\xfe"', b'""'])
async def test_forms_in_parts_are_read_whatever_is_in_them(name: bytes, site: Site) -> None:
    part = b"--x\r\nContent-Disposition: form-data; name=" + name + b"\r\n\r\n\xff\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=x"}
    for body, status in ((part + b"--x--\r\n", 403), (part * (MOST_FIELDS + 1), 400)):
        reply = await site.client().post("/hub/login", content=body, headers=headers)
        assert reply.status_code in (status, 400)


@pytest.mark.parametrize("path", ["/hub/login", "/hub/api/users/x/tokens", "/hub/api/oauth2/token"])
async def test_a_body_without_an_announced_length_that_is_too_large_is_413(
    path: str, world: World
) -> None:
    async def endless() -> AsyncIterator[bytes]:
        for _ in range(MAX_BODY_BYTES // 65536 + 1):
            yield b"a" * 65536

    transport = httpx.ASGITransport(app=create_public_app(world.hub))
    async with httpx.AsyncClient(transport=transport, base_url=ORIGIN) as client:
        with capture_logs() as lines:
            reply = await client.post(path, content=endless(), headers=_FORM)
    assert reply.status_code == 413
    assert lines == []


async def test_who_leaves_in_the_middle_of_a_body_leaves_no_fault_in_the_log(world: World) -> None:
    app = create_public_app(world.hub)
    said: list[dict[str, Any]] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> dict[str, Any]:
        return said.pop(0) if said else {"type": "http.disconnect"}

    async def send(_message: Any) -> None: ...

    scope = {
        "type": "http",
        "method": "POST",
        "path": "/hub/api/users/x/tokens",
        "raw_path": b"/hub/api/users/x/tokens",
        "query_string": b"",
        "headers": [(b"host", b"hub.test")],
        "client": ("127.0.0.1", 1),
        "scheme": "http",
    }
    with capture_logs() as lines:
        await app(scope, receive, send)
    assert lines == []


async def test_a_call_is_judged_by_what_holds_once_it_is_all_there(
    live: World, new_person: NewPerson
) -> None:
    bob = await new_person("bob")

    async def revoke() -> None:
        async with live.hub.database.write() as session:
            await session.exec(delete(Token))

    reply = await bob.post("/users/bob/tokens", content=slowly(b"{", revoke, b"}"))
    assert reply.status_code == 403
    async with live.hub.database.read() as session:
        assert (await session.exec(select(Token))).all() == []


async def test_nobody_gets_a_token_of_whoever_has_their_number_now(
    live: World, new_person: NewPerson
) -> None:
    bob = await new_person("bob")

    async def replace_bob() -> None:
        async with live.hub.database.write() as session:
            old = (await session.exec(select(User).where(User.name == "bob"))).one()
            await session.exec(delete(User).where(col(User.id) == old.id))
            session.expunge(old)
            session.add(User(id=old.id, name="eve", created=live.hub.clock.now()))

    reply = await bob.post("/users/bob/server", content=slowly(b"{", replace_bob, b"}"))
    assert reply.status_code == 403


async def test_a_form_is_judged_by_what_holds_once_it_is_all_there(site: Site) -> None:
    browser = await site.signed_in("alice")
    form = form_of(await browser.get("/hub/token"), "make-token")
    body = "&".join(f"{name}={value}" for name, value in form["fields"].items()).encode()

    async def sign_out_everywhere() -> None:
        async with site.hub.database.write() as session:
            user = (await session.exec(select(User).where(User.name == "alice"))).one()
            await end_other_sessions(session, user, None, at=site.clock.now())

    content = slowly(body, sign_out_everywhere, b"&note=late")
    headers = {**browser.headers, "Sec-Fetch-Site": "same-origin", **_FORM}
    reply = await browser.client.post("/hub/token", content=content, headers=headers)
    assert reply.status_code == 403
    assert await site.tokens() == []
