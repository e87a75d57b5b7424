"""Open many WebSockets through a proxy, cut their network, and see when nothing of them is left.

    python tests/bench/abandoned.py [--sockets 10000] [--seconds 60]

Needs root, iproute2 and nftables: the ends are in network namespaces of their own.
"""

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.abandoned import run


def main() -> int:
    """Print what was seen; the status is 1 if something was left."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sockets", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=60, help="`vanished_seconds` of the proxy")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="cpx-", dir="/tmp") as directory:
        outcome = run(Path(directory), options.sockets, options.seconds, options.seconds + 30)
    print(f"{outcome.sockets} sockets of {options.sockets} asked for")
    print(f"descriptors: {outcome.before} at first, {outcome.opened} with all sockets open")
    shown = -10.0
    for elapsed, left in outcome.left:
        if elapsed - shown >= 5 or left <= 0:
            print(f"{elapsed:6.1f} s after the cut: {left} left")
            shown = elapsed
    elapsed, left = outcome.left[-1]
    good = left <= 0 and elapsed <= options.seconds
    print("nothing was left in time" if good else "NOT all gone in time")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
