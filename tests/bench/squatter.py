"""Start and kill a server again and again while another account tries to take its place (AGT-01).

    python tests/bench/squatter.py [--cycles 1000] [--agent-deaths 100] [--seed 1]

The agent is killed at random moments of some of the starts. Says what the other account got, which
is to be nothing. Needs root.
"""

import argparse
import pwd
import sys
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.accounts import temporary_account
from support.agent_host import running_host
from support.squatter import come_and_go


def main() -> int:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--cycles", type=int, default=1000)
    options.add_argument("--agent-deaths", type=int, default=100)
    options.add_argument("--seed", type=int, default=1)
    chosen = options.parse_args()
    with ExitStack() as stack:
        owner, other = (
            pwd.getpwnam(stack.enter_context(temporary_account(label)).name) for label in "ab"
        )
        host = stack.enter_context(running_host(owner, socket_group="daemon"))
        began = time.perf_counter()
        got = come_and_go(
            host,
            other,
            cycles=chosen.cycles,
            agent_deaths=chosen.agent_deaths,
            seed=chosen.seed,
        )
        seconds = time.perf_counter() - began
    print(f"{chosen.cycles} starts, {chosen.agent_deaths} deaths of the agent, {seconds:.0f} s")
    print(f"the other account got: {got or 'nothing'}")
    return 1 if got else 0


if __name__ == "__main__":
    sys.exit(main())
