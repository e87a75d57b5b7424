"""The page on which owners share a server."""

import html
import re
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from hub.web.site import ORIGIN, Browser, Site, form_of, has_element, open_site
from hub.web.test_every_page import CANARY, check_page

from carrel_hub.db.models import Server, Share, ShareCode
from carrel_hub.groups.store import create_groups

NAMES = {"name": "neighbours", "scopes": ["read:users:name", "read:groups:name"]}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    settings: dict[str, Any] = {
        "extra_user_scopes": ["shares!user"],
        "roles": [{**NAMES, "users": ["alice"]}],
        "allow_named_servers": True,
    }
    async with open_site(**settings) as made:
        await made.add_user("bob")
        yield made


async def send(browser: Browser, path: str, **fields: str) -> httpx.Response:
    return await browser.post(path, {"_xsrf": browser.client.cookies["_xsrf"], **fields})


async def test_a_link_is_made_shown_once_accepted_and_taken_back(site: Site) -> None:
    alice, bob = await site.signed_in("alice"), await site.signed_in("bob")
    home = await alice.get("/hub/home")
    assert 'id="share" class="button quiet" href="/hub/share/alice"' in home.text
    page = await alice.get("/hub/share/alice")
    check_page(page)
    assert await site.all(Server) == [], "looking makes nothing"
    made = await alice.press(page, "make-link", scope="access:servers", lifetime="3600")
    assert made.status_code == 200
    check_page(made)
    found = re.search(r'id="new-link" value="([^"]+)"', made.text)
    assert found is not None
    link = html.unescape(found[1])
    assert link.startswith(f"{ORIGIN}/hub/accept-share?code=")
    assert "new-link" not in (await alice.get("/hub/share/alice")).text

    offer = await bob.get(link.removeprefix(ORIGIN))
    assert (await bob.press(offer, "accept")).headers["location"] == "/user/alice/"
    page = await alice.get("/hub/share/alice")
    assert 'data-with="bob"' in page.text
    assert "1 time<" in page.text
    [code] = await site.all(ShareCode)
    back = await send(alice, "/hub/share/alice", do="revoke-link", number=f"sc_{code.id}")
    assert (back.status_code, back.headers["location"]) == (303, "/hub/share/alice")
    assert (await bob.get(link.removeprefix(ORIGIN))).status_code == 404
    assert len(await site.all(Share)) == 1, "who accepted keeps it"
    away = await send(alice, "/hub/share/alice", do="revoke", kind="user", name="bob")
    assert away.status_code == 303
    assert await site.all(Share) == []


async def test_a_server_is_shared_by_name_with_people_and_groups(site: Site) -> None:
    alice = await site.signed_in("alice")
    async with site.hub.database.write() as db:
        await create_groups(db, ["owls"], [], at=site.clock.now(), actor="hub")
    page = await alice.get("/hub/share/alice/thesis")
    assert page.status_code == 404, "there is none of that name"
    site_path = "/hub/share/alice"
    await alice.get(site_path)
    for kind, name in (("user", "bob"), ("group", "owls")):
        reply = await send(
            alice, site_path, do="grant", kind=kind, name=name, scope="access:servers"
        )
        assert reply.status_code == 303
    page = await alice.get(site_path)
    assert "owls (group)" in page.text
    assert 'data-with="bob"' in page.text
    assert {event.actor for event in await site.events("share.granted")} == {"user:alice"}


@pytest.mark.parametrize(
    ("fields", "status", "words"),
    [
        ({"do": "link", "lifetime": "7", "scope": "access:servers"}, 400, "no such choice"),
        ({"do": "link", "lifetime": "3600"}, 400, "Choose what they may do"),
        ({"do": "link", "lifetime": "3600", "scope": "admin:users"}, 400, "cannot be shared"),
        ({"do": "link", "lifetime": "3600", "scope": "admin:servers"}, 403, "do not have"),
        ({"do": "grant", "name": "nobody", "scope": "access:servers"}, 400, "called nobody"),
        ({"do": "grant", "name": "", "scope": "access:servers"}, 400, "Say with whom"),
        ({"do": "grant", "name": "alice", "scope": "access:servers"}, 400, "theirs already"),
        ({"do": "grant", "name": CANARY, "scope": "access:servers"}, 400, "There is no user"),
        ({"do": "revoke-link", "number": "sc_99"}, 404, "no such link"),
        ({"do": "fly"}, 400, "no such button"),
    ],
)
async def test_what_cannot_be_is_said_on_the_page(
    site: Site, fields: dict[str, str], status: int, words: str
) -> None:
    alice = await site.signed_in("alice")
    await alice.get("/hub/share/alice")
    reply = await send(alice, "/hub/share/alice", **fields)
    assert reply.status_code == status
    check_page(reply)
    assert has_element(reply, "problem")
    assert words in html.unescape(reply.text)
    assert await site.all(ShareCode) == await site.all(Share) == []


async def test_others_servers_are_nobodys_business(site: Site) -> None:
    await site.signed_in("alice")
    bob = await site.signed_in("bob")
    await bob.get("/hub/home")
    for path in ("/hub/share/alice", "/hub/share/nobody"):
        assert (await bob.get(path)).status_code == 404
        for do in ("link", "grant", "revoke", "revoke-link"):
            fields = {"do": do, "lifetime": "3600", "scope": "access:servers", "name": "bob"}
            assert (await send(bob, path, **fields)).status_code == 404
    assert await site.all(ShareCode) == await site.all(Share) == []
    bobs = await bob.get("/hub/share/bob")
    assert has_element(bobs, "make-link")
    assert not has_element(bobs, "grant"), "he may name nobody"
    for name in ("alice", "nobody"):
        reply = await send(bob, "/hub/share/bob", do="grant", name=name, scope="access:servers")
        assert reply.status_code == 403, "nor learn by trying who there is"


async def test_without_the_right_to_share_the_page_only_shows() -> None:
    async with open_site() as site:
        alice = await site.signed_in("alice")
        assert not has_element(await alice.get("/hub/home"), "share")
        page = await alice.get("/hub/share/alice")
        assert has_element(page, "may-not")
        check_page(page)
        fields = {"do": "link", "lifetime": "3600", "scope": "access:servers"}
        assert (await send(alice, "/hub/share/alice", **fields)).status_code == 403
        assert (await alice.post("/hub/share/alice", fields)).status_code == 403
        assert await site.all(ShareCode) == []


async def test_a_form_from_elsewhere_shares_nothing(site: Site) -> None:
    alice = await site.signed_in("alice")
    fields = {"do": "link", "lifetime": "3600", "scope": "access:servers"}
    assert (await alice.post("/hub/share/alice", fields)).status_code == 403
    form = form_of(await alice.get("/hub/share/alice"), "make-link")
    assert form["fields"]["do"] == "link"
    assert await site.all(ShareCode) == []
