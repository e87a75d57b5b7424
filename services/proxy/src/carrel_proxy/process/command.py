"""`carrel-proxy reload`: finds the proxy that runs, has it reload, and says how that went."""

import argparse
import os
import signal
import sys
import time
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from carrel_proxy.process.standing import who_runs

STATUS_FILE = "process.json"
_STATE_VARIABLE = "CARREL_PROXY__STATE_DIR"


class CommandError(Exception):
    """There is no proxy to be found, or it did not reload; the message says why."""


def reload(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Have a proxy reload; return the exit status."""
    parser = argparse.ArgumentParser(
        prog="carrel-proxy reload",
        description="Have a running proxy take up new settings, certificates and its own new"
        " version, without losing a connection. Settings that cannot be followed change nothing.",
    )
    parser.add_argument("--config", type=Path, metavar="FILE", help="the file carrel.toml")
    parser.add_argument("--state-dir", type=Path, metavar="DIR", help="the proxy's state_dir")
    parser.add_argument(
        "--pid-file",
        type=Path,
        metavar="FILE",
        help="for one that runs in configurable-http-proxy's place: its --pid-file",
    )
    parser.add_argument(
        "--timeout", type=float, default=60, metavar="SECONDS", help="wait so long (60)"
    )
    options = parser.parse_args(arguments)
    try:
        if options.pid_file is not None:
            print(_by_pid_file(options.pid_file))  # noqa: T201 - it talks to a person
        else:
            directory = options.state_dir or _state_dir(options.config, environ)
            print(_by_status(directory / STATUS_FILE, options.timeout))  # noqa: T201
    except CommandError as error:
        print(f"carrel-proxy: {error}", file=sys.stderr)  # noqa: T201
        return 1
    return 0


def _state_dir(config: Path | None, environ: Mapping[str, str]) -> Path:
    if _STATE_VARIABLE in environ:
        return Path(environ[_STATE_VARIABLE])
    if config is None:
        raise CommandError("say which proxy: --config, --state-dir or --pid-file")
    try:
        found = tomllib.loads(config.read_text(encoding="utf-8"))["proxy"]["state_dir"]
    except OSError as error:
        raise CommandError(f"{config}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise CommandError(f"{config}: {error}") from error
    except (KeyError, TypeError):
        raise CommandError(f"{config}: [proxy] has no state_dir: give --state-dir") from None
    return Path(found)


def _by_pid_file(path: Path) -> str:
    try:
        pid = int(path.read_text())
        os.kill(pid, signal.SIGUSR2)
    except (OSError, ValueError) as error:
        raise CommandError(f"{path}: no proxy runs there ({error})") from error
    return f"process {pid} was told to reload; its log says how that went"


def _by_status(path: Path, seconds: float) -> str:
    before = _status(path)
    pid = before["pid"]
    os.kill(pid, signal.SIGUSR2)
    latest = time.monotonic() + seconds
    while time.monotonic() < latest:
        now = _status(path)
        if now["reloads"] > before["reloads"]:
            if now["error"] is not None:
                raise CommandError(f"nothing was changed: {now['error']}")
            return f"reloaded (process {pid}, generation {now['generation']})"
        time.sleep(0.05)
    raise CommandError(f"process {pid} did not say within {seconds:.0f} s how it went; see its log")


def _status(path: Path) -> dict[str, Any]:
    if (status := who_runs(str(path))) is None:
        raise CommandError(f"no proxy runs with its state in {path.parent}")
    return status
