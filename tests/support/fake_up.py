"""`carrel` with fake services in place of the real ones: `fake_up.py up ...`.

`FAKE_HUB`, `FAKE_PROXY` and `FAKE_KEEPER` in the environment say how they behave, in the words of
`fake_service.py`; `FAKE_NOTEBOOK_SECONDS` is how long notebooks may take to stop.
"""

import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

from carrel_hub.up import run
from carrel_hub.up.__main__ import main
from carrel_hub.up.options import UpOptions
from carrel_hub.up.plan import ServiceSpec, Surroundings, plan_services

_SCRIPT = Path(__file__).with_name("fake_service.py")


def plan_fakes(options: UpOptions, around: Surroundings) -> list[ServiceSpec]:
    """Plan as for real, then put the fake program in each service's place."""
    program = around.layout.state / "fake_service.py"
    shutil.copy(_SCRIPT, program)
    program.chmod(0o644)
    fakes = []
    for spec in plan_services(options, around):
        words = os.environ.get(f"FAKE_{spec.name.upper()}", "").split()
        argv = (sys.executable, "-I", "-S", str(program), str(spec.probe.socket), *words)
        fakes.append(replace(spec, argv=argv, before=None))
    return fakes


if __name__ == "__main__":
    seconds = float(os.environ.get("FAKE_NOTEBOOK_SECONDS", "10"))
    with (
        patch.object(run, "plan_services", plan_fakes),
        patch.object(run, "NOTEBOOK_SECONDS", seconds),
    ):
        sys.exit(main())
