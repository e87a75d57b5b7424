"""Starting by a visit, watching, and being told what went wrong."""

from urllib.parse import quote

import pytest
from hub.web.site import Browser, Site, has_element

from carrel_hub.db.models import Server


async def states(site: Site) -> list[str]:
    return [row.state for row in await site.all(Server)]


@pytest.mark.parametrize("where", ["same-origin", "none", None])
async def test_a_visit_of_ones_own_starts_the_server(site: Site, where: str | None) -> None:
    browser = await site.signed_in("alice")
    if where is None:
        browser = Browser(browser.client, headers={})
        reply = await browser.get("/hub/spawn?next=/user/alice/lab/tree/x")
    else:
        reply = await browser.get("/hub/spawn?next=/user/alice/lab/tree/x", sec_fetch_site=where)
    assert reply.status_code == 302
    assert reply.headers["location"] == (
        "/hub/spawn-pending/alice?next=%2Fuser%2Falice%2Flab%2Ftree%2Fx"
    )
    assert await states(site) == ["queued"]


@pytest.mark.parametrize("where", ["cross-site", "same-site"])
async def test_another_site_can_start_nothing(site: Site, where: str) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn?next=/user/alice/lab", sec_fetch_site=where)
    assert page.status_code == 200
    assert await states(site) == []
    reply = await browser.press(page, "start")
    assert reply.headers["location"] == "/hub/spawn-pending/alice?next=%2Fuser%2Falice%2Flab"
    assert await states(site) == ["queued"]


async def test_a_guess_of_the_browser_starts_nothing(site: Site) -> None:
    browser = await site.signed_in("alice")
    assert (await browser.get("/hub/spawn", sec_purpose="prefetch;prerender")).status_code == 200
    assert await states(site) == []


async def test_a_server_that_runs_is_gone_to(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "ready")
    for path in ("spawn", "spawn/alice", "spawn-pending/alice"):
        reply = await browser.get(f"/hub/{path}")
        assert (reply.status_code, reply.headers["location"]) == (302, "/user/alice/")
        reply = await browser.get(f"/hub/{path}?next=/user/alice/lab%3Fx")
        assert reply.headers["location"] == "/user/alice/lab?x"
        reply = await browser.get(f"/hub/{path}?next=https://evil.example/")
        assert reply.headers["location"] == "/user/alice/"


async def test_an_old_failure_is_no_reason_not_to_try_again(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "failed", failure={"summary": "boom"})
    await browser.get("/hub/spawn")
    assert await states(site) == ["queued"]


async def test_looking_changes_nothing(site: Site) -> None:
    browser = await site.signed_in("alice")
    for state in ("stopped", "queued", "starting", "stopping", "failed", "unknown"):
        await site.add_server("alice", state)
        await browser.get("/hub/spawn-pending/alice")
        assert await states(site) == [state]


async def test_a_start_is_watched_by_stream_or_by_looking_again(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "starting", progress=40, progress_message="Importing")
    page = await browser.get("/hub/spawn-pending/alice")
    assert page.status_code == 200
    assert "Importing" in page.text
    assert 'value="40"' in page.text
    token = browser.client.cookies["_xsrf"]
    assert f'data-stream="/hub/api/users/alice/server/progress?_xsrf={token}"' in page.text
    assert '<noscript><meta http-equiv="refresh"' in page.text


async def test_a_failure_shows_cause_status_and_the_last_lines(site: Site) -> None:
    browser = await site.signed_in("alice")
    failure = {
        "summary": "JupyterLab ended before it answered.",
        "code": 3,
        "advice": "Remove <packages> of your own.",
        "command": "jupyter lab",
        "log_tail": ["first line", "ModuleNotFoundError: no module"],
    }
    await site.add_server("alice", "failed", failure=failure)
    page = await browser.get("/hub/spawn-pending/alice?next=/user/alice/lab")
    assert page.status_code == 500
    for text in (
        "JupyterLab ended before it answered.",
        "exit status 3",
        "ModuleNotFoundError",
        "Remove &lt;packages&gt; of your own.",
        "<code>jupyter lab</code>",
    ):
        assert text in page.text
    reply = await browser.press(page, "start")
    assert reply.headers["location"] == "/hub/spawn-pending/alice?next=%2Fuser%2Falice%2Flab"


