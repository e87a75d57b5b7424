"""The form that asks what is to be started."""

from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest
from hub.web.site import Browser, Site, form_of, has_element, open_site
from hub.web.test_every_page import CANARY, check_page

from carrel_hub.db.models import Server
from carrel_hub.groups.store import join_group

PROFILES: dict[str, Any] = {
    "default": {"title": "Notebooks", "description": "Small and quick"},
    "lab": {
        "title": "Course",
        "options": {
            "size": {"title": "Memory", "choices": {"s": "2 GB", "l": "8 GB"}},
            "hours": {"kind": "number", "maximum": 8, "help": "It ends by itself then."},
            "gpu": {"kind": "switch", "default": True},
        },
    },
    "staff": {"groups": ["staff"]},
}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(profiles=PROFILES, allow_named_servers=True) as made:
        yield made


async def servers(site: Site) -> list[tuple[str, str, dict[str, Any]]]:
    return [(row.state, row.profile, row.user_options) for row in await site.all(Server)]


async def send(browser: Browser, page: httpx.Response, *fields: tuple[str, str]) -> httpx.Response:
    """Send the form of a page as a browser does, fields of one name in their order."""
    form = form_of(page, "start")
    sent = {**browser.headers, "Sec-Fetch-Site": "same-origin"}
    sent["Content-Type"] = "application/x-www-form-urlencoded"
    body = urlencode([("_xsrf", form["fields"]["_xsrf"]), *fields])
    return await browser.client.post(form["action"], content=body, headers=sent)


