"""Run the parent: `python -I -S PATH/process/main.py DESCRIPTOR`, as the launcher does.

Without site-packages it takes a tenth of a worker's memory, and nothing that is installed, or
broken, in an environment can end it. The descriptor holds the plan.
"""

# ruff: noqa: PTH100, PTH120

import os
import sys

if __name__ == "__main__":
    # -I keeps this file's own directory off the path; the package lies two levels up.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from carrel_proxy.process.parent import Parent
from carrel_proxy.process.plan import VERSION, Plan, load_state


def main() -> int:
    """Run until told to end; return the exit status."""
    if sys.argv[1:] == ["--version"]:
        print(VERSION)  # noqa: T201 - for a launcher that sees whether this can run at all
        return 0
    state = load_state(int(sys.argv[1]))
    plan = Plan(state["plan"])
    if "saved" in state:
        return Parent.taking_up(plan, state["saved"]).run()
    return Parent.starting(plan, state["forked"]).run()


if __name__ == "__main__":
    sys.exit(main())