async def test_a_stopped_server_offers_a_start(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn-pending/alice")
    assert page.status_code == 200
    assert has_element(page, "start")


async def test_named_servers_are_off_and_others_are_nobodys_business(site: Site) -> None:
    await site.add_user("bob")
    browser = await site.signed_in("alice")
    reply = await browser.get("/hub/spawn/alice/project")
    assert reply.status_code == 400
    assert "Named servers" in reply.text
    for kind in ("spawn", "spawn-pending"):
        texts = set()
        for name in ("bob", "nobody", "..", "x" * 200):
            reply = await browser.get(f"/hub/{kind}/{name.replace('..', '%2e%2e%2e')}")
            assert reply.status_code == 404
            texts.add(reply.text)
        assert len(texts) == 1, "what is there and what is not look the same"
    assert await states(site) == []


async def test_an_administrator_starts_somebody_elses_server(site: Site) -> None:
    await site.add_user("bob")
    browser = await site.signed_in("alice", admin=True)
    reply = await browser.get("/hub/spawn/bob")
    assert reply.headers["location"] == "/hub/spawn-pending/bob"
    page = await browser.follow(reply)
    assert "bob" in page.text
    assert (await browser.get("/hub/spawn/nobody")).status_code == 404


async def test_a_shared_link_leads_to_ones_own_server(site: Site) -> None:
    browser = await site.signed_in("alice")
    reply = await browser.get("/hub/user-redirect/lab/tree/a%20b.ipynb?x=1&y=2")
    assert reply.status_code == 302
    assert reply.headers["location"] == (
        "/hub/spawn/alice?next=%2Fuser%2Falice%2Flab%2Ftree%2Fa%2520b.ipynb%3Fx%3D1%26y%3D2"
    )


async def test_a_shared_link_opens_the_server_that_the_settings_name(site: Site) -> None:
    site.world.change_settings(allow_named_servers=True, default_server_name="lab")
    browser = await site.signed_in("alice")
    reply = await browser.get("/hub/user-redirect/tree/a?x=1")
    next_ = quote("/user/alice/lab/tree/a?x=1", safe="")
    assert reply.headers["location"] == f"/hub/spawn/alice/lab?next={next_}"
    site.world.change_settings(allow_named_servers=False)
    reply = await browser.get("/hub/user-redirect/tree")
    assert reply.headers["location"].startswith("/hub/spawn/alice?")


@pytest.mark.parametrize(
    "path", ["home", "spawn", "spawn/alice", "spawn-pending/alice", "user-redirect/lab", ""]
)
async def test_who_is_not_signed_in_comes_back_after_that(site: Site, path: str) -> None:
    reply = await site.browser().get(f"/hub/{path}?x=%20y")
    assert reply.status_code == 302
    from urllib.parse import quote

    wanted = quote(f"/hub/{path}?x=%20y", safe="")
    assert reply.headers["location"] == f"/hub/login?next={wanted}"


async def test_a_failure_for_the_home_offers_a_scratch_home_for_one_start(site: Site) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice", "failed", failure={"summary": "boom"})
    page = await browser.get("/hub/spawn-pending/alice")
    assert not has_element(page, "start-scratch")
    [row] = await site.all(Server)
    failure = {"summary": "The disk that holds your home is full.", "scratch_home": True}
    options = {"profile": "default"}
    await site.add_server("alice", "failed", failure=failure, user_options=options)
    page = await browser.get("/hub/spawn-pending/alice")
    assert has_element(page, "scratch-home")
    await browser.press(page, "start-scratch")
    [row] = await site.all(Server)
    assert (row.state, row.user_options) == ("queued", {**options, "scratch_home": True})


async def test_a_scratch_home_is_asked_for_in_the_address_and_told_on_the_home_page(
    site: Site,
) -> None:
    browser = await site.signed_in("alice")
    await browser.get("/hub/spawn?scratch_home=1")
    [row] = await site.all(Server)
    assert row.user_options == {"scratch_home": True}
    await site.add_server("alice", "ready", user_options={"scratch_home": True})
    assert "in a scratch home" in (await browser.get("/hub/home")).text
