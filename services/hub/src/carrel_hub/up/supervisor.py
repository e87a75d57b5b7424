"""Keeps the services running: starts, watches, starts again, stops. One loop, no threads."""

import contextlib
import random
import select
import signal
from collections.abc import Callable, Mapping, Sequence
from enum import Enum

from carrel_hub.up.console import is_up
from carrel_hub.up.errors import UpError
from carrel_hub.up.launch import Watched, launch
from carrel_hub.up.logfile import MergedLog
from carrel_hub.up.plan import ServiceSpec
from carrel_hub.up.record import ServiceRecord
from carrel_hub.up.restart import Again, End, GiveUp, after_end, in_words
from carrel_shared.clock import Clock
from carrel_shared.identity import ProcessIdentity

ANSWER_SECONDS = 30.0
"""How long a service may take to answer before it is started again."""

STOP_SECONDS = 8.0
"""How long a service may take to end after SIGTERM before it is killed."""

_PROBE_SECONDS = 0.05
_LOG_SECONDS = 0.25
PREPARING_MARK = "preparing "

Recorder = Callable[[Mapping[str, ServiceRecord]], None]


class Phase(Enum):
    """Where a service is in its life."""

    WAITING = "waiting to be started"
    PREPARING = "preparing"
    STARTING = "starting"
    UP = "up"


class Service:
    """One service: what it is started from, and the process that runs now, if any."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.phase = Phase.WAITING
        self.process: Watched | None = None
        self.fingerprint = ""
        self.since = 0.0
        self.due = 0.0
        self.short_runs = 0
        self.ever_up = False
        self.first_start = True
        self.prepared = False


class Supervisor:
    """Runs a set of services until told to stop.

    Args:
        record: Called with what runs before each new process begins, and after each end.
        wakeup: A file descriptor that becomes readable when a signal came.
    """

    def __init__(
        self,
        specs: Sequence[ServiceSpec],
        *,
        log: MergedLog,
        clock: Clock,
        record: Recorder,
        wakeup: int | None = None,
    ) -> None:
        self.services = {spec.name: Service(spec) for spec in specs}
        self._log = log
        self._clock = clock
        self._record = record
        self._wakeup = wakeup

    def adopt(self, name: str, identity: ProcessIdentity) -> bool:
        """Take over a process that an earlier `carrel up` started; False if it just ended."""
        service = self.services[name]
        try:
            service.process = Watched(identity, is_child=False)
        except ProcessLookupError:
            return False
        service.phase = Phase.STARTING  # until it answers
        service.fingerprint = service.spec.fingerprint
        service.since = self._clock.monotonic()
        service.first_start = False
        return True

    @property
    def all_up(self) -> bool:
        """Whether every service answers."""
        return all(service.phase is Phase.UP for service in self.services.values())

    def turn(self) -> None:
        """Do what is due, then wait for the next thing to happen, a fraction of a second at most.

        Raises:
            UpError: If a service cannot be made to run. The others run on until `stop`.
        """
        now = self._clock.monotonic()
        for service in self.services.values():
            if service.process is not None and service.process.has_ended():
                self._ended(service)
            elif service.phase is Phase.WAITING and now >= service.due:
                self._start(service)
            elif service.phase is Phase.STARTING:
                self._probe(service)
        self._log.print_new()
        self._wait()

    def _wait(self) -> None:
        poll = select.poll()
        if self._wakeup is not None:
            poll.register(self._wakeup, select.POLLIN)
        wait = _LOG_SECONDS
        now = self._clock.monotonic()
        for service in self.services.values():
            if service.process is not None:
                poll.register(service.process, select.POLLIN)
            if service.phase is Phase.STARTING:
                wait = min(wait, _PROBE_SECONDS)
            elif service.phase is Phase.WAITING:
                wait = min(wait, max(service.due - now, 0))
        poll.poll(wait * 1000)

    def _start(self, service: Service) -> None:
        spec = service.spec
        preparing = spec.before is not None and not service.prepared
        argv = spec.before if spec.before is not None and preparing else spec.argv
        environment = dict(spec.environment)
        if service.first_start and not preparing:
            environment |= spec.first_start
            service.first_start = False
        service.fingerprint = (PREPARING_MARK if preparing else "") + spec.fingerprint

        def written_down(identity: ProcessIdentity) -> None:
            service.process = Watched(identity, is_child=True)
            self.write_record()

        service.since = self._clock.monotonic()
        try:
            launch(
                argv,
                environment,
                spec.account,
                output=self._log.descriptor,
                written_down=written_down,
            )
        except UpError:
            if service.process is not None:
                service.process.close()
                service.process = None
            raise
        service.phase = Phase.PREPARING if preparing else Phase.STARTING

    def _probe(self, service: Service) -> None:
        if is_up(service.spec.probe):
            service.phase = Phase.UP
            if service.ever_up:
                self._log.write(f"{service.spec.name} is back")
            service.ever_up = True
        elif self._clock.monotonic() - service.since > ANSWER_SECONDS:
            self._log.write(
                f"{service.spec.name} does not answer and is started again", warning=True
            )
            assert service.process is not None  # noqa: S101 - it is starting
            service.process.signal(signal.SIGKILL)
            service.since = self._clock.monotonic()  # its end is noticed in a later turn

    def _ended(self, service: Service) -> None:
        assert service.process is not None  # noqa: S101 - the caller saw it end
        status = service.process.finish()
        service.process = None
        name = service.spec.name
        if service.phase is Phase.PREPARING and status == 0:
            service.prepared = True
            self._start(service)
            return
        service.phase = Phase.WAITING
        self.write_record()
        end = End(
            status, self._clock.monotonic() - service.since, service.short_runs, service.ever_up
        )
        match after_end(end, rand=random.random):
            case GiveUp(reason):
                self._log.print_new()
                raise UpError(
                    f"{name} {in_words(status)}: {reason}.\n"
                    f"  What it said is above, and in {self._log.path}."
                )
            case Again(seconds, short_runs):
                service.short_runs = short_runs
                service.due = self._clock.monotonic() + seconds
                self._log.write(
                    f"{name} {in_words(status)} and is started again in {seconds:.1f} s",
                    warning=True,
                )

    def write_record(self) -> None:
        """Write down which services run."""
        self._record(
            {
                name: ServiceRecord(service.process.identity, service.fingerprint)
                for name, service in self.services.items()
                if service.process is not None
            }
        )

    def stop(self) -> None:
        """End every service: all at once, since nothing is left for them to do together."""
        stop_processes(
            [s.process for s in self.services.values() if s.process is not None],
            clock=self._clock,
            meanwhile=self._log.print_new,
        )
        for service in self.services.values():
            service.process = None
            service.phase = Phase.WAITING
        with contextlib.suppress(OSError):
            self.write_record()


def stop_processes(
    processes: Sequence[Watched], *, clock: Clock, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """SIGTERM, wait, SIGKILL, and what is left of their sessions; returns when all have ended."""
    for process in processes:
        process.signal(signal.SIGTERM)
    deadline = clock.monotonic() + STOP_SECONDS
    for process in processes:
        while not process.has_ended(0.1):
            meanwhile()
            if clock.monotonic() >= deadline:
                process.signal(signal.SIGKILL)
    for process in processes:
        process.finish()
    meanwhile()