async def test_a_visit_asks_first_and_the_choice_is_started_and_remembered(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn?next=/user/alice/lab/tree/x")
    assert page.status_code == 200
    check_page(page)
    assert await servers(site) == []
    assert "Notebooks" in page.text
    assert "It ends by itself then." in page.text
    assert 'value="staff"' not in page.text, "it is for the group's members"
    chosen = (("lab.size", "l"), ("lab.hours", "3"), ("lab.gpu", "off"))
    reply = await send(browser, page, ("profile", "lab"), *chosen)
    assert (reply.status_code, reply.headers["location"]) == (
        302,
        "/hub/spawn-pending/alice?next=%2Fuser%2Falice%2Flab%2Ftree%2Fx",
    )
    kept = {"profile": "lab", "size": "l", "hours": 3, "gpu": False}
    assert await servers(site) == [("queued", "lab", kept)]
    await site.add_server("alice", "stopped")
    again = await browser.get("/hub/spawn/alice")
    assert 'value="lab" checked' in again.text
    assert '<option value="l" selected>' in again.text
    assert 'name="lab.hours" value="3"' in again.text
    assert not has_ticked(again, "lab.gpu")


def has_ticked(page: httpx.Response, name: str) -> bool:
    line = next(one for one in page.text.splitlines() if f'name="{name}" value="on"' in one)
    return "checked" in line


async def test_what_is_wrong_is_said_beside_it_and_nothing_is_lost(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn?next=/user/alice/lab")
    wrong = (("lab.size", "l"), ("lab.hours", f"9{CANARY}"), ("lab.gpu", "off"), ("lab.gpu", "on"))
    reply = await send(browser, page, ("profile", "lab"), *wrong)
    assert reply.status_code == 400
    check_page(reply)
    assert "write a whole number" in reply.text
    assert 'aria-invalid="true"' in reply.text
    assert '<option value="l" selected>' in reply.text
    assert has_ticked(reply, "lab.gpu")
    assert form_of(reply, "start")["action"] == "/hub/spawn/alice?next=%2Fuser%2Falice%2Flab"
    assert await servers(site) == []
    unknown = await send(browser, reply, ("profile", "staff"))
    assert unknown.status_code == 400
    assert "choose one of default, lab" in unknown.text
    twice = await send(browser, reply, ("profile", "lab"), ("size", "s"), ("lab.size", "l"))
    assert twice.status_code == 400
    assert "say it once" in twice.text


async def test_fields_of_profiles_that_are_not_chosen_do_not_count(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn")
    reply = await send(browser, page, ("profile", "default"), ("lab.hours", "99"))
    assert reply.status_code == 302
    assert await servers(site) == [("queued", "default", {"profile": "default"})]


async def test_an_address_with_options_starts_at_once_or_says_what_is_wrong(site: Site) -> None:
    browser = await site.signed_in("alice")
    wrong = await browser.get("/hub/spawn?opt-profile=lab&opt-hours=12")
    assert wrong.status_code == 400
    check_page(wrong)
    assert "8 is the most" in wrong.text
    assert await servers(site) == []
    elsewhere = "/hub/spawn?opt-profile=lab&opt-size=l"
    page = await browser.get(elsewhere, sec_fetch_site="cross-site")
    assert page.status_code == 200
    assert '<option value="l" selected>' in page.text
    assert await servers(site) == [], "another site can start nothing"
    assert (await browser.get(elsewhere)).status_code == 302
    assert await servers(site) == [("queued", "lab", {"profile": "lab", "size": "l"})]


async def test_a_start_that_is_refused_keeps_the_form(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_user("bob")
    await site.add_server("bob", "ready")
    site.world.change_settings(active_server_limit=1)
    page = await browser.get("/hub/spawn")
    reply = await send(browser, page, ("profile", "lab"), ("lab.size", "l"), ("lab.hours", "4"))
    assert reply.status_code == 429
    assert has_element(reply, "problem")
    assert 'name="lab.hours" value="4"' in reply.text


async def test_a_profile_is_there_for_members_whoever_presses(site: Site) -> None:
    alice = await site.add_user("alice")
    root = await site.signed_in("bob", admin=True)
    assert 'value="staff"' not in (await root.get("/hub/spawn/alice")).text
    async with site.hub.database.write() as db:
        await join_group(db, alice, "staff", at=site.clock.now())
    page = await root.get("/hub/spawn/alice")
    assert "Start the server of alice" in page.text
    assert (await send(root, page, ("profile", "staff"))).status_code == 302
    assert await servers(site) == [("queued", "staff", {"profile": "staff"})]


async def test_other_pages_lead_to_the_form(site: Site) -> None:
    browser = await site.signed_in("alice")
    home = await browser.get("/hub/home")
    assert 'id="start" href="/hub/spawn/alice"' in home.text
    named = await browser.post(
        "/hub/spawn-named", {"_xsrf": browser.client.cookies["_xsrf"], "name": "thesis"}
    )
    assert named.headers["location"] == "/hub/spawn/alice/thesis"
    form = await browser.get("/hub/spawn/alice/thesis")
    assert "Start your server, thesis" in form.text
    assert (await send(browser, form, ("profile", "lab"))).status_code == 302
    await site.add_server("alice", "failed", failure={"summary": "boom"})
    failed = await browser.get("/hub/spawn-pending/alice")
    assert has_element(failed, "choose")
    again = await browser.press(failed, "start")
    assert again.status_code == 302, "trying again needs no new choice"


async def test_with_one_profile_its_options_alone_are_asked_for() -> None:
    options = {"topic": {"kind": "text", "required": True}}
    async with open_site(profiles={"default": {"options": options}}) as site:
        browser = await site.signed_in("alice")
        page = await browser.get("/hub/spawn")
        check_page(page)
        assert 'type="radio"' not in page.text
        assert form_of(page, "start")["fields"]["profile"] == "default"
        empty = await send(browser, page, ("profile", "default"), ("default.topic", ""))
        assert (empty.status_code, "this is needed" in empty.text) == (400, True)
        sent = await send(browser, page, ("profile", "default"), ("default.topic", "owls"))
        assert sent.status_code == 302
        await site.world.report()
        row = await site.world.drive((await site.all(Server))[0])
        [spec] = site.world.agent.specs
        assert spec.environment["CARREL_OPTION_TOPIC"] == "owls"
        assert row.user_options == {"profile": "default", "topic": "owls"}
