"""What the keeper is told: the directory of the agent's state, which it shares."""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH117, PTH123

import os
import sys
from collections.abc import Mapping

STATE_DIR_VARIABLE = "CARREL_AGENT__STATE_DIR"
USAGE = "usage: main.py [--config FILE]   (settings: [agent] in FILE, or CARREL_AGENT__...)"


class OptionsError(Exception):
    """The keeper cannot start like this; the message says what to change."""


class Options:
    """How this keeper runs.

    Attributes:
        state_dir: The agent's state directory.
        agent_argv: The command line of the agent.
    """

    def __init__(self, state_dir: str, agent_argv: list[str]) -> None:
        self.state_dir = state_dir
        self.agent_argv = agent_argv


def read_options(arguments: list[str], environ: Mapping[str, str]) -> Options:
    """Read the command line and, of the agent's settings, the one the keeper needs.

    The agent checks all of them; the keeper does not, to stay small.

    Raises:
        OptionsError: If something is missing or cannot be read.
    """
    config: list[str] = []
    if arguments:
        if len(arguments) != 2 or arguments[0] != "--config":
            raise OptionsError(USAGE)
        config = arguments
    state_dir = environ.get(STATE_DIR_VARIABLE) or (_from_file(config[1]) if config else "")
    if not state_dir:
        raise OptionsError(
            f"no state directory: set {STATE_DIR_VARIABLE}, or state_dir in [agent] of a file"
            " named by --config"
        )
    if not os.path.isabs(state_dir):
        raise OptionsError(f"the state directory must be an absolute path, not {state_dir!r}")
    return Options(state_dir, [sys.executable, "-I", "-m", "carrel_agent", *config, "serve"])


def _from_file(path: str) -> str:
    import tomllib  # here, because with variables alone it is not needed

    try:
        with open(path, "rb") as file:
            value = tomllib.load(file).get("agent", {}).get("state_dir", "")
    except OSError as error:
        raise OptionsError(f"{path}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise OptionsError(f"{path}: {error}") from error
    return str(value)
