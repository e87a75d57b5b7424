"""Have targets hang up while requests are sent to them, over and over: O11 of the threats.

    python tests/bench/stale.py [--attempts 100000]

A hundred thousand take a few minutes. What came of each is counted; the status is 1 if a target was
asked twice for one POST, or an answer was somebody else's.
"""

import argparse
import asyncio
import logging
import secrets
import sys
import tempfile
from pathlib import Path

import structlog
import uvloop

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
sys.path.remove(str(Path(__file__).resolve().parent))  # there `proxy` is another module

from proxy.hub import FakeHub
from proxy.running import open_proxy
from proxy.stale import Race, race
from proxy.wire import open_upstream

AT_A_TIME = 10_000


async def run(attempts: int, seed: int) -> Race:
    with tempfile.TemporaryDirectory(prefix="bench-") as directory:
        async with (
            open_upstream() as upstream,
            open_proxy(Path(directory), FakeHub(), log_level="error") as running,
        ):
            return await race(running, upstream, attempts, seed)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    whole = Race()
    for number, done in enumerate(range(0, options.attempts, AT_A_TIME)):
        asked = min(AT_A_TIME, options.attempts - done)
        # Either loop has its own order of things that end in the same turn.
        run_loop = uvloop.run if number % 2 else asyncio.run
        found = run_loop(run(asked, options.seed + number))
        whole.outcomes += found.outcomes
        whole.wrong += found.wrong
        print(f"{done + asked:8} {dict(whole.outcomes)}", flush=True)
    print(f"seed {options.seed}: {len(whole.wrong)} wrong", *whole.wrong[:10], sep="\n")
    return 1 if whole.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
