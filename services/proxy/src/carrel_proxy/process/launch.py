"""The launcher: binds what is to be listened on and becomes the parent, at the same process id.

All that can be wrong with options, settings and addresses is found before that, in a program that
has its libraries. For a reload the parent runs the same program as a child: it takes over the
listeners there are, binds those that are new, and hands back the plan.
"""

import array
import errno
import gc
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import carrel_proxy
from carrel_proxy.process.plan import HANDOVER, SIGNALS, VERSION, save_state
from carrel_proxy.process.standing import who_runs
from carrel_shared.addresses import AddressError

BIND_SECONDS = 2.0
"""How long workers whose parent was killed may take to let go of an address."""
_TRIAL_SECONDS = 20

Bind = Callable[[], socket.socket | None]


@dataclass(frozen=True, slots=True)
class Wanted:
    """One listener.

    Attributes:
        role: What it is for: `public`, `control`, ...
        address: Where, as a reload finds it again; role and address together are unique.
        bind: Opens it; None where that makes no sense on this machine.
    """

    role: str
    address: str
    bind: Bind


@dataclass(frozen=True, slots=True)
class Run:
    """What a program asks of its parent; `Plan` says what the rest means.

    Attributes:
        arguments: The launcher's own, for a reload.
        worker: What workers are given. `@text` stands for a descriptor of `text`.
        prepare: Imports what workers need, so that those forked from here are ready at once.
    """

    arguments: Sequence[str]
    wanted: Sequence[Wanted]
    worker: Sequence[str]
    workers: int
    drain_seconds: float
    deadline_seconds: float
    exit_status: int = 0
    pid_file: str = ""
    status_file: str = ""
    json_lines: bool = False
    log_level: str = "info"
    text: str = field(default="", repr=False)
    prepare: Callable[[], object] = lambda: None


def is_reload(environ: Mapping[str, str]) -> bool:
    """Whether a parent runs already, which wants a plan."""
    return HANDOVER in environ


def launch(run: Run, environ: Mapping[str, str]) -> None:
    """Become the parent; return only for a reload, when the plan was handed over.

    Raises:
        AddressError: If an address cannot be listened on, or another proxy has the same state.
        OSError: If the parent cannot be executed.
    """
    handover = _read_handover(environ)
    if not handover:
        _wait_until_alone(run.status_file)
        run.prepare()
    there: dict[str, int] = handover["listeners"] if handover else {}
    listeners, opened = _listeners(run.wanted, there)
    kept = []
    worker = list(run.worker)
    if "@text" in worker:
        kept.append(_text_file(run.text))
        worker[worker.index("@text")] = str(kept[0])
    _raise_descriptor_limit()
    values = _values(run, listeners, kept, worker)
    if handover:
        _try_parent(values["parent"])
        _hand_over(handover["reply"], values, [*opened, *kept])
        return
    for descriptor in (*opened, *kept):
        os.set_inheritable(descriptor, True)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)  # they wait for the parent
    state = save_state({"plan": values, "forked": _fork_workers(worker, run.workers)})
    os.set_inheritable(state, True)
    sys.stdout.flush()
    sys.stderr.flush()
    os.execv(  # noqa: S606 - no shell is wanted
        values["parent"][0], [*values["parent"], str(state)]
    )


def report_failure(message: str, environ: Mapping[str, str]) -> None:
    """Tell the parent that wants a plan why there is none."""
    if (handover := _read_handover(environ)) is not None:
        with socket.socket(fileno=handover["reply"]) as reply:
            reply.send(json.dumps({"error": message}).encode())


def _read_handover(environ: Mapping[str, str]) -> dict[str, Any] | None:
    if HANDOVER not in environ:
        return None
    handover: dict[str, Any] = json.loads(environ[HANDOVER])
    if handover["version"] != VERSION:
        raise AddressError("this version cannot take over from the one that runs: restart it")
    return handover


def _values(
    run: Run, listeners: dict[str, int], kept: list[int], worker: list[str]
) -> dict[str, Any]:
    # -I and -P keep the directory that this was started in off the path.
    python = [sys.executable, "-I" if sys.flags.isolated else "-P"]
    main = Path(carrel_proxy.__file__).with_name("process") / "main.py"
    return {
        "parent": [sys.executable, "-I", "-S", str(main)],
        "launcher": [*python, "-m", "carrel_proxy", *run.arguments],
        "worker": [*python, "-m", "carrel_proxy.process.worker", *worker],
        "workers": run.workers,
        "listeners": listeners,
        "kept": kept,
        "drain_seconds": run.drain_seconds,
        "deadline_seconds": run.deadline_seconds,
        "exit_status": run.exit_status,
        "pid_file": run.pid_file,
        "status_file": run.status_file,
        "json_lines": run.json_lines,
        "log_level": run.log_level,
    }


