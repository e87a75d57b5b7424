"""What an executed server is given: its arguments, its environment, and our configuration.

A server that is executed is any command that ends up in jupyter_server, in any environment of the
host, with nothing of ours installed. It gets the same identity provider and the same socket as a
forked one through a configuration directory on JUPYTER_CONFIG_PATH.
"""

import json
import sys
from pathlib import Path

from carrel_agent.process.launch_spec import LaunchSpec

CONFIG_DIRECTORY = Path(__file__).resolve().parent / "exec_config"
SETTINGS_VARIABLE = "CARREL_SERVER"
"""Holds the server's settings with its secret. The configuration removes it before anything runs
that could inherit it."""


def server_settings(spec: LaunchSpec, listen_fd: int) -> dict[str, str | int | None]:
    """Return what `exec_config/carrel_server.py` is given, forked or executed."""
    return {
        "base_url": spec.base_url,
        "hub_prefix": spec.hub_prefix,
        "default_url": spec.default_url,
        "user": spec.user,
        "server_name": spec.server_name,
        "secret": spec.secret,
        "listen_fd": listen_fd,
    }


def exec_environment(
    spec: LaunchSpec, listen_fd: int, *, python: str = ""
) -> tuple[list[str], dict[str, str]]:
    """Return argv and environment for execve(). No secret is in argv.

    Args:
        spec: What to start.
        listen_fd: The bound socket, which the new program inherits.
        python: The interpreter whose JupyterLab is meant where the spec names no command; empty
            for this one.
    """
    # -P: a file `jupyterlab.py` in the user's home must not become the program.
    argv = list(spec.argv or (python or sys.executable, "-P", "-m", "jupyterlab"))
    environment = dict(spec.environment)
    if spec.own_port:
        return argv, environment
    # With it set Jupyter would look at no configuration, ours included.
    environment.pop("JUPYTER_NO_CONFIG", None)
    places = [str(CONFIG_DIRECTORY), environment.get("JUPYTER_CONFIG_PATH", "")]
    environment["JUPYTER_CONFIG_PATH"] = ":".join(filter(None, places))
    environment[SETTINGS_VARIABLE] = json.dumps(server_settings(spec, listen_fd))
    return argv, environment
