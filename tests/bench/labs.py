"""Measure starts of a real JupyterLab beside JupyterHub's, and from a click to a page one can use.

    python tests/bench/labs.py [--jupyterhub DIRECTORY] [--rounds 5] [--at-once 10] [--no-browser]

DIRECTORY holds `venv` with JupyterHub and JupyterLab, and `node_modules` with
configurable-http-proxy; its servers are local processes of its own account, ours are forked as one
account for all. Both are asked over the REST API, from the POST to `ready` in the user's model,
and take turns; the last column is how many times faster ours is. A page is usable when JupyterLab's
splash is gone and its launcher shows a notebook to click on: that needs Debian's chromium.
"""

import argparse
import asyncio
import os
import re
import statistics
import sys
import time
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, expect

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.embedded import pss_mib
from bench.hub_contenders import Side, carrel_installation, jupyterhub

from support.chromium import open_browser
from support.installation import Installation

PAGE_MS = 120_000
SETTLE_SECONDS = 3


async def alone(side: Side) -> float:
    """Return the seconds of one start; the server is stopped again."""
    seconds = await side.start(0)
    await side.stop(0)
    return seconds


async def together(side: Side, count: int, ours: Installation | None) -> tuple[float, float]:
    """Return the seconds until all are ready, and the mean PSS of ours in MiB."""
    began = time.perf_counter()
    await asyncio.gather(*[side.start(number) for number in range(count)])
    seconds = time.perf_counter() - began
    memory = 0.0
    if ours is not None:
        await asyncio.sleep(SETTLE_SECONDS)
        memory = statistics.mean(pss_mib(pid) for pid in ours.server_pids())
    await asyncio.gather(*[side.stop(number) for number in range(count)])
    return seconds, memory


async def measure(sides: list[Side], ours: Installation, rounds: int, count: int) -> None:
    """Take turns and print the table."""
    for side in sides:
        side.new_round()
        await side.create(count)
        await alone(side)  # the first prepares the fork server, and fills caches
    singles: dict[str, list[float]] = {side.name: [] for side in sides}
    groups: dict[str, list[float]] = {side.name: [] for side in sides}
    memory = []
    for _ in range(rounds):
        for side in sides:
            singles[side.name].append(await alone(side))
    for _ in range(max(1, rounds // 2)):
        for side in sides:
            is_ours = ours if side is sides[0] else None
            seconds, mean = await together(side, count, is_ours)
            groups[side.name].append(seconds)
            memory += [mean] if mean else []
    show("start of JupyterLab, s", sides, singles)
    show(f"{count} at once, s", sides, groups)
    print(f"{'PSS of ours, idle, mean, MiB':36}{statistics.mean(memory):14.1f}")
    for side in sides:
        await side.client.aclose()


def show(label: str, sides: list[Side], figures: dict[str, list[float]]) -> None:
    """Print one line: the median of each side, and the ratio."""
    medians = [statistics.median(figures[side.name]) for side in sides]
    line = f"{label:36}" + "".join(f"{one:14.3f}" for one in medians)
    print(line + (f"{medians[1] / medians[0]:10.1f}x" if len(medians) == 2 else ""), flush=True)


def click_to_page(browser: Browser, side: Side, number: int) -> float:
    """Sign in as somebody new, press the button, and return the seconds until Lab can be used."""
    context = browser.new_context(viewport={"width": 1280, "height": 800})
    page = context.new_page()
    page.goto(f"{side.url}hub/login?next=%2Fhub%2Fhome")
    page.locator('input[name="username"]').fill(f"{side.tag}click{number}")
    page.locator('input[name="password"]').fill("any")
    page.locator('input[name="password"]').press("Enter")
    button = page.locator("#start")
    expect(button).to_be_visible(timeout=PAGE_MS)
    began = time.perf_counter()
    button.click()
    if side.name == "jupyterhub":  # its button leads to a page with another, or starts at once
        page.wait_for_url(re.compile("/(spawn-pending|user)/"), timeout=PAGE_MS)
    card = page.locator('.jp-LauncherCard[data-category="Notebook"]:visible').first
    expect(card).to_be_visible(timeout=PAGE_MS)
    expect(page.locator("#jupyterlab-splash")).to_have_count(0, timeout=PAGE_MS)
    seconds = time.perf_counter() - began
    context.close()
    return seconds


def measure_clicks(sides: list[Side], rounds: int) -> None:
    """Take turns in a browser and print the line; the first of each warms caches up."""
    figures: dict[str, list[float]] = {side.name: [] for side in sides}
    with open_browser() as browser:
        for number in range(rounds + 1):
            for side in sides:
                seconds = click_to_page(browser, side, number)
                if number:
                    figures[side.name].append(seconds)
    show("click to usable page, s", sides, figures)


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--jupyterhub", type=Path, metavar="DIRECTORY")
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--at-once", type=int, default=10)
    options.add_argument("--no-browser", action="store_true")
    chosen = options.parse_args()
    with ExitStack() as stack:
        side, installation = stack.enter_context(carrel_installation(lab=True))
        sides = [side]
        if chosen.jupyterhub is not None:
            peers = chosen.jupyterhub.resolve()
            sides.append(stack.enter_context(jupyterhub(peers, lab=True)))
        print(f"{'':36}" + "".join(f"{one.name:>14}" for one in sides))
        asyncio.run(measure(sides, installation, chosen.rounds, chosen.at_once))
        if not chosen.no_browser:
            measure_clicks(sides, max(1, chosen.rounds // 2))
    print(f"load average {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")


if __name__ == "__main__":
    main()
