"""Servers with a name on pages, options in addresses, and the page of people."""

import pytest
from hub.web.site import Site, open_site

from carrel_hub.db.models import Server
from carrel_hub.errors import UnprocessableError
from carrel_hub.groups.store import create_groups
from carrel_hub.spawns.service import ensure_server
from carrel_hub.startup import apply_settings
from carrel_hub.web.spawn import query_options


async def test_another_server_is_started_by_its_name_and_shown() -> None:
    async with open_site(allow_named_servers=True, named_server_limit=1) as site:
        browser = await site.signed_in("alice")
        home = await browser.get("/hub/home")
        token = str(browser.client.cookies["_xsrf"])
        for name, status in (("La Bo", 400), ("", 400), ("lab", 302), ("second", 400)):
            form = {"_xsrf": token, "name": name}
            reply = await browser.client.post("/hub/spawn-named", data=form)
            assert reply.status_code == status, name
            if status == 302:
                assert reply.headers["location"] == "/hub/spawn-pending/alice/lab"
        assert 'action="/hub/spawn-named"' in home.text
        [row] = await site.all(Server)
        assert (row.name, row.state) == ("lab", "queued")
        again = await browser.get("/hub/home")
        assert 'data-server="lab"' in again.text
        assert 'action="/hub/stop/alice/lab"' in again.text
        forged = await browser.client.post("/hub/spawn-named", data={"name": "x"})
        assert forged.status_code == 403


async def test_named_servers_are_not_offered_where_they_are_off(site: Site) -> None:
    browser = await site.signed_in("alice")
    assert "spawn-named" not in (await browser.get("/hub/home")).text
    form = {"_xsrf": str(browser.client.cookies["_xsrf"]), "name": "lab"}
    assert (await browser.client.post("/hub/spawn-named", data=form)).status_code == 400
    assert await site.all(Server) == []


async def test_a_visit_starts_a_new_named_server_with_the_addresss_options() -> None:
    async with open_site(allow_named_servers=True) as site:
        browser = await site.signed_in("alice")
        query = (
            "opt-profile=big&ignored=1&opt-n=1&opt-n=2&display_name=My+Lab&next=/user/alice/lab/x"
        )
        reply = await browser.get(f"/hub/spawn/alice/lab?{query}")
        assert reply.status_code == 302
        location = reply.headers["location"]
        assert location.startswith("/hub/spawn-pending/alice/lab?opt-profile=big")
        assert "display_name" not in location
        assert location.endswith("next=%2Fuser%2Falice%2Flab%2Fx")
        [row] = await site.all(Server)
        assert row.user_options == {"profile": ["big"], "n": ["1", "2"]}
        assert row.display_name == "My Lab"
        assert (await browser.get("/hub/spawn/alice/other?opt-=x")).status_code == 422
        assert (await browser.get("/hub/spawn/alice/LAB")).status_code == 400


async def test_the_button_on_a_page_that_starts_nothing_keeps_the_options(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get("/hub/spawn/alice?opt-n=1", sec_fetch_site="cross-site")
    assert await site.all(Server) == []
    reply = await browser.press(page, "start")
    assert reply.status_code == 302
    [row] = await site.all(Server)
    assert row.user_options == {"n": ["1"]}


def test_options_of_an_address() -> None:
    assert query_options([("next", "/x"), ("display_name", "y"), ("_xsrf", "z")]) is None
    assert query_options([("a", "1"), ("a", "2")]) == {"a": ["1", "2"]}
    assert query_options([("a", "1"), ("opt-b", "2")]) == {"b": ["2"]}
    with pytest.raises(UnprocessableError):
        query_options([("opt-", "1")])


async def test_the_page_of_people_is_for_those_who_look_after_some() -> None:
    roles = [
        {
            "name": "helper",
            "scopes": ["admin-ui", "list:users!group=lab", "read:servers!group=lab",
                       "start:servers!group=lab"],
            "users": ["helper"],
        }
    ]  # fmt: skip
    async with open_site(roles=roles, allow_named_servers=True) as site:
        boss = await site.signed_in("boss", admin=True)
        for name in ("alice", "bob"):
            await site.add_user(name)
        alice = await site.world.user("alice")
        async with site.hub.database.write() as db:
            await create_groups(db, ["lab"], [alice], at=site.clock.now(), actor="test")
            await ensure_server(db, alice, "second", at=site.clock.now())
        page = await boss.get("/hub/admin")
        assert page.status_code == 200
        assert page.text.count('data-user="alice"') == 2
        assert 'data-user="bob"' in page.text
        assert 'action="/hub/spawn/alice/second"' in page.text
        only = await boss.get("/hub/admin?name_filter=BO")
        assert 'data-user="alice"' not in only.text
        assert 'data-user="bob"' in only.text

        helper = await site.signed_in("helper")
        page = await helper.get("/hub/admin")
        assert page.text.count('data-user="alice"') == 2
        assert 'data-user="bob"' not in page.text
        await site.add_server("alice", "ready", host="local")
        assert 'action="/hub/stop/' not in (await helper.get("/hub/admin")).text
        plain = await site.signed_in("carol")
        assert (await plain.get("/hub/admin")).status_code == 403
        assert (await site.browser().get("/hub/admin")).status_code == 302


async def test_services_are_linked_for_those_they_open_to() -> None:
    services = [
        {"name": "grader", "url": "http://127.0.0.1:8"},
        {"name": "hidden", "url": "http://127.0.0.1:8", "display": False},
        {"name": "bosss", "url": "http://127.0.0.1:8"},
        {"name": "culler"},
    ]
    roles = [{"name": "user", "scopes": ["self", "access:services!service=grader",
                                         "access:services!service=hidden"]}]  # fmt: skip
    async with open_site(services=services, roles=roles) as site:
        await apply_settings(site.hub)
        alice = await (await site.signed_in("alice")).get("/hub/home")
        assert '<a href="/services/grader/">grader</a>' in alice.text
        for name in ("hidden", "bosss", "culler"):
            assert f"/services/{name}/" not in alice.text
        assert 'id="nav-admin"' not in alice.text
        boss = await (await site.signed_in("boss", admin=True)).get("/hub/home")
        assert "/services/bosss/" in boss.text
        assert 'id="nav-admin"' in boss.text
