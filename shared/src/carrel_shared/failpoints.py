"""Named places where a test may have the process killed, to see what is lost. Usually inert.

`CARREL_FAILPOINT=spawn.after_intent` kills the process with SIGKILL the first time it gets there.
"""

import os
import signal

_ARMED = os.environ.get("CARREL_FAILPOINT", "")


def failpoint(name: str) -> None:
    """Die here if the environment asks for it."""
    if _ARMED and name == _ARMED:
        os.kill(os.getpid(), signal.SIGKILL)
