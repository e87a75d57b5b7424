"""Measure what it costs that the proxy knows who passes: guarded routes beside plain ones.

    python tests/bench/guarded.py [--rounds 5] [--seconds 2] [--connections 64]

One proxy process, one target, the same fields in every request. The cases run in turn, in an order
that rotates; what counts is the processor time of the proxy for a request, which a busy machine
disturbs less than the rate.
"""

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import threading
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import Contender, Field, cpu_seconds, free_port, open_field

from carrel_shared.clock import SystemClock
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.access import Verdict, Visitor
from carrel_shared.wire.routes import Access, Route, RouteTable

KEY = "for-measurements-only-" * 2
SERVER_ID = "0123456789ab"
TOKEN = "t" * 43

BROWSER = {
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 Chrome/140.0.0.0",
    "Accept": "*/*",
    "Accept-Encoding": "gzip, deflate, br, zstd",
    "Accept-Language": "en-GB,en;q=0.9",
    "Referer": "http://127.0.0.1/user/alice/lab",
    "Sec-Fetch-Dest": "empty",
    "Sec-Fetch-Mode": "cors",
    "Sec-Fetch-Site": "same-origin",
    "Cookie": "_xsrf=2|1ea81a36|1bfd1406221b9aecbaef1897022b041e|1795647082;"
    f" jupyterhub-session-id=59266507de1db5c044f6dc28e557728b; carrel-session-{SERVER_ID}={TOKEN}",
}
API = {"User-Agent": "python-requests/2.32", "Accept": "*/*", "Authorization": f"token {TOKEN}"}

CASES: dict[str, tuple[str, dict[str, str]]] = {
    "plain, as a browser": ("/plain/small", BROWSER),
    "a server's, unguarded": ("/user/bob/small", BROWSER),
    "guarded, by cookie": ("/user/alice/small", BROWSER),
    "plain, as a program": ("/plain/small", API),
    "guarded, by token": ("/user/alice/small", API),
}
BASE = {"guarded, by cookie": "plain, as a browser", "guarded, by token": "plain, as a program"}


def serve_hub(path: Path) -> None:
    """Answer every question with yes, in a thread of its own."""
    verdict = Verdict(
        known=True,
        allow=True,
        visitor=Visitor(name="alice", display_name="Alice"),
        expires_at=SystemClock().now() + timedelta(days=1),
    )
    body = verdict.model_dump_json().encode()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                await reader.readexactly(int(length[1]) if length else 0)
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body))

    async def serve() -> None:
        server = await asyncio.start_unix_server(answer, path)
        await server.serve_forever()

    threading.Thread(target=lambda: asyncio.run(serve()), daemon=True).start()


def start_proxy(field: Field) -> Contender:
    """Start the proxy in its own mode and give it its routes."""
    port, control = free_port(), free_port()
    serve_hub(field.directory / "hub.sock")
    settings = {
        "bind": f"127.0.0.1:{port}",
        "control_listen": f"127.0.0.1:{control}",
        "control_key": KEY,
        "hub_url": f"unix:{field.directory}/hub.sock",
        "hub_key": KEY,
        "state_dir": str(field.directory / "state"),
        "log_level": "error",
    }
    os.environ.update({f"CARREL_PROXY__{k.upper()}": v for k, v in settings.items()})
    process = field.run([sys.executable, "-m", "carrel_proxy"], [control, port])
    target = f"http://127.0.0.1:{field.http_port}"
    routes = [
        Route(prefix="/plain/", targets=[target]),
        Route(prefix="/user/bob/", targets=[target], server=True),
        Route(
            prefix="/user/alice/",
            targets=[target],
            server=True,
            access=Access(server_id=SERVER_ID, client_id="c", secret="s" * 43),
        ),
    ]
    reply = httpx.put(
        f"http://127.0.0.1:{control}/control/v1/table",
        content=RouteTable(epoch="e", number=1, routes=routes).json(),
        headers=service_headers(KEY),
        trust_env=False,
    )
    reply.raise_for_status()
    return Contender("carrel", port, process)


def measure(proxy: Contender, case: str, seconds: float, connections: int) -> tuple[float, float]:
    """Return requests a second, and microseconds of processor time for each."""
    path, headers = CASES[case]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s"]
    for name, value in headers.items():
        command += ["-H", f"{name}: {value}"]
    before = cpu_seconds(proxy.process.pid)
    done = subprocess.run(
        [*command, f"http://127.0.0.1:{proxy.port}{path}"],
        capture_output=True,
        text=True,
        check=True,
    )
    used = cpu_seconds(proxy.process.pid) - before
    if "Non-2xx" in done.stdout:
        raise SystemExit(f"{case}: not all were answered with 200\n{done.stdout}")
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done.stdout)
    count = re.search(r"(\d+) requests in", done.stdout)
    if rate is None or count is None:
        raise SystemExit(f"wrk says something else:\n{done.stdout}")
    return float(rate[1]), used / int(count[1]) * 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    names = list(CASES)
    figures: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    with open_field() as field:
        field.start_targets()
        proxy = start_proxy(field)
        for number in range(-1, options.rounds):
            turn = number % len(names)
            for name in names[turn:] + names[:turn]:
                figure = measure(proxy, name, options.seconds, options.connections)
                if number >= 0:
                    figures[name].append(figure)
    for name in names:
        rate = statistics.median(one for one, _ in figures[name])
        cost = statistics.median(one for _, one in figures[name])
        line = f"{name:24}{rate:10,.0f}/s{cost:8.1f} us"
        if name in BASE:
            ratios = [
                mine[1] / other[1]
                for mine, other in zip(figures[name], figures[BASE[name]], strict=True)
            ]
            line += f"   {(statistics.median(ratios) - 1) * 100:+.1f} % cost"
        print(line)
    print(json.dumps({"load": os.getloadavg()[0], "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
