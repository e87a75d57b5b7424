"""What open WebSockets cost that say nothing, and that they outlive the hub: W14 of the threats.

    python tests/bench/idle.py [--sockets 9900] [--away 12]

They are guarded, as people's are. The hub is killed, stays away for longer than a verdict is good
without it, and is started again; all must be there after that. The limit on descriptors bounds how
many there can be: two for each at the proxy, one for each at both ends.
"""

import argparse
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import Contender, Field, free_port, open_field, resident_mib
from bench.guarded import KEY, SERVER_ID, TOKEN, serve_hub

from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import Access, Route, RouteTable

ECHO = Path(__file__).with_name("echo_sockets.py")
PATH = f"/user/alice/ws?token={TOKEN}"


class Api:
    """The proxy's control API."""

    def __init__(self, port: int) -> None:
        self._client = httpx.Client(
            base_url=f"http://127.0.0.1:{port}", headers=service_headers(KEY), trust_env=False
        )

    def route(self, target: str) -> None:
        access = Access(server_id=SERVER_ID, client_id="c", secret="s" * 43)
        route = Route(prefix="/user/alice/", targets=[target], server=True, access=access)
        table = RouteTable(epoch="e", number=1, routes=[route])
        self._client.put("/control/v1/table", content=table.json()).raise_for_status()

    def sockets(self) -> int:
        reply = self._client.get("/control/v1/counters")
        count: int = reply.json()["totals"]["sockets_open"]
        return count


def start_proxy(field: Field) -> tuple[Contender, Api]:
    port, control = free_port(), free_port()
    settings = {
        "bind": f"127.0.0.1:{port}",
        "control_listen": f"127.0.0.1:{control}",
        "control_key": KEY,
        "hub_url": f"unix:{field.directory}/hub.sock",
        "hub_key": KEY,
        "state_dir": str(field.directory / "state"),
        "log_level": "error",
        "max_connections_per_address": "0",
        "max_connections_per_route": "0",
    }
    os.environ.update({f"CARREL_PROXY__{k.upper()}": v for k, v in settings.items()})
    process = field.run([sys.executable, "-m", "carrel_proxy"], [control, port])
    return Contender("carrel", port, process), Api(control)


@contextmanager
def a_hub(path: Path) -> Iterator[None]:
    """A hub in a process of its own, which is killed in the end."""
    path.unlink(missing_ok=True)
    with subprocess.Popen([sys.executable, __file__, "--hub", str(path)]) as process:
        while not path.exists():
            time.sleep(0.01)
        try:
            yield
        finally:
            process.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=9900)
    parser.add_argument("--away", type=float, default=12, help="seconds without the hub")
    parser.add_argument("--hub", type=Path, metavar="PATH", help=argparse.SUPPRESS)
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    if options.hub:
        serve_hub(options.hub)
        time.sleep(3600)
    with open_field() as field:
        field.start_targets()
        proxy, api = start_proxy(field)
        api.route(f"http://127.0.0.1:{field.ws_port}")
        hub = field.directory / "hub.sock"
        before = resident_mib(proxy.process.pid)
        command = [sys.executable, str(ECHO), "idle", str(proxy.port), PATH, str(options.sockets)]
        with a_hub(hub):
            clients = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
            if clients.stdout is None or not clients.stdout.readline().startswith("open"):
                raise SystemExit("the WebSockets did not open")
        opened, after = api.sockets(), resident_mib(proxy.process.pid)
        each = 1024 * (after - before) / opened
        print(
            f"{opened} sockets: {before:.1f} MiB before, {after:.1f} with them: {each:.1f} KiB each"
        )
        time.sleep(options.away)
        away = api.sockets()
        with a_hub(hub):
            time.sleep(options.away)
            back = api.sockets()
        print(f"{away} after {options.away:g} s without the hub, {back} when it was back as long")
        clients.communicate("")
    return 0 if opened == away == back == options.sockets else 1


if __name__ == "__main__":
    sys.exit(main())
