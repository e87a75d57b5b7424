"""The page of hosts."""

import html
import re
from collections.abc import AsyncIterator
from datetime import timedelta

import pytest
from hub.hosts.conftest import Machine
from hub.web.site import Browser, Site, form_of, has_element, open_site
from hub.web.test_every_page import CANARY, check_page

from carrel_hub.app import create_fleet_app
from carrel_hub.db.models import AgentHost, JoinToken


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(fleet_listen="0.0.0.0:8444") as made:
        await made.world.report()
        yield made


def row_of(text: str, host: str) -> str:
    found = re.search(rf'<tr data-host="{host}">.*?</tr>', text, re.DOTALL)
    assert found is not None, text
    return found[0]


async def send(browser: Browser, path: str, **fields: str) -> int:
    sent = {"_xsrf": browser.client.cookies["_xsrf"], **fields}
    return (await browser.post(path, sent)).status_code


async def test_a_machine_joins_by_a_token_that_is_shown_once(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    assert 'id="nav-hosts"' in (await boss.get("/hub/home")).text
    page = await boss.get("/hub/hosts")
    check_page(page)
    made = await boss.press(page, "make-token", name="rack-1")
    assert made.status_code == 200
    check_page(made)
    assert "carrel-agent join https://hub.test:8444 --systemd" in made.text
    found = re.search(r'id="new-token">([^<]+)<', made.text)
    assert found is not None
    waiting = await boss.get("/hub/hosts")
    assert found[1] not in waiting.text
    assert "Its token is good until" in row_of(waiting.text, "rack-1")
    machine = Machine(site.world, create_fleet_app(site.hub))
    assert (await machine.join(found[1])).status_code == 200
    report = await machine.report(labels={"zone": "a"})
    assert report.status_code == 200
    line = row_of((await boss.get("/hub/hosts")).text, "rack-1")
    for words in ("Ready", "4 cores, load 0.5", "6.0 GiB of 8.0 GiB free", "zone=a"):
        assert words in line


async def test_a_host_is_drained_and_taken_in_again(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    await boss.get("/hub/hosts")
    assert await send(boss, "/hub/hosts/local", do="drain") == 303
    line = row_of((await boss.get("/hub/hosts")).text, "local")
    assert "Draining" in line
    assert "Take in" in line
    assert await send(boss, "/hub/hosts/local", do="take-in") == 303
    assert "Drain<" in row_of((await boss.get("/hub/hosts")).text, "local")
    assert [one.actor for one in await site.events("host.draining")] == ["user:alice"]
    assert await send(boss, "/hub/hosts/local", do="fly") == 400
    assert await send(boss, "/hub/hosts/nowhere", do="drain") == 404


async def test_a_host_is_emptied_and_removed_once_that_is_meant(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    async with site.hub.database.write() as db:
        db.add(AgentHost(name="rack-1", joined_at=site.clock.now(), seen_at=site.clock.now()))
    await site.add_user("bob")
    server = await site.add_server("bob", "ready", host="rack-1")
    page = await boss.get("/hub/hosts/rack-1")
    assert has_element(page, "evacuate")
    early = await boss.get("/hub/hosts/rack-1?sure=remove")
    check_page(early)
    assert "One server runs there, or may: evacuate it first." in early.text
    assert not has_element(early, "sure")
    assert await send(boss, "/hub/hosts/rack-1", do="remove") == 409
    sure = await boss.get("/hub/hosts/rack-1?sure=evacuate")
    check_page(sure)
    assert "what runs there is stopped: 1 server." in sure.text
    assert (await site.world.row(server)).state == "ready", "asking does nothing"
    assert (await boss.press(sure, "sure")).status_code == 303
    assert (await site.world.row(server)).state == "stopping"
    assert "Draining" in row_of((await boss.get("/hub/hosts")).text, "rack-1")
    site.clock.advance(3600)
    lost = await boss.get("/hub/hosts/rack-1?sure=remove")
    check_page(lost)
    assert has_element(lost, "lost")
    assert await send(boss, "/hub/hosts/rack-1", do="remove") == 409, "its box is not ticked"
    assert await send(boss, "/hub/hosts/rack-1", do="remove", lost="1") == 303
    assert "Gone" in row_of((await boss.get("/hub/hosts")).text, "rack-1")
    assert [one.actor for one in await site.events("host.removed")] == ["user:alice"]
    assert not has_element(await boss.get("/hub/hosts/local"), "remove"), "it is in the settings"


async def test_another_machine_is_accepted_once_that_is_meant(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    async with site.hub.database.write() as db:
        db.add(AgentHost(
            name="rack-1", joined_at=site.clock.now(), seen_at=site.clock.now(),
            machine="one", other_machine="two", trouble="its credentials were copied",
        ))  # fmt: skip
    assert has_element(await boss.get("/hub/hosts/rack-1"), "accept")
    sure = await boss.get("/hub/hosts/rack-1?sure=accept")
    check_page(sure)
    assert "its credentials were copied" in sure.text
    assert (await boss.press(sure, "sure")).status_code == 303
    [host] = [one for one in await site.all(AgentHost) if one.name == "rack-1"]
    assert (host.machine, host.other_machine, host.trouble) == ("two", "", "")
    assert not has_element(await boss.get("/hub/hosts/rack-1"), "accept")
    assert await send(boss, "/hub/hosts/rack-1", do="accept") == 409


async def test_a_host_says_what_runs_there(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    await site.add_user("bob")
    await site.add_server("bob", "ready", host="local", reserved_memory=2 << 30)
    assert 'data-title="Servers">1<' in row_of((await boss.get("/hub/hosts")).text, "local")
    page = await boss.get("/hub/hosts/local")
    check_page(page)
    assert 'data-server="bob"' in page.text
    assert 'action="/hub/stop/bob"' in page.text
    assert "2.0 GiB kept" in page.text
    site.clock.advance(120)
    assert "Silent" in (await boss.get("/hub/hosts/local")).text
    assert (await boss.get("/hub/hosts/nowhere")).status_code == 404


async def test_hosts_are_for_administrators(site: Site) -> None:
    alice = await site.signed_in("alice")
    assert 'id="nav-hosts"' not in (await alice.get("/hub/home")).text
    for path in ("/hub/hosts", "/hub/hosts/local"):
        assert (await alice.get(path)).status_code == 403
        assert await send(alice, path, do="drain", name="rack-1") == 403
        assert await send(alice, path, do="evacuate") == 403
        assert (await site.browser().get(path)).status_code == 302
    boss = await site.signed_in("bob", admin=True)
    for path in ("/hub/hosts", "/hub/hosts/local"):
        reply = await boss.post(path, {"do": "drain", "name": "rack-1"})
        assert reply.status_code == 403, "a form of another site"
    assert await site.all(JoinToken) == []
    assert not any(host.draining for host in await site.all(AgentHost))


async def test_what_cannot_be_is_said_and_hostile_text_is_text(site: Site) -> None:
    boss = await site.signed_in("alice", admin=True)
    async with site.hub.database.write() as db:
        db.add(AgentHost(
            name="rack-2", trouble=CANARY, labels={"zone": CANARY}, version=CANARY,
            joined_at=site.clock.now(), seen_at=site.clock.now() - timedelta(seconds=1),
        ))  # fmt: skip
    for path in ("/hub/hosts", "/hub/hosts/rack-2"):
        check_page(await boss.get(path))
    page = await boss.get("/hub/hosts")
    for name, status, words in (
        ("Rack 1", 400, "cannot be a host's name"),
        (CANARY, 400, "cannot be a host's name"),
        ("local", 409, "is in the hub's settings"),
    ):
        reply = await boss.press(page, "make-token", name=name)
        assert reply.status_code == status
        check_page(reply)
        assert has_element(reply, "problem")
        assert words in html.unescape(reply.text)
    assert form_of(page, "make-token")["action"] == "/hub/hosts"


async def test_without_an_address_for_machines_the_page_says_so() -> None:
    async with open_site() as site:
        boss = await site.signed_in("alice", admin=True)
        page = await boss.get("/hub/hosts")
        assert has_element(page, "no-fleet")
        assert await send(boss, "/hub/hosts", name="rack-1") == 400
