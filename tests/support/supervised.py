"""Fake services under a real supervisor."""

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from carrel_hub.up.accounts import own_account
from carrel_hub.up.logfile import MergedLog
from carrel_hub.up.plan import Probe, ServiceSpec
from carrel_hub.up.record import ServiceRecord
from carrel_hub.up.supervisor import Supervisor
from carrel_shared.clock import SystemClock
from support.processes import kill_leftovers

_FAKE = Path(__file__).with_name("fake_service.py")


class Bench:
    """Supervisors under test in one directory, with the record they keep."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.recorded: Mapping[str, ServiceRecord] = {}
        self.log = MergedLog(directory / "carrel.log", SystemClock())

    def spec(
        self,
        name: str,
        *behaviours: str,
        before: tuple[str, ...] | None = None,
        first_start: Mapping[str, str] | None = None,
        version: str = "",
    ) -> ServiceSpec:
        """Return a fake service; `fake_service.py` says how it may behave."""
        socket = self.directory / f"{name}.sock"
        return ServiceSpec(
            name=name,
            argv=(sys.executable, "-I", "-S", str(_FAKE), str(socket), *behaviours),
            environment={"PATH": "/usr/bin:/bin", "CARREL_TEST": name},
            account=own_account(),
            probe=Probe(socket, "/health"),
            first_start=first_start or {},
            before=before,
            version=version,
        )

    def supervisor(self, *specs: ServiceSpec) -> Supervisor:
        def record(services: Mapping[str, ServiceRecord]) -> None:
            self.recorded = services

        return Supervisor(specs, log=self.log, clock=SystemClock(), record=record)

    def log_text(self) -> str:
        return (self.directory / "carrel.log").read_text()

    def pid(self, name: str) -> int:
        return self.recorded[name].identity.pid

    def environment_of(self, name: str) -> dict[str, str]:
        """Return the environment a fake service saw."""
        lines = (self.directory / f"{name}.environment").read_text().splitlines()
        return dict(line.split("=", 1) for line in lines)

    def left_behind(self, name: str, where: str) -> int:
        """Return the pid of the child that a fake service left `inside` or `outside`."""
        return int((self.directory / f"{name}.{where}").read_text())

    def clean(self) -> None:
        """End whatever still runs."""
        self.log.close()
        kill_leftovers(self.directory)


def turn_until(supervisor: Supervisor, condition: Callable[[], bool], seconds: float = 60) -> None:
    """Run the supervisor until something has come true."""
    clock = SystemClock()
    deadline = clock.monotonic() + seconds
    while not condition():
        assert clock.monotonic() < deadline, "it never came true"
        supervisor.turn()
