"""What it costs that requests are for many routes: `python tests/bench/routes.py`.

Every proxy has a thousand routes, and wrk asks for one of them or for all in turn, with the same
script, so that wrk's own work is the same. All are asked twice: at first the proxy has to connect
for each of them (it keeps unused connections for some seconds only), after that it has not. The
processor time that the proxy uses for a request is counted, which the other processes on the
machine disturb less than the rate.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import ROUTES, Contender, Field, cpu_seconds, free_port, open_field

from carrel_shared.service_auth import service_headers
from carrel_shared.wire.routes import Route, RouteTable

KEY = "for-measurements-only-" * 2
COLD = "all, at first"
CASES = {"one route": 1, COLD: ROUTES, "all, connected": ROUTES}
FORGOTTEN_SECONDS = 5
"""After which no proxy has an unused connection left."""

SCRIPT = """local made, number, count = {}, 0, 0
function init(arguments)
    count = tonumber(arguments[1])
    for one = 0, count - 1 do
        made[one] = wrk.format("GET", "/r/user" .. one .. "/small")
    end
end
function request()
    number = (number + 389) % count
    return made[number]
end
"""
"""389 and 1,000 have no common divisor, so every route has its turn."""


class Cost(NamedTuple):
    """Requests a second, and microseconds of the proxy's processor time for each."""

    rate: float
    work: float


def start_own(field: Field) -> tuple[Contender, int]:
    """Start the proxy in its own mode and give it its routes; return the port of its API too."""
    port, control = free_port(), free_port()
    settings = {
        "bind": f"127.0.0.1:{port}",
        "control_listen": f"127.0.0.1:{control}",
        "control_key": KEY,
        "hub_url": f"unix:{field.directory}/nobody.sock",
        "hub_key": KEY,
        "state_dir": str(field.directory / "state"),
        "log_level": "error",
    }
    os.environ.update({f"CARREL_PROXY__{k.upper()}": v for k, v in settings.items()})
    process = field.run([sys.executable, "-m", "carrel_proxy"], [control, port])
    target = f"http://127.0.0.1:{field.http_port}"
    routes = [
        Route(prefix=f"/r/user{number}/", targets=[target], server=True) for number in range(ROUTES)
    ]
    httpx.put(
        f"http://127.0.0.1:{control}/control/v1/table",
        content=RouteTable(epoch="e", number=1, routes=routes).json(),
        headers=service_headers(KEY),
        trust_env=False,
    ).raise_for_status()
    return Contender("carrel", port, process), control


def start_drop_in(field: Field) -> Contender:
    return field.start_drop_in("drop-in", [str(Path(sys.executable).with_name("carrel-proxy"))])


STARTS: dict[str, Callable[[Field], Contender]] = {
    "carrel": lambda field: start_own(field)[0],
    "drop-in": start_drop_in,
    "nginx": Field.start_nginx,
}


def measure(proxy: Contender, paths: int, script: Path, options: argparse.Namespace) -> Cost:
    command = ["wrk", "-t1", f"-c{options.connections}", f"-d{options.seconds:.0f}s"]
    command += ["-s", str(script), f"http://127.0.0.1:{proxy.port}/", "--", str(paths)]
    before = cpu_seconds(proxy.process.pid)
    done = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    used = cpu_seconds(proxy.process.pid) - before
    rate = re.search(r"Requests/sec:\s+([\d.]+)", done)
    count = re.search(r"(\d+) requests in", done)
    if "Non-2xx" in done or rate is None or count is None:
        raise SystemExit(f"{proxy.name}: wrk says something else:\n{done}")
    return Cost(float(rate[1]), used / int(count[1]) * 1e6)


def report(figures: dict[tuple[str, str], list[Cost]]) -> None:
    for (name, case), costs in figures.items():
        rate = statistics.median(one.rate for one in costs)
        work = statistics.median(one.work for one in costs)
        line = f"{name:8}{case:16}{rate:10,.0f}/s{work:8.1f} us"
        if CASES[case] > 1:
            pairs = list(zip(costs, figures[name, "one route"], strict=True))
            slower = 1 - statistics.median(mine.rate / other.rate for mine, other in pairs)
            dearer = statistics.median(mine.work / other.work for mine, other in pairs) - 1
            line += f"   rate {-100 * slower:+.1f} %, work {100 * dearer:+.1f} %"
        print(line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=STARTS, action="append", dest="names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--connections", type=int, default=64)
    options = parser.parse_args()
    options.names = options.names or list(STARTS)
    figures: dict[tuple[str, str], list[Cost]] = {
        (name, case): [] for name in options.names for case in CASES
    }
    with open_field() as field:
        field.start_targets()
        script = field.directory / "wrk.lua"
        script.write_text(SCRIPT)
        proxies = {name: STARTS[name](field) for name in options.names}
        for number in range(-1, options.rounds):  # one round that is not counted, to warm up
            for (name, case), costs in figures.items():
                if case == COLD:
                    time.sleep(FORGOTTEN_SECONDS)
                cost = measure(proxies[name], CASES[case], script, options)
                if number >= 0:
                    costs.append(cost)
    report(figures)
    print(json.dumps({"load": os.getloadavg()[0], "cores": os.cpu_count()}))


if __name__ == "__main__":
    main()
