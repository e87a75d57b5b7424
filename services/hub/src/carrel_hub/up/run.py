"""`carrel up`, from the command line to the last process."""

import importlib.util
import os
import signal
import sys
from argparse import Namespace
from collections.abc import Mapping
from pathlib import Path

from carrel_hub import __version__
from carrel_hub.up.accounts import (
    Account,
    ensure_demo_account,
    ensure_service_account,
    find_account,
    own_account,
)
from carrel_hub.up.console import HubConsole, Link, Notebook
from carrel_hub.up.errors import UpError
from carrel_hub.up.keys import load_or_make_keys
from carrel_hub.up.launch import Watched
from carrel_hub.up.layout import (
    Layout,
    check_readable,
    choose_layout,
    own_directories,
    prepare,
    service_directories,
)
from carrel_hub.up.lock import Holder, StateLock, read_holder
from carrel_hub.up.logfile import MergedLog, say
from carrel_hub.up.messages import already_running, link_command, name_all, sign_in_text
from carrel_hub.up.options import DEFAULT_SERVICE_USER, UpOptions, read_up_options
from carrel_hub.up.people import DEMO_ACCOUNT, Person, choose_person
from carrel_hub.up.plan import Surroundings, plan_services
from carrel_hub.up.port import check_port
from carrel_hub.up.record import (
    Fate,
    Record,
    ServiceRecord,
    decide_fates,
    read_record,
    write_record,
)
from carrel_hub.up.signals import Signals
from carrel_hub.up.supervisor import Supervisor, stop_processes
from carrel_shared.clock import SystemClock

NOTEBOOK_SECONDS = 10.0
"""How long notebooks may take to stop at Ctrl-C before they are left."""

_ASK_AGAIN_SECONDS = 0.3


