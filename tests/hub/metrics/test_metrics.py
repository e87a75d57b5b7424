"""What Prometheus is told, whom it is told to, and what it never is told."""

import re

import httpx
import pytest
from hub.route_walk import build_apps
from hub.users.conftest import NewPerson
from hub.web.site import Browser, Site
from hub.world import World
from prometheus_client.parser import text_string_to_metric_families

from carrel_hub.db.models import Server, Service, Token, User

JUPYTERHUBS = {
    "jupyterhub_request_duration_seconds",
    "jupyterhub_server_spawn_duration_seconds",
    "jupyterhub_server_stop_seconds",
    "jupyterhub_running_servers",
    "jupyterhub_total_users",
    "jupyterhub_active_users",
    "jupyterhub_hub_startup_duration_seconds",
    "jupyterhub_login_duration_seconds",
    "jupyterhub_logout_duration_seconds",
    "jupyterhub_csp_reports",
}


def samples(text: str) -> dict[tuple[str, ...], float]:
    """Return the value of each sample by its name and the values of its labels."""
    return {
        (sample.name, *(value for _, value in sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_the_counts_are_those_of_the_database(new_person: NewPerson, live: World) -> None:
    root = await new_person("root-of-hub", admin=True)
    alice = await new_person("alice")
    assert (await alice.post("/users/alice/server")).status_code == 201
    assert (
        await alice.post("/users/alice/activity", json={"last_activity": "2026-01-01"})
    ).is_success
    live.change_settings(concurrent_spawn_limit=1, spawn_queue_limit=0, slow_spawn_seconds=0)
    live.agent.instant = False
    bob, carol = await new_person("bob"), await new_person("carol")
    assert (await bob.post("/users/bob/server")).status_code == 202
    assert (await carol.post("/users/carol/server")).status_code == 429
    assert (await alice.delete("/users/alice/server")).status_code == 204

    reply = await root.get("/metrics")
    assert reply.status_code == 200
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    families = {family.name for family in text_string_to_metric_families(reply.text)}
    assert families >= JUPYTERHUBS | {"process_cpu_seconds", "python_info"}
    found = samples(reply.text)
    assert found["jupyterhub_total_users",] == 4
    assert found["jupyterhub_running_servers",] == 0
    assert found["carrel_hub_servers", "queued"] + found["carrel_hub_servers", "starting"] == 1
    started = ("jupyterhub_server_spawn_duration_seconds_count", "", "success")
    refused = ("jupyterhub_server_spawn_duration_seconds_count", "throttled", "failure")
    assert (found[started], found[refused]) == (1, 1)
    assert found["jupyterhub_server_stop_seconds_count", "success"] == 1
    assert found["jupyterhub_active_users", "24h"] >= 1
    calls = {
        key[1:]: value
        for key, value in found.items()
        if key[0] == "jupyterhub_request_duration_seconds_count"
    }
    start, stop = (f"carrel_hub.users.servers.{name}_server" for name in ("start", "stop"))
    assert {key: calls[key] for key in calls if key[1] in (start, stop)} == {
        ("201", start, "POST"): 1,
        ("202", start, "POST"): 1,
        ("204", stop, "DELETE"): 1,
        ("429", start, "POST"): 1,
    }


async def test_metrics_are_for_whoever_has_the_scope(new_person: NewPerson, live: World) -> None:
    monitor = await new_person("monitor", admin=True, scopes=["read:metrics"])
    assert (await monitor.get("/metrics")).status_code == 200
    for person in (await new_person("alice"), await new_person(None)):
        assert (await person.get("/metrics")).status_code == 403
        outside = await person.get("http://hub/hub/metrics")
        assert outside.status_code == 403
    assert (await monitor.get("http://hub/hub/metrics")).text.count("total_users") > 1
    live.change_settings(authenticate_prometheus=False)
    assert (await (await new_person(None)).get("/metrics")).status_code == 200


async def test_no_name_and_no_secret_is_in_them(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    canary = "canary"
    _, public, _ = build_apps(site.hub, monkeypatch)
    transport = httpx.ASGITransport(app=public)
    await site.add_user(f"{canary}-user")
    link = await site.new_link(f"{canary}-user")
    async with httpx.AsyncClient(transport=transport, base_url="http://hub.test") as client:
        browser = Browser(client)
        await browser.press(await browser.get(link), "sign-in")
        page = await Browser(client).get(f"/hub/login?next=/{canary}")
        await site.world.ready(f"{canary}-user")
        for path in (
            f"hub/user/{canary}-user/lab",
            f"hub/history/{canary}-user",
            f"hub/spawn/{canary}-user/{canary}-server",
            f"hub/api/users/{canary}-user/servers/{canary}-server",
            f"hub/api/groups/{canary}-group",
            f"hub/api/services/{canary}-service",
            f"hub/api/authorizations/token/{canary}-token",
            f"hub/static/{canary}.css",
            f"user/{canary}-user/{canary}",
            f"{canary}/{canary}?token={canary}",
        ):
            await client.request(f"{canary.upper()}", f"/{path}")
            await browser.get(f"/{path}")
        site.world.change_settings(authenticate_prometheus=False)
        text = (await client.get("/hub/metrics")).text
    assert page.status_code in (200, 302)
    assert "jupyterhub_request_duration_seconds_count" in text
    assert canary not in text.lower()
    secrets = {link.rsplit("/", 1)[1], *client.cookies.values()}
    for table in (User, Server, Service, Token):
        for row in await site.all(table):
            secrets |= {
                str(getattr(row, name, "") or "") for name in ("name", "secret", "client_id")
            }
    for secret in secrets - {""}:
        assert secret not in text
    labels = re.findall(r'="([^"]*)"', text)
    assert not any(re.search("[0-9a-f]{12}", label) for label in labels), "an id of a server"
