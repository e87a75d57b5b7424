"""The home page and its buttons."""

from datetime import timedelta

import pytest
from hub.web.site import Site, form_of, has_element, open_site

from carrel_hub.db.models import Server
from carrel_hub.web.server_view import duration, failure_view


@pytest.mark.parametrize(
    ("state", "words", "buttons", "refreshes"),
    [
        ("stopped", "Not running", {"start"}, False),
        ("queued", "Waiting to start", {"watch", "stop"}, True),
        ("starting", "Starting", {"watch", "stop"}, True),
        ("ready", "Running", {"open", "stop"}, False),
        ("stopping", "Stopping", {"watch"}, True),
        ("failed", "Failed", {"start", "why"}, False),
        ("unknown", "Not known", {"open", "stop"}, False),
    ],
)
async def test_each_state_has_its_words_and_buttons(
    site: Site, state: str, words: str, buttons: set[str], refreshes: bool
) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", state)
    page = await browser.get("/hub/home")
    assert f">{words}<" in page.text
    every = {"start", "open", "stop", "watch", "why"}
    assert {name for name in every if has_element(page, name)} == buttons
    assert ('http-equiv="refresh"' in page.text) == refreshes


async def test_a_running_server_says_for_how_long(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "ready")
    site.clock.advance(3 * 3600)
    assert "for 3 hours" in (await browser.get("/hub/home")).text


async def test_start_and_stop_are_buttons_that_change_rows(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/home")
    reply = await browser.press(page, "start")
    assert (reply.status_code, reply.headers["location"]) == (302, "/hub/spawn-pending/alice")
    [row] = await site.all(Server)
    assert (row.target, row.state, row.generation) == ("running", "queued", 1)
    await site.add_server("alice", "ready", host="local")
    reply = await browser.press(await browser.get("/hub/home"), "stop")
    assert (reply.status_code, reply.headers["location"]) == (303, "/hub/home")
    [row] = await site.all(Server)
    assert (row.target, row.state) == ("stopped", "stopping")
    assert "alice pressed Stop" in row.stop_reason
    told = await site.world.events(row)
    assert told == ["server.created", "server.requested", "server.stop_requested"]


async def test_pressing_twice_starts_once(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/home")
    for _ in range(3):
        assert (await browser.press(page, "start")).status_code == 302
    token = {"_xsrf": str(browser.client.cookies["_xsrf"])}
    by_a_script = await browser.client.post("/hub/spawn/alice", data=token)
    assert by_a_script.status_code == 400
    [row] = await site.all(Server)
    assert row.generation == 1


@pytest.mark.parametrize("path", ["/hub/spawn", "/hub/spawn/alice", "/hub/stop/alice"])
async def test_buttons_need_the_pages_token(site: Site, path: str) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "ready" if "stop" in path else "stopped")
    for fields in ({}, {"_xsrf": "wrong"}):
        for mode, where in (("navigate", "cross-site"), ("no-cors", "same-origin")):
            reply = await browser.post(path, fields, sec_fetch_mode=mode, sec_fetch_site=where)
            assert reply.status_code == 403
    [row] = await site.all(Server)
    assert row.state in ("ready", "stopped")


async def test_nobody_presses_somebody_elses_buttons(site: Site) -> None:
    await site.add_user("bob")
    await site.add_server("bob", "ready")
    browser = await site.signed_in("alice")
    token = str(browser.client.cookies["_xsrf"])
    for path in ("/hub/stop/bob", "/hub/spawn/bob", "/hub/stop/nobody", "/hub/spawn/nobody"):
        reply = await browser.post(path, {"_xsrf": token})
        assert reply.status_code == 404, path
    assert "bob" not in (await browser.get("/hub/home")).text
    [row] = await site.all(Server)
    assert row.state == "ready"


async def test_an_administrator_sees_everybody_and_presses_their_buttons(site: Site) -> None:
    await site.add_user("bob")
    await site.add_user("carol")
    await site.add_server("bob", "ready", host="local")
    browser = await site.signed_in("alice", admin=True)
    page = await browser.get("/hub/home")
    assert page.text.index('data-user="bob"') < page.text.index('data-user="carol"')
    token = form_of(page, "start")["fields"]["_xsrf"]
    reply = await browser.post("/hub/stop/bob", {"_xsrf": token})
    assert reply.status_code == 303
    reply = await browser.post("/hub/spawn/carol", {"_xsrf": token, "home": "1"})
    assert reply.headers["location"] == "/hub/home"
    states = {row.client_id: row.state for row in await site.all(Server)}
    assert states == {"jupyterhub-user-bob": "stopping", "jupyterhub-user-carol": "queued"}
    actors = {event.actor for event in await site.events("server.requested")}
    assert actors == {"user:alice"}


async def test_a_hub_only_administrator_is_told_why_there_is_no_start() -> None:
    async with open_site(auth={"allowed_users": ["bob", "dora"]}) as site:
        await site.add_user("bob")
        browser = await site.signed_in("admin", account=None, admin=True, console=True)
        page = await browser.get("/hub/home")
        assert has_element(page, "hub-only")
        assert not has_element(page, "start")
        assert "no unix account" in page.text
        assert 'data-user="bob"' in page.text
        assert "dora" in page.text
        reply = await browser.get("/hub/spawn")
        assert reply.status_code == 400
        assert "no unix account" in reply.text


async def test_many_people_are_cut_short(site: Site) -> None:
    for number in range(210):
        await site.add_user(f"user{number:03}")
    browser = await site.signed_in("alice", admin=True)
    assert "And 10 more." in (await browser.get("/hub/home")).text


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (-5, "less than a minute"), (59, "less than a minute"), (60, "1 minute"),
        (3599, "59 minutes"), (3600, "1 hour"), (86399, "23 hours"), (172800, "2 days"),
    ],
)  # fmt: skip
def test_time_is_told_as_people_do(seconds: int, words: str) -> None:
    assert duration(timedelta(seconds=seconds)) == words


def test_how_a_server_ended_is_told_plainly() -> None:
    assert failure_view({"signal": 9, "summary": "x"}).status == "Ended by signal 9 (SIGKILL)"
    assert failure_view({"signal": 999}).status == "Ended by signal 999 (unknown)"
    assert failure_view({"code": 3}).status == "Ended with exit status 3"
    assert failure_view({"log_tail": "no list"}).log_tail == []
    assert failure_view(None).summary
