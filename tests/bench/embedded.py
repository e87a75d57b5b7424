"""Measure the embedded default: cold start, idle memory and load, starts of a real JupyterLab.

    python tests/bench/embedded.py [--idle-seconds 60] [--servers 10] [--only idle,starts]

Starts are timed through the REST API, from the POST to `ready` in the user's model, as a script
sees them. As root it makes one unix account for each server and removes it again. PSS is what the
kernel says in `/proc/PID/smaps_rollup`: shared pages count in parts.
"""

import argparse
import asyncio
import os
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

import httpx

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.accounts import temporary_account
from support.installation import Installation

SERVICES = ("up", "hub", "proxy", "agent", "keeper", "pam")


def pss_mib(pid: int) -> float:
    """Return the proportional set size of a process in MiB."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss line")


def processes(name: str, pid: int) -> list[int]:
    """Return the processes of a service; the proxy's workers belong to it."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(int(each) for each in children)] if name == "proxy" else [pid]


def cpu_seconds(pid: int) -> float:
    """Return the processor time a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure_idle(installation: Installation, seconds: float) -> None:
    """Print memory and load of the services while nobody does anything."""
    found = {name: installation.find_pid(name) for name in SERVICES}
    pids = {name: processes(name, pid) for name, pid in found.items() if pid is not None}
    time.sleep(5)
    before = {name: sum(map(cpu_seconds, each)) for name, each in pids.items()}
    time.sleep(seconds)
    total = 0.0
    print(f"\nidle for {seconds:.0f} s{'':10}PSS MiB   % of a core")
    load = 0.0
    for name, each in pids.items():
        memory = sum(map(pss_mib, each))
        used = (sum(map(cpu_seconds, each)) - before[name]) / seconds
        total += memory
        load += used
        print(f"  {name:20}{memory:10.1f}{used:12.2%}")
    print(f"  {'together':20}{total:10.1f}{load:12.2%}")


async def start(client: httpx.AsyncClient, name: str) -> float:
    """Start a server and return the seconds until its user's model says it is ready."""
    started = time.perf_counter()
    reply = await client.post(f"/users/{name}/server")
    assert reply.status_code in (201, 202), reply.text
    while not (  # noqa: ASYNC110 - polling is what a script does
        (server := (await client.get(f"/users/{name}")).json()["servers"].get(""))
        and server["ready"]
    ):
        await asyncio.sleep(0.02)
    return time.perf_counter() - started


async def stop(client: httpx.AsyncClient, name: str) -> None:
    """Stop a server and return when it is gone."""
    await client.delete(f"/users/{name}/server")
    while (await client.get(f"/users/{name}")).json()["servers"]:  # noqa: ASYNC110 - so here
        await asyncio.sleep(0.02)


async def measure_starts(installation: Installation, names: list[str]) -> None:
    """Print the time to a ready JupyterLab alone and all at once, and its memory."""
    headers = {"Authorization": f"token {installation.new_token()}"}
    async with httpx.AsyncClient(
        base_url=f"{installation.url}hub/api", headers=headers, timeout=120, trust_env=False
    ) as client:
        first = await start(client, names[0])
        await stop(client, names[0])
        alone = []
        for _ in range(10):
            alone.append(await start(client, names[0]))
            await stop(client, names[0])
        began = time.perf_counter()
        await asyncio.gather(*[start(client, name) for name in names])
        together = time.perf_counter() - began
        await asyncio.sleep(3)
        memory = [pss_mib(pid) for pid in installation.server_pids()]
        await asyncio.gather(*[stop(client, name) for name in names])
    print(f"\nfirst start of all        {first:8.3f} s   (prepares the fork server)")
    print(f"start alone, median of 10 {statistics.median(alone):8.3f} s")
    print(f"{len(names)} at once{'':16}{together:8.3f} s")
    print(f"PSS a server, mean of {len(memory):2}  {statistics.mean(memory):8.1f} MiB")
    if (zygote := installation.find_pid("zygote")) is not None:
        print(f"PSS of the fork server    {pss_mib(zygote):8.1f} MiB")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--idle-seconds", type=float, default=60)
    options.add_argument("--servers", type=int, default=10)
    options.add_argument("--only", default="idle,starts")
    chosen = options.parse_args()
    with ExitStack() as stack:
        people: list[str] = []
        if os.geteuid() == 0:
            people = [
                stack.enter_context(temporary_account(f"b{n}")).name for n in range(chosen.servers)
            ]
        began = time.perf_counter()
        installation = stack.enter_context(Installation(user=people[0] if people else None))
        print(f"cold `carrel up` to the link: {time.perf_counter() - began:.2f} s")
        for name in people[1:]:
            installation.new_link(name)
        if "idle" in chosen.only:
            measure_idle(installation, chosen.idle_seconds)
        if "starts" in chosen.only:
            asyncio.run(measure_starts(installation, people or [installation.user]))


if __name__ == "__main__":
    main()
