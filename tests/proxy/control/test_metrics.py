"""The page for Prometheus, read by Prometheus's own parser."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from proxy.hub import FakeHub
from proxy.running import KEY, Running, guarded_route, open_proxy, plain_route
from proxy.wire import Upstream, ok, open_upstream

from carrel_proxy.control.metrics import MetricsPage
from carrel_proxy.core.answers import Reason
from carrel_proxy.core.exposition import counters, histogram, render


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with open_upstream() as upstream:
        yield upstream


@pytest.fixture
async def running(short_dir: Path, hub: FakeHub) -> AsyncIterator[Running]:
    async with open_proxy(short_dir, hub) as running:
        yield running


def read(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def page(
    running: Running, path: str = "/metrics", key: str | None = None, **headers: str
) -> httpx.Response:
    transport = httpx.ASGITransport(MetricsPage(running.proxy.metrics_text, key))
    async with httpx.AsyncClient(transport=transport, base_url="http://m") as client:
        return await client.get(path, headers=headers)


async def test_what_was_counted_is_shown(running: Running, upstream: Upstream) -> None:
    running.route(plain_route(upstream.target, "/a/"))
    async with running.client() as client:
        await client.ask("/a/")
        await client.ask("/a/")
        await client.ask("/nothing")
        found = read((await page(running)).text)
    expected: dict[tuple[str, tuple[tuple[str, str], ...]], Any] = {
        ("carrel_proxy_requests_total", (("kind", "read"), ("status", "2xx"))): 2,
        ("carrel_proxy_own_answers_total", (("reason", "not_found"),)): 1,
        ("carrel_proxy_sent_bytes_total", (("carrier", "body"),)): 4,
        ("carrel_proxy_first_byte_seconds_count", ()): 2,
        ("carrel_proxy_first_byte_seconds_bucket", (("le", "+Inf"),)): 2,
        ("carrel_proxy_connections_open", ()): 1,
        ("carrel_proxy_upstream_reuses_total", ()): 1,
        ("carrel_proxy_routes", ()): 1,
    }
    assert {key: found.get(key) for key in expected} == expected


async def test_the_process_is_described_as_exporters_do(running: Running) -> None:
    found = read((await page(running)).text)
    use = {name: value for (name, _), value in found.items() if name.startswith("process_")}
    assert use["process_resident_memory_bytes"] > 10_000_000
    assert use["process_virtual_memory_bytes"] >= use["process_resident_memory_bytes"]
    assert 3 <= use["process_open_fds"] < use["process_max_fds"]
    assert use["process_cpu_seconds_total"] == pytest.approx(
        use["process_cpu_user_seconds_total"] + use["process_cpu_system_seconds_total"]
    )
    now = running.proxy.clock.now().timestamp()
    assert now - 86_400 < use["process_start_time_seconds"] <= now


async def test_labels_never_name_a_path_a_user_or_a_server(
    running: Running, upstream: Upstream
) -> None:
    running.route(
        *(guarded_route(upstream.target, f"/user/canary{n}/", f"{n:012x}") for n in range(50)),
        plain_route(upstream.target, "/open/"),
    )
    upstream.respond = lambda request: ok(status=f"{request.target[-3:]} Made Up")
    async with running.client() as client:
        for number in range(50):
            await client.ask(f"/user/canary{number}/api")
            await client.ask(f"/open/{200 + number}", method=f"CANARY{number}")
    text = (await page(running)).text
    assert "canary" not in text.lower()
    labels = {
        label for _, pairs in read(text) for label in pairs if label[0] not in ("le", "version")
    }
    known = {"kind": {"read", "write", "upgrade"}, "carrier": {"body", "websocket"}}
    known["status"] = {"none", "1xx", "2xx", "3xx", "4xx", "5xx"}
    known["reason"] = {str(reason) for reason in Reason}
    assert all(value in known[name] for name, value in labels)


async def test_there_is_nothing_but_the_page(running: Running) -> None:
    assert (await page(running)).headers["content-type"].startswith("text/plain; version=0.0.4")
    for path in ("/", "/metrics/", "/metricsx", "/control/v1/table"):
        assert (await page(running, path)).status_code == 404


async def test_a_key_is_needed_where_one_is_set(running: Running) -> None:
    refused = await page(running, key=KEY)
    assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
    assert "carrel_proxy" not in refused.text
    for wrong in ("Bearer x", f"Token {KEY}", f"Bearer {KEY} "[:-2]):
        assert (await page(running, key=KEY, Authorization=wrong)).status_code == 401
    shown = await page(running, key=KEY, Authorization=f"Bearer {KEY}")
    assert (shown.status_code, "carrel_proxy_requests_total" in shown.text) == (200, True)


def test_a_histogram_is_cumulative() -> None:
    text = render([histogram("h_seconds", "Words.", [0.5, 1.0], [1, 2, 3], 9.25)])
    assert text.splitlines() == [
        "# HELP h_seconds Words.",
        "# TYPE h_seconds histogram",
        'h_seconds_bucket{le="0.5"} 1',
        'h_seconds_bucket{le="1"} 3',
        'h_seconds_bucket{le="+Inf"} 6',
        "h_seconds_sum 9.25",
        "h_seconds_count 6",
    ]


def test_labels_are_escaped() -> None:
    text = render([counters("c_total", "Words.", "l", {'a"b\\c\nd': 1})])
    assert r'c_total{l="a\"b\\c\nd"} 1' in text.splitlines()
