"""Measure the proxy beside configurable-http-proxy and nginx, interleaved, one worker each.

    python tests/bench/proxy.py [--rounds 5] [--seconds 2] [--only small,sockets] [--workers N]

Ratios count, not seconds: machines differ, and shared ones differ from minute to minute. Every case
is run by all contenders in turn, in an order that rotates from round to round, and the median of
the rounds is what is quoted. Behind all of them is the same web server and the same echo server.
"""

import argparse
import json
import os
import re
import resource
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.contenders import (
    ROUTES,
    Contender,
    Field,
    Figure,
    cpu_seconds,
    open_field,
    original_command,
    resident_mib,
)

ECHO = Path(__file__).with_name("echo_sockets.py")
IDLE_SOCKETS = 2000

_POST = 'wrk.method = "POST"\nwrk.body = string.rep("u", 1048576)\n'
_SPREAD = f"""local number = 0
function request()
    number = (number * 7919 + 104729) % {ROUTES}
    return wrk.format("GET", "/r/user" .. number .. "/small")
end
"""
_NEW = 'wrk.headers["Connection"] = "close"\n'

Case = Callable[[Contender, float, Path], Figure]


def requests(path: str, connections: int, script: str = "") -> Case:
    """Return a case that wrk measures."""

    def measure(contender: Contender, seconds: float, directory: Path) -> Figure:
        command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds:.0f}s", "--latency"]
        if script:
            (directory / "wrk.lua").write_text(script)
            command += ["-s", str(directory / "wrk.lua")]
        url = f"http://127.0.0.1:{contender.port}{contender.base}{path}"
        before = cpu_seconds(contender.process.pid)
        done = subprocess.run([*command, url], capture_output=True, text=True, check=True)
        cores = (cpu_seconds(contender.process.pid) - before) / seconds
        return _read_wrk(done.stdout, cores, closes="close" in script)

    return measure


def _read_wrk(text: str, cores: float, *, closes: bool) -> Figure:
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    p99 = re.search(r"99%\s+([\d.]+)(us|ms|s)", text)
    if rate is None or p99 is None:
        raise SystemExit(f"wrk says something else:\n{text}")
    bad = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    errors = int(bad.group(1)) if bad else 0
    broken = re.search(r"errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", text)
    if broken:  # with a connection for each request wrk counts its end as an error in reading
        connect, read, write, timeout = map(int, broken.groups())
        errors += connect + write + timeout + (0 if closes else read)
    unit = {"us": 0.001, "ms": 1.0, "s": 1000.0}[p99.group(2)]
    return Figure(float(rate.group(1)), float(p99.group(1)) * unit, errors, cores)


def sockets(contender: Contender, seconds: float, _directory: Path) -> Figure:
    """Measure messages over 50 WebSockets."""
    command = [sys.executable, str(ECHO), "load", str(contender.port), "/ws/x", "50", str(seconds)]
    before = cpu_seconds(contender.process.pid)
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    cores = (cpu_seconds(contender.process.pid) - before) / seconds
    return Figure(**json.loads(done.stdout), errors=0, cores=cores)


CASES: dict[str, tuple[str, Case]] = {
    "small": ("64 B replies, 64 connections", requests("/small", 64)),
    "large": ("1 MiB replies, 8 connections", requests("/large", 8)),
    "upload": ("1 MiB uploads, 8 connections", requests("/upload", 8, _POST)),
    "routes": (f"64 B replies over {ROUTES} routes", requests("/small", 64, _SPREAD)),
    "new": ("64 B replies, a connection each", requests("/small", 32, _NEW)),
    "sockets": ("64 B messages, 50 WebSockets", sockets),
}


def idle_memory(contender: Contender) -> tuple[float, float]:
    """Return MiB resident before and with idle WebSockets."""
    before = resident_mib(contender.process.pid)
    command = [sys.executable, str(ECHO), "idle", str(contender.port), "/ws/x", str(IDLE_SOCKETS)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as clients:
        if clients.stdout is None or not clients.stdout.readline().startswith("open"):
            raise SystemExit(f"{contender.name}: the idle WebSockets did not open")
        return before, resident_mib(contender.process.pid)


def measure(field: Field, contenders: list[Contender], options: argparse.Namespace) -> None:
    cases = [name for name in CASES if not options.only or name in options.only]
    for number in range(-1, options.rounds):  # one round that is not counted, to warm up
        turn = number % len(contenders)
        for name in cases:
            for contender in contenders[turn:] + contenders[:turn]:
                seconds = options.seconds if number >= 0 else 1
                figure = CASES[name][1](contender, seconds, field.directory)
                if number >= 0:
                    contender.rates.setdefault(name, []).append(figure)
    for name in cases:
        report(name, contenders)


def report(name: str, contenders: list[Contender]) -> None:
    print(f"\n{CASES[name][0]}")
    medians = {one.name: statistics.median(f.rate for f in one.rates[name]) for one in contenders}
    for one in contenders:
        figures = one.rates[name]
        ratios = "  ".join(
            f"{medians[one.name] / medians[other]:5.2f} x {other}"
            for other in ("chp", "nginx")
            if other in medians and other != one.name
        )
        low, high = min(f.rate for f in figures), max(f.rate for f in figures)
        p99 = statistics.median(f.p99_ms for f in figures)
        cores = statistics.median(f.cores for f in figures)
        errors = sum(f.errors for f in figures)
        print(
            f"  {one.name:8}{medians[one.name]:10,.0f}/s  ({low:,.0f} to {high:,.0f})"
            f"  p99 {p99:6.1f} ms  {cores:4.2f} cores  {ratios}"
            + (f"  {errors} ERRORS" if errors else "")
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2)
    parser.add_argument("--only", type=lambda text: text.split(","), default=[])
    parser.add_argument("--workers", type=int, default=1, help="of the proxy, the others have one")
    options = parser.parse_args()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ours = [str(Path(sys.executable).with_name("carrel-proxy"))]
    if options.workers != 1:
        ours += ["--workers", str(options.workers)]
    original = original_command()
    with open_field() as field:
        field.start_targets()
        contenders = [
            field.start_drop_in("chp", original),
            field.start_nginx(),
            field.start_drop_in("carrel", ours),
        ]
        if not options.only or "memory" in options.only:
            print(f"resident MiB at first and with {IDLE_SOCKETS} idle WebSockets")
            for one in contenders:
                print("  {:8}{:10.1f}{:10.1f}".format(one.name, *idle_memory(one)))
        measure(field, contenders, options)
        print(
            f"\nmedians of {options.rounds} rounds of {options.seconds:g} s;"
            f" load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores"
        )


if __name__ == "__main__":
    main()
