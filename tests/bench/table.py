"""What 10 and 20,000 routes cost the proxy: `python tests/bench/table.py`.

A real proxy is started and put to work through its control API, by the hub's own model. Printed
are the time to put a table and to change it, each as the hub waits for it (so that it is on the
disk), the time to find a request's route, and the time from the start of the process to the first
request that is served, with no hub to ask. Beside the time to put a table is the processor time
that the proxy used, which says more when the machine is busy.
"""

import argparse
import http.client
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from threading import Thread
from time import perf_counter, sleep
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import cpu_seconds, free_port

from carrel_proxy.core.trie import RouteTrie
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import (
    Access,
    DeleteRoute,
    PutRoute,
    Route,
    RouteChanges,
    RouteTable,
)

KEY = "k" * 40
SIZES = (10, 20_000)
CHANGES = 100
LOOKUPS = 100_000


def make_routes(count: int, target: str) -> list[Route]:
    """Return a hub's routes: its own, and a guarded one for each user's server."""
    return [
        Route(prefix="/", targets=[target]),
        *(
            Route(
                prefix=f"/user/somebody-{number}/",
                targets=[f"unix:/run/carrel/s/{number:012x}/http.sock"],
                peer_uid=10_000 + number,
                access=Access(
                    server_id=f"{number:012x}",
                    client_id=f"jupyterhub-user-somebody-{number}",
                    secret=f"{number:043d}",
                ),
                server=True,
            )
            for number in range(count - 1)
        ),
    ]


class Target:
    """A server that answers every request alike, in a thread."""

    def __init__(self) -> None:
        self.socket = socket.create_server(("127.0.0.1", 0))
        self.address = f"http://127.0.0.1:{self.socket.getsockname()[1]}"
        Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            connection, _ = self.socket.accept()
            with connection:
                while connection.recv(65536):
                    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class Proxy:
    """A proxy in a process of its own, with no hub to be found."""

    def __init__(self, directory: Path) -> None:
        self.port = free_port()
        self.control = directory / "control.sock"
        environment = {
            "PATH": os.environ["PATH"],
            "CARREL_PROXY__BIND": f"127.0.0.1:{self.port}",
            "CARREL_PROXY__CONTROL_LISTEN": f"unix:{self.control}",
            "CARREL_PROXY__CONTROL_KEY": KEY,
            "CARREL_PROXY__HUB_URL": f"unix:{directory}/nobody.sock",
            "CARREL_PROXY__HUB_KEY": KEY,
            "CARREL_PROXY__STATE_DIR": str(directory),
            "CARREL_PROXY__LOG_LEVEL": "error",
        }
        self.began = perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, "-I", "-m", "carrel_proxy"], env=environment
        )

    def first_request(self) -> float:
        """Return the seconds from the start until a request was served."""
        while True:
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port)
                connection.request("GET", "/")
                if connection.getresponse().status == 200:
                    return perf_counter() - self.began
            except ConnectionError:
                pass
            finally:
                connection.close()
            sleep(0.002)

    def wait(self) -> None:
        while not self.control.is_socket():
            sleep(0.01)

    @contextmanager
    def api(self) -> Iterator[httpx.Client]:
        transport = httpx.HTTPTransport(uds=str(self.control), retries=10)
        with httpx.Client(
            transport=transport, base_url="http://proxy", headers=service_headers(KEY), timeout=60
        ) as client:
            client.get("/control/v1/health").raise_for_status()
            yield client

    def end(self, number: int) -> None:
        self.process.send_signal(number)
        self.process.wait()


class Cost(NamedTuple):
    """Milliseconds: as the hub waits, and of the processor."""

    waited: float
    worked: float

    def __str__(self) -> str:
        return f"{self.waited:.0f} ms ({self.worked:.0f} of work)"


def timed(client: httpx.Client, method: str, path: str, body: bytes) -> float:
    """Return the milliseconds that a call takes, its body made before."""
    before = perf_counter()
    client.request(method, path, content=body).raise_for_status()
    return 1000 * (perf_counter() - before)


def put_table(proxy: Proxy, client: httpx.Client, routes: list[Route], number: int) -> Cost:
    table = RouteTable(epoch="bench", number=number, routes=routes)
    body = table.json()
    before = cpu_seconds(proxy.process.pid)
    spent = timed(client, "PUT", "/control/v1/table", body)
    return Cost(spent, 1000 * (cpu_seconds(proxy.process.pid) - before))


def change(client: httpx.Client, base: int, route: Route) -> float:
    made = PutRoute(route=route) if base % 2 else DeleteRoute(prefix=route.prefix)
    changes = RouteChanges(epoch="bench", base=base, number=base + 1, changes=[made])
    return timed(client, "POST", "/control/v1/changes", changes.json())


def lookup_microseconds(routes: list[Route]) -> float:
    trie: RouteTrie[Route] = RouteTrie()
    for route in routes:
        trie.put(route.prefix.encode(), route)
    some = random.Random(0).choices(routes, k=LOOKUPS)  # noqa: S311
    paths = [route.prefix.encode() + b"lab/tree/notebooks/one.ipynb" for route in some]
    match = trie.match
    before = perf_counter()
    for path in paths:
        match(path)
    return 1e6 * (perf_counter() - before) / LOOKUPS


def measure(size: int, target: str) -> None:
    routes = make_routes(size, target)
    with tempfile.TemporaryDirectory(prefix="bench-") as name:
        directory = Path(name)
        proxy = Proxy(directory)
        try:
            proxy.wait()
            with proxy.api() as client:
                first = put_table(proxy, client, routes, 1)
                again = sorted(put_table(proxy, client, routes, number) for number in (2, 3, 4))[1]
                spent = [change(client, base, routes[-1]) for base in range(4, 4 + CHANGES)]
            proxy.first_request()
            proxy.end(signal.SIGKILL)
            (directory / "control.sock").unlink()
            proxy = Proxy(directory)
            restarted = proxy.first_request()
        finally:
            proxy.end(signal.SIGTERM)
    print(
        f"{size:6} routes: put {first}, again {again};"
        f" change {median(spent):.2f} ms (longest {max(spent):.2f});"
        f" lookup {lookup_microseconds(routes):.2f} us;"
        f" killed, started, first request served {restarted:.2f} s",
        flush=True,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("sizes", nargs="*", type=int, default=SIZES)
    target = Target().address
    for size in parser.parse_args().sizes:
        measure(size, target)


if __name__ == "__main__":
    main()