def _listeners(
    wanted: Sequence[Wanted], there: Mapping[str, int]
) -> tuple[dict[str, int], list[int]]:
    """Return the descriptors of all listeners by name, and those that were opened for it."""
    found: dict[str, int] = {}
    opened = []
    # The public one last: who gets through to it finds all others listening.
    for each in sorted(wanted, key=lambda each: each.role == "public"):
        name = f"{each.role} {each.address}"
        if name in there:
            found[name] = there[name]
        elif (listening := _bind(each.bind)) is not None:
            found[name] = listening.detach()
            opened.append(found[name])
    return found, opened


def _wait_until_alone(status_file: str) -> None:
    """Two that keep their state in one place would each undo what the other was told.

    Raises:
        AddressError: If another one runs there.
    """
    latest = time.monotonic() + BIND_SECONDS
    while status_file and (other := who_runs(status_file)) is not None:
        if time.monotonic() > latest:
            raise AddressError(
                f"{Path(status_file).parent}: another proxy (process {other['pid']}) keeps its"
                " state here. Give each a state_dir of its own, or have that one reload"
            )
        time.sleep(0.05)


def _bind(bind: Bind) -> socket.socket | None:
    latest = time.monotonic() + BIND_SECONDS
    while True:
        try:
            return bind()
        except AddressError as error:
            cause = error.__cause__
            taken = cause is None or getattr(cause, "errno", None) == errno.EADDRINUSE
            if not taken or time.monotonic() > latest:
                raise
            time.sleep(0.05)


def _fork_workers(arguments: Sequence[str], number: int) -> list[dict[str, Any]]:
    """Start the first workers from here: what they need is imported, and they share it."""
    from carrel_proxy.process.worker import main

    gc.collect()
    gc.freeze()
    forked: list[dict[str, Any]] = []
    sys.stdout.flush()
    sys.stderr.flush()
    for slot in range(number):
        ours, theirs = socket.socketpair()
        pid = os.fork()
        if pid == 0:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
            for channel in (ours.fileno(), *(each["channel"] for each in forked)):
                os.close(channel)  # or nobody would notice the end of the parent
            _run_worker(main, [*arguments, str(theirs.detach())])
        theirs.close()
        channel = ours.detach()
        os.set_inheritable(channel, True)
        forked.append({"id": slot + 1, "slot": slot, "pid": pid, "channel": channel})
    return forked


def _run_worker(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> NoReturn:
    """End with the worker: whoever forked it has much to clean up that is not the worker's."""
    status = 1
    try:
        status = main(arguments)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _text_file(text: str) -> int:
    descriptor = os.memfd_create("carrel-proxy-settings", 0)
    with os.fdopen(os.dup(descriptor), "w", encoding="utf-8") as file:
        file.write(text)
    return descriptor


def _raise_descriptor_limit() -> None:
    """Every request through the proxy takes two descriptors."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def _try_parent(command: Sequence[str]) -> None:
    """See that the parent can run at all, before the one that runs gives itself up for it.

    Raises:
        OSError: If it cannot.
    """
    try:
        trial = subprocess.run(
            [*command, "--version"], capture_output=True, timeout=_TRIAL_SECONDS, check=False
        )
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[-1]} does not start") from error
    if trial.returncode != 0 or trial.stdout.strip() != str(VERSION).encode():
        raise OSError(f"{command[-1]} cannot run: {trial.stderr.decode(errors='replace').strip()}")


def _hand_over(reply: int, values: dict[str, Any], descriptors: Sequence[int]) -> None:
    """Send the plan; descriptors are numbered in it from -1 down, in the order they are sent."""
    numbers = {descriptor: -1 - place for place, descriptor in enumerate(descriptors)}
    values["listeners"] = {name: numbers.get(d, d) for name, d in values["listeners"].items()}
    values["kept"] = [numbers.get(d, d) for d in values["kept"]]
    words = {str(descriptor): f"@{number}" for descriptor, number in numbers.items()}
    *head, settings = values["worker"]
    values["worker"] = (
        [*head, words.get(settings, settings)] if values["kept"] else values["worker"]
    )
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))
    with socket.socket(fileno=reply) as answer:
        answer.sendmsg([json.dumps(values).encode()], [rights] if descriptors else [])
