"""What `carrel` says to the person at the console, where more than one place says it."""

import os
import sys
from collections.abc import Mapping
from pathlib import Path

from carrel_hub.up.console import Notebook
from carrel_hub.up.lock import Holder


def program(environ: Mapping[str, str]) -> str:
    """Return how to call `carrel` again from the person's shell."""
    beside = Path(sys.executable).parent / "carrel"
    for directory in environ.get("PATH", "").split(":"):
        found = Path(directory or ".") / "carrel"
        if os.access(found, os.X_OK):
            if not beside.exists() or found.samefile(beside):
                return "carrel"
            break
    return str(beside) if beside.exists() else f"{sys.executable} -m carrel_hub.up"


def link_command(state_dir: Path | None, environ: Mapping[str, str]) -> str:
    """Return how to get another link; `state_dir` is what `--state-dir` says."""
    place = f" --state-dir {state_dir.resolve()}" if state_dir else ""
    return f"{program(environ)} link{place}"


def already_running(holder: Holder | None, state: Path, another_link: str) -> str:
    """Say that another `carrel up` has the state directory, and what can be done."""
    if holder is None:
        return f"Carrel is being started already with {state}."
    return (
        f"Carrel is running already: process {holder.pid}, {holder.url}\n"
        f"  A sign-in link:      {another_link}\n"
        f"  To stop it:          Ctrl-C where it runs, or kill {holder.pid}\n"
        "  Another one beside:  --state-dir DIR --bind 127.0.0.1:PORT"
    )


def sign_in_text(name: str, link: str) -> str:
    """Return what is said with a sign-in link."""
    return f"Sign in as {name} (administrator), once, within ten minutes:\n    {link}"


def name_all(notebooks: list[Notebook]) -> str:
    """Name notebook servers in a sentence."""
    noun = "the notebook server of" if len(notebooks) == 1 else "the notebook servers of"
    return f"{noun} {', '.join(str(each) for each in notebooks)}"