def run_up(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Run everything until it is told to stop; return the exit status.

    Raises:
        UpError: If it cannot start or go on.
    """
    options = read_up_options(arguments)
    own = own_account()
    layout = choose_layout(
        uid=own.uid,
        home=own.home,
        state_dir=arguments.state_dir,
        run_dir=arguments.run_dir,
        environ=environ,
    )
    person = choose_person(
        uid=own.uid,
        own_name=own.name,
        requested=options.user,
        sudo_user=environ.get("SUDO_USER"),
        demo=options.demo,
        uid_of=lambda name: account.uid if (account := find_account(name)) else None,
    )
    keeper_main = _find_keeper()
    prepare(own_directories(layout, own), uid=own.uid)
    another_link = link_command(arguments.state_dir, environ)
    lock = StateLock(layout.lock)
    if not lock.acquire():
        holder, _ = read_holder(layout.lock)
        raise UpError(already_running(holder, layout.state, another_link))
    try:
        found = _left_running(layout)
        if not _is_alive(found, "proxy"):
            check_port(options.bind)
        lock.describe(Holder(os.getpid(), options.url, str(layout.run)))
        service = _make_accounts(options, own, person)
        for option, path in options.files:
            check_readable(path, option, service)
        prepare(service_directories(layout, own=own, service=service), uid=own.uid)
        around = Surroundings(
            layout=layout,
            keys=load_or_make_keys(layout.keys),
            own=own,
            service=service,
            environ=environ,
            python=sys.executable,
            keeper_main=keeper_main,
            version=__version__,
            config_text=options.config.read_bytes() if options.config else b"",
        )
        return _Run(
            options, around, person, found, link_command(arguments.state_dir, environ)
        ).run()
    finally:
        lock.release()


def _find_keeper() -> Path:
    found = importlib.util.find_spec("carrel_agent")
    proxy = importlib.util.find_spec("carrel_proxy")
    if found is None or found.origin is None or proxy is None:
        raise UpError(
            "carrel up needs proxy and agent beside the hub: install carrel-hub[embedded]"
        )
    return Path(found.origin).parent / "keeper" / "main.py"


def _left_running(layout: Layout) -> Record | None:
    """Return what an earlier `carrel up` left, unless it is another installation's.

    Raises:
        UpError: If another installation runs in the same run-time directory.
    """
    found = read_record(layout.record)
    if found is None or found.state == str(layout.state):
        return found
    if any(service.identity.is_alive() for service in found.services.values()):
        raise UpError(
            f"{layout.run} is in use by the Carrel whose state is in {found.state}:"
            " give another place with --run-dir"
        )
    return None


def _is_alive(found: Record | None, name: str) -> bool:
    return found is not None and name in found.services and found.services[name].identity.is_alive()


def _make_accounts(options: UpOptions, own: Account, person: Person) -> Account:
    if own.uid != 0:
        return own
    name = options.service_user
    service, made = ensure_service_account(name, make=name == DEFAULT_SERVICE_USER)
    if made:
        say(f"Made the system account {name}, which hub and proxy run as.")
    if person.make_demo:
        if ensure_demo_account():
            say(f"Made the account {DEMO_ACCOUNT}, since root runs no notebooks.")
        say(f"You are {DEMO_ACCOUNT}. `make clean` or `carrel demo remove` removes that account.")
    return service


class _Run:
    """One run, with the state lock held."""

    def __init__(
        self,
        options: UpOptions,
        around: Surroundings,
        person: Person,
        found: Record | None,
        link_command: str,
    ) -> None:
        self._options = options
        self._origin = options.origin
        self._layout = around.layout
        self._person = person
        self._found = found
        self._link_command = link_command
        self._clock = SystemClock()
        self._console = HubConsole(around.layout.hub_internal, around.keys.console)
        self._specs = plan_services(options, around)
        self._log = MergedLog(around.layout.log, self._clock)
        self._signals = Signals()
        self._supervisor = Supervisor(
            self._specs,
            log=self._log,
            clock=self._clock,
            record=self._write_record,
            wakeup=self._signals.wakeup,
        )

    def run(self) -> int:
        try:
            self._take_over()
            asked = self._start()
            if asked is None:
                self._print_ready()
                asked = self._wait_for_signal()
            if asked is signal.SIGINT and not self._options.keep:
                self._stop_notebooks()
            else:
                self._name_kept()
        finally:
            # Also when a service cannot run: notebooks stay, and the next `carrel up` finds them.
            self._supervisor.stop()
            self._log.close()
            self._signals.close()
        say("Carrel has ended.")
        return 0

    def _take_over(self) -> None:
        """Adopt what an earlier `carrel up` left and is as we want it; end the rest."""
        found = self._found.services if self._found else {}
        wanted = {spec.name: spec.fingerprint for spec in self._specs}
        alive = {name: each.identity.is_alive() for name, each in found.items()}
        replaced: list[Watched] = []
        for name, fate in decide_fates(found, wanted, alive).items():
            identity = found[name].identity
            if fate is Fate.ADOPT and self._supervisor.adopt(name, identity):
                say(f"Taking over {name}, which is still running (process {identity.pid}).")
            elif fate is Fate.REPLACE:
                say(f"Replacing {name}, which was started with other settings.")
                try:
                    replaced.append(Watched(identity, is_child=False))
                except ProcessLookupError:
                    continue
        stop_processes(replaced, clock=self._clock, meanwhile=self._log.print_new)
        if replaced and self._supervisor.services["proxy"].process is None:
            check_port(self._options.bind)

    def _write_record(self, services: Mapping[str, ServiceRecord]) -> None:
        record = Record(
            state=str(self._layout.state),
            origin=self._origin,
            base_url=self._options.base_url,
            person=self._person.name,
            account=self._person.account,
            services=dict(services),
        )
        write_record(self._layout.record, record)

    def _start(self) -> signal.Signals | None:
        while not self._supervisor.all_up:
            self._supervisor.turn()
            if (asked := self._signals.take()) is not None:
                return asked
        return None

    def _wait_for_signal(self) -> signal.Signals:
        while (asked := self._signals.take()) is None:
            self._supervisor.turn()
        return asked

    def _print_ready(self) -> None:
        self._log.print_new()
        link, problem = Link(""), ""
        try:
            link = self._console.link(user=self._person.name, account=self._person.account)
        except UpError as error:
            problem = f"No sign-in link could be made: {error}"
        if link.origin:
            self._origin = link.origin
            self._supervisor.write_record()
        say(f"\nCarrel is running at {self._origin}{self._options.base_url}")
        say(problem or sign_in_text(self._person.name, link.at(self._origin)))
        say(f"Another link: {self._link_command}      Stop: Ctrl-C\n")

    def _stop_notebooks(self) -> None:
        try:
            running = self._console.notebooks()
            if not running and not self._console.services():
                return
            if running:
                say(
                    f"Stopping {name_all(running)}."
                    " (Ctrl-C again: end now and leave notebooks running.)"
                )
            self._console.stop_all("carrel up was ended at the console")
            left = self._wait_until_stopped()
        except UpError as error:
            say(f"Notebooks are left as they are: {error}.")
            return
        if left:
            say(f"Still running: {name_all(left)}. The next `carrel up` finds them again.")

    def _wait_until_stopped(self) -> list[Notebook]:
        deadline = self._clock.monotonic() + NOTEBOOK_SECONDS
        ask_at = 0.0
        left: list[Notebook] = []
        while (now := self._clock.monotonic()) < deadline:
            if now >= ask_at:
                left = self._console.notebooks()
                if not left and not self._console.services():
                    return []
                ask_at = now + _ASK_AGAIN_SECONDS
            if self._signals.take() is not None:
                return left
            self._supervisor.turn()
        return left

    def _name_kept(self) -> None:
        if not self._supervisor.services["hub"].ever_up:
            return
        try:
            running = self._console.notebooks()
        except UpError:
            return
        if running:
            say(f"Left running: {name_all(running)}. The next `carrel up` finds them again.")
