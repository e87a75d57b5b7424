"""Measure our hub by itself: restarts, memory, long lists, thousands of reports of activity.

    python tests/bench/hub_alone.py [--only restart,lists,memory,activity]

A hub without neighbours on databases that were filled beforehand: 5,000 and 50,000 users, of whom
200 have a running server; then 3,000 servers that each report activity once within half a minute,
as after a restart, while somebody else asks who they are.
"""

import argparse
import asyncio
import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
from sqlalchemy import insert

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from carrel_hub.auth.digest import digest
from carrel_hub.db.engine import Database
from carrel_hub.db.migrate import upgrade
from carrel_hub.db.models import Server, Token, User
from carrel_shared.clock import SystemClock

CLOCK = SystemClock()
TOKEN = "b" * 40
RUNNING = 200
REPORTING = 3000
ASKED = 100
REPORT_SECONDS = 30.0


async def fill(url: str, users: int, servers: int, tokens: bool = False) -> None:
    """Make a database with users, of whom the first have a server that is ready."""
    at, database = CLOCK.now(), Database(url)
    common = {"admin": False, "console": False, "disabled": False, "created": at}
    people = [{"id": n, "name": f"user{n}", "account": f"user{n}"} for n in range(1, users + 1)]
    theirs: list[dict[str, Any]] = [
        Server(
            id=f"{n:012x}",
            user_id=n,
            client_id=f"jupyterhub-user-user{n}",
            host="local",
            target="running",
            state="ready",
            generation=1,
            secret=secrets.token_hex(16),
            address=f"http://127.0.0.1:{20000 + n}",
            route_number=n,
            created=at,
            ready_at=at,
        ).model_dump()
        for n in range(1, servers + 1)
    ]
    secrets_of = [
        Token(
            token_hash=digest(f"token-{n}"),
            user_id=n,
            server_id=f"{n:012x}",
            scopes=[f"users:activity!user=user{n}"],
            note="Server at /",
            created=at,
        ).model_dump(exclude={"id"})
        for n in range(1, servers + 1)
        if tokens
    ]
    await upgrade(database)
    async with database.engine.begin() as connection:
        await connection.execute(insert(User), [person | common for person in people])
        await connection.execute(insert(Server), theirs)
        if secrets_of:
            await connection.execute(insert(Token), secrets_of)
    await database.close()


class Hub:
    """A hub's process on a filled database."""

    def __init__(self, directory: str) -> None:
        self.directory = directory
        self.url = f"sqlite:///{directory}/hub.sqlite"
        self.process: subprocess.Popen[bytes] | None = None

    def environment(self) -> dict[str, str]:
        here, key = self.directory, "k" * 32
        peer = {"key": key, "caller_key": "K" * 32}
        values: dict[str, Any] = {
            "STATE_DIR": here,
            "LISTEN": f"unix:{here}/hub.sock",
            "INTERNAL_LISTEN": f"unix:{here}/internal.sock",
            "CONSOLE_KEY": key,
            "AGENTS": json.dumps([{"name": "local", "url": f"unix:{here}/agent.sock", **peer}]),
            "PROXIES": json.dumps([{"name": "edge", "url": f"unix:{here}/proxy.sock", **peer}]),
            "SERVICES": json.dumps([{"name": "bench", "api_token": TOKEN, "admin": True}]),
        }
        return {"PATH": os.environ["PATH"], **{f"CARREL_HUB__{k}": v for k, v in values.items()}}

    def start(self) -> float:
        """Return the seconds from its start to its first answer to an API call."""
        began = time.perf_counter()
        command = [sys.executable, "-I", "-m", "carrel_hub", "serve"]
        with Path(self.directory, "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=self.environment(), stdout=log, stderr=log, cwd="/"
            )
        with self.client() as client:
            while True:
                try:
                    if client.get("/users?limit=100").status_code == 200:
                        return time.perf_counter() - began
                except httpx.TransportError:
                    assert self.process.poll() is None, Path(self.directory, "log").read_text()
                    time.sleep(0.005)

    def client(self) -> httpx.Client:
        transport = httpx.HTTPTransport(uds=f"{self.directory}/hub.sock")
        headers = {"Authorization": f"token {TOKEN}"}
        return httpx.Client(
            transport=transport, base_url="http://hub/hub/api", headers=headers, timeout=60
        )

    def memory_mib(self) -> float:
        assert self.process is not None
        text = Path(f"/proc/{self.process.pid}/smaps_rollup").read_text()
        [line] = [line for line in text.splitlines() if line.startswith("Pss:")]
        return int(line.split()[1]) / 1024

    def stop(self) -> None:
        if self.process is not None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)


