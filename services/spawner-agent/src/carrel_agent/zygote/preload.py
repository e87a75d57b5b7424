"""Importing what a server will need, before there is a server.

What JupyterLab's own modules import is not enough: a start loads about a hundred more. Which ones
depends on releases and on the host's extensions, so it is found by starting once, in a forked
child that reports the names of its modules and ends. Nothing of Jupyter's is ever instantiated in
the zygote itself.
"""

import gc
import importlib
import json
import os
import select
import signal
import sys
import sysconfig
import warnings
from collections.abc import Iterable
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from carrel_agent.zygote.guard import only_written_by
from carrel_agent.zygote.rehearsal import rehearse

STACK = ("jupyterlab.labapp", "jupyter_server.serverapp")
FIRST_KERNEL = (
    "zmq.asyncio",
    "zmq.eventloop.zmqstream",
    "jupyter_client.asynchronous",
    "jupyter_client.ioloop",
    "jupyter_client.provisioning",
    "jupyter_server.services.kernels.connection.channels",
    "terminado.management",
)
"""Loaded with the first kernel or terminal, which a rehearsal does not start."""

REHEARSAL_SECONDS = 15


@dataclass(frozen=True, slots=True)
class Preloaded:
    """What came of it.

    Attributes:
        extra: How many modules the rehearsal added.
        culprits: Modules that started threads. With threads nothing may be forked.
    """

    extra: int
    culprits: frozenset[str]


def preload(
    skipped: frozenset[str], wanted: Iterable[str] = (), trusted: frozenset[int] | None = None
) -> Preloaded:
    """Import the stack and what a rehearsal finds, and make memory ready to be shared.

    Args:
        skipped: Modules that started threads when they were imported before.
        wanted: More modules, from the host's settings.
        trusted: Whose files may be imported; None for anybody's.

    Raises:
        ImportError: If the stack itself cannot be imported.
    """
    gc.disable()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        guarded = nullcontext if trusted is None else partial(only_written_by, trusted)
        with guarded():
            for name in STACK:
                importlib.import_module(name)
        names = [name for name in rehearsed_modules() if name not in sys.modules]
        with guarded():
            culprits = _import_all(dict.fromkeys([*FIRST_KERNEL, *names, *wanted]), skipped)
    if not culprits and threads() > 1:
        raise ImportError(f"importing {', '.join(STACK)} starts threads")
    gc.collect()
    # The collector would write to every object's header, and so unshare every page.
    gc.freeze()
    return Preloaded(len(names), culprits)


def threads() -> int:
    """Return how many threads the kernel counts in this process."""
    return len(os.listdir("/proc/self/task"))  # noqa: PTH208 - nothing but their number


def _import_all(names: Iterable[str], skipped: frozenset[str]) -> frozenset[str]:
    for name in names:
        if name in skipped:
            continue
        # Whatever fails here fails in the server as well, where its owner sees why.
        with suppress(Exception, SystemExit):
            importlib.import_module(name)
        if threads() > 1:
            return frozenset({name})
    return frozenset()


def rehearsed_modules() -> list[str]:
    """Return the modules of a server that has started once, in the order of their import.

    An empty list when the rehearsal fails: servers then import the rest themselves, which costs
    each of them a few dozen milliseconds and some memory, and nothing else.
    """
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reader)
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(REHEARSAL_SECONDS)
            rehearse()
            with os.fdopen(writer, "w") as report:
                json.dump(list(sys.modules), report)
        finally:
            os._exit(0)
    os.close(writer)
    try:
        found = json.loads(_read_all(reader) or b"[]")
    except ValueError:
        found = []
    finally:
        os.close(reader)
        os.waitpid(child, 0)
    return [name for name in found if name.split(".")[0] != "__main__" and _is_installed(name)]


def _is_installed(name: str) -> bool:
    """Whether a module's top package lies in the interpreter's own directories.

    A rehearsal runs as nobody, but what it reports is imported by root.
    """
    top = name.split(".")[0]
    if top in sys.stdlib_module_names or top in sys.builtin_module_names:
        return True
    places = {sysconfig.get_path(kind) for kind in ("purelib", "platlib")}
    return any((Path(p) / top).is_dir() or any(Path(p).glob(f"{top}.*")) for p in places)


def _read_all(descriptor: int) -> bytes:
    parts = []
    while select.select([descriptor], [], [], REHEARSAL_SECONDS + 1)[0]:
        part = os.read(descriptor, 65536)
        if not part:
            break
        parts.append(part)
    return b"".join(parts)
