"""`carrel link`, `carrel join-token` and `carrel status`: asked beside a running `carrel up`."""

from argparse import Namespace
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carrel_hub.up.accounts import find_account, own_account
from carrel_hub.up.console import HubConsole
from carrel_hub.up.errors import UpError
from carrel_hub.up.keys import load_keys
from carrel_hub.up.layout import Layout, choose_layout
from carrel_hub.up.lock import read_holder
from carrel_hub.up.logfile import say
from carrel_hub.up.messages import program, sign_in_text
from carrel_hub.up.people import Person, choose_person
from carrel_hub.up.record import Record, read_record

NOT_RUNNING = 3
"""Exit status of `carrel status` when Carrel does not run."""


@dataclass(frozen=True, slots=True)
class _Installation:
    """What runs with a state directory.

    Attributes:
        up_pid: The `carrel up` that watches it; None after that was killed.
        alive: Service to pid, of those that live.
    """

    layout: Layout
    record: Record
    up_pid: int | None
    alive: Mapping[str, int]

    def console(self) -> HubConsole:
        return HubConsole(self.layout.hub_internal, load_keys(self.layout.keys).console)


def run_link(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Print another one-time sign-in link; return the exit status.

    Raises:
        UpError: If Carrel does not run, or the person cannot be signed in.
    """
    found = _find(arguments, environ)
    if found is None:
        raise UpError(f"Carrel does not run. To start it: {program(environ)} up")
    person = Person(found.record.person, found.record.account)
    if arguments.user is not None:
        own = own_account()
        person = choose_person(
            uid=own.uid,
            own_name=own.name,
            requested=arguments.user,
            sudo_user=None,
            demo=False,
            uid_of=lambda name: account.uid if (account := find_account(name)) else None,
        )
    link = found.console().link(user=person.name, account=person.account)
    say(sign_in_text(person.name, link.at(found.record.origin)))
    return 0


def run_join_token(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Print what lets a host join; return the exit status.

    Raises:
        UpError: If Carrel does not run, or no host can join under this name.
    """
    found = _find(arguments, environ)
    if found is None:
        raise UpError(f"Carrel does not run. To start it: {program(environ)} up")
    say(found.console().join_token(arguments.host))
    return 0


def run_status(arguments: Namespace, environ: Mapping[str, str]) -> int:
    """Say what runs; return the exit status, `NOT_RUNNING` if nothing does.

    Raises:
        UpError: If it cannot be looked into.
    """
    found = _find(arguments, environ)
    if found is None:
        say("Carrel does not run.")
        return NOT_RUNNING
    say(f"Carrel is running at {found.record.url}")
    if found.up_pid is None:
        say(f"  up         gone; `{program(environ)} up` takes over what runs")
    else:
        say(f"  up         process {found.up_pid}")
    for name in found.record.services:
        pid = found.alive.get(name)
        say(f"  {name:<10} " + (f"process {pid}" if pid else "not running"))
    try:
        notebooks = found.console().notebooks()
    except (UpError, OSError) as error:
        say(f"  notebooks  unknown: {error}")
        return 0
    say(f"  notebooks  {len(notebooks) or 'none'}")
    for notebook in notebooks:
        say(f"    {notebook} ({notebook.state})")
    return 0


def _find(arguments: Namespace, environ: Mapping[str, str]) -> _Installation | None:
    own = own_account()
    layout = choose_layout(
        uid=own.uid, home=own.home, state_dir=arguments.state_dir, run_dir=None, environ=environ
    )
    try:
        holder, held = read_holder(layout.lock)
        if holder is None:
            return None
        layout = Layout(layout.state, Path(holder.run))
        record = read_record(layout.record)
    except PermissionError as error:
        raise UpError(f"{error.filename}: {error.strerror}; ask as root") from None
    if record is None or record.state != str(layout.state):
        return None
    alive = {
        name: each.identity.pid
        for name, each in record.services.items()
        if each.identity.is_alive()
    }
    if not (held or alive):
        return None
    return _Installation(layout, record, holder.pid if held else None, alive)