@contextmanager
def filled(users: int, servers: int, *, tokens: bool = False) -> Iterator[Hub]:
    """Have a hub that does not run yet."""
    with tempfile.TemporaryDirectory(prefix="bhub-", dir="/tmp") as directory:
        hub = Hub(directory)
        asyncio.run(fill(hub.url, users, servers, tokens))
        try:
            yield hub
        finally:
            hub.stop()


def milliseconds(client: httpx.Client, path: str) -> float:
    times = []
    for _ in range(20):
        began = time.perf_counter()
        assert client.get(path).status_code == 200
        times.append(time.perf_counter() - began)
    return statistics.median(times) * 1000


def measure_users(users: int, only: str) -> None:
    """Print what may depend on the number of users, and should not."""
    with filled(users, RUNNING) as hub:
        times = []
        for _ in range(5):
            times.append(hub.start())
            hub.stop()
        hub.start()
        if "restart" in only:
            print(
                f"{users:6} users, {RUNNING} servers: start to first answer, median of 5:"
                f" {statistics.median(times):.2f} s, best {min(times):.2f} s"
            )
        with hub.client() as client:
            rows = {
                "first page": "/users?limit=100",
                "last page": f"/users?limit=100&offset={users - 100}",
                "by activity": "/users?limit=100&sort=-last_activity",
                "running": "/users?limit=100&state=ready",
                "one user": "/users/user77",
            }
            shown = {name: milliseconds(client, path) for name, path in rows.items()}
        if "lists" in only:
            print("    " + ", ".join(f"{name} {ms:.1f} ms" for name, ms in shown.items()))


def measure_memory(users: int) -> None:
    """Print what a hub holds once it has started, and after the same requests each time."""
    with filled(users, RUNNING) as hub:
        hub.start()
        with hub.client() as client:
            before = hub.memory_mib()
            for number in range(ASKED):
                far = users * number // ASKED // 100 * 100
                for path in (
                    f"/users?limit=100&offset={far}",
                    f"/users/user{far + number % 100 + 1}",
                ):
                    assert client.get(path).status_code == 200
            after = hub.memory_mib()
        print(
            f"{users:6} users: PSS {before:.1f} MiB after the start, {after:.1f} MiB after"
            f" {ASKED} pages and {ASKED} users from all over the list",
            flush=True,
        )


async def report(hub: Hub, number: int, client: httpx.AsyncClient) -> None:
    await asyncio.sleep(REPORT_SECONDS * number / REPORTING)
    at = CLOCK.now().isoformat()
    reply = await client.post(
        f"/users/user{number}/activity",
        json={"last_activity": at, "servers": {"": {"last_activity": at}}},
        headers={"Authorization": f"token token-{number}"},
    )
    assert reply.status_code == 200, reply.text


async def ask(client: httpx.AsyncClient, until: asyncio.Event) -> list[float]:
    times = []
    while not until.is_set():
        began = time.perf_counter()
        reply = await client.get("/user", headers={"Authorization": f"token {TOKEN}"})
        assert reply.status_code == 200
        times.append((time.perf_counter() - began) * 1000)
        await asyncio.sleep(0.02)
    return sorted(times)


async def measure_activity(hub: Hub) -> None:
    """Print how long others wait while every server reports."""
    transport = httpx.AsyncHTTPTransport(uds=f"{hub.directory}/hub.sock")
    async with httpx.AsyncClient(
        transport=transport, base_url="http://hub/hub/api", timeout=60
    ) as client:
        done = asyncio.Event()
        async with asyncio.TaskGroup() as group:
            asking = group.create_task(ask(client, done))
            async with asyncio.TaskGroup() as reports:
                for number in range(1, REPORTING + 1):
                    reports.create_task(report(hub, number, client))
            done.set()
    times = asking.result()
    p99 = times[int(len(times) * 0.99)]
    print(
        f"{REPORTING} reports in {REPORT_SECONDS:.0f} s: GET /user median"
        f" {statistics.median(times):.1f} ms, p99 {p99:.1f} ms, longest {times[-1]:.1f} ms"
        f" ({len(times)} asked)"
    )


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--only", default="restart,lists,memory,activity")
    only = options.parse_args().only
    if "restart" in only or "lists" in only:
        for users in (5_000, 50_000):
            measure_users(users, only)
    if "memory" in only:
        for users in (5_000, 50_000):
            measure_memory(users)
    if "activity" in only:
        with filled(REPORTING, REPORTING, tokens=True) as hub:
            hub.start()
            asyncio.run(measure_activity(hub))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
