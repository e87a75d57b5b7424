"""What a server is given: its environment and the launch spec."""

import os
import re
import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from carrel_agent.cgroups.group import Group
from carrel_agent.process.launch_spec import LaunchSpec, LaunchSpecError
from carrel_agent.supervise.accounts import Account
from carrel_agent.supervise.confinement import rlimits_of
from carrel_agent.supervise.process_tree import SERVER_ID_VARIABLE
from carrel_shared.wire.servers import ServerSpec

SYSTEM_PATH = "/usr/local/bin:/usr/bin:/bin"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SECRET = re.compile(r"[-\w.]*(?:token|passw|secret|key)[-\w.]*(?:=|$)", re.IGNORECASE)
_UNSAFE = set("\0\n\r")


class LaunchError(Exception):
    """A server cannot be started; the message is for its owner."""


def environment_of(
    spec: ServerSpec, account: Account, *, python: str, lang: str, port: int = 0
) -> dict[str, str]:
    """Return the whole environment of a server. Nothing of the agent's own gets in.

    Args:
        port: Where it is to listen, for one that finds that in `JUPYTERHUB_SERVICE_URL`.

    Raises:
        LaunchError: If a variable the hub asks for has a name or value no environment can hold.
    """
    for name, value in spec.environment.items():
        if not _NAME.fullmatch(name):
            raise LaunchError(f"environment: {name!r} is no name for a variable")
        if _UNSAFE & set(value):
            raise LaunchError(f"environment: {name} holds NUL or a line break")
    address = {"JUPYTERHUB_SERVICE_URL": f"http://127.0.0.1:{port}{spec.base_url}"} if port else {}
    return {
        "PATH": f"{Path(python).parent}:{SYSTEM_PATH}",
        "LANG": lang,
        "SHELL": account.shell,
        **address,
        **spec.environment,
        "HOME": account.home,
        "USER": account.name,
        "LOGNAME": account.name,
        SERVER_ID_VARIABLE: spec.server_id,
    }


def launch_spec_of(
    spec: ServerSpec,
    account: Account,
    *,
    python: str,
    lang: str,
    port: int = 0,
    group: Group | None = None,
) -> LaunchSpec:
    """Return what the new process reads.

    Args:
        python: Whose JupyterLab is run where the spec names no command.
        lang: The locale, unless the spec sets one.
        port: Where it is to listen instead of the socket; 0 for none.
        group: The control group it joins, if it has one.

    Raises:
        LaunchError: If the spec cannot be carried out.
    """
    environment = environment_of(spec, account, python=python, lang=lang, port=port)
    argv: tuple[str, ...] | None = None
    if spec.command:
        argv = (_resolve(spec.command[0], environment["PATH"]), *spec.command[1:])
    elif python != sys.executable:
        argv = (python, "-P", "-m", "jupyterlab")
    try:
        return LaunchSpec(
            uid=account.uid,
            gid=account.gid,
            groups=account.groups,
            user=spec.user,
            home=account.home,
            shell=account.shell,
            environment=environment,
            base_url=spec.base_url,
            hub_prefix=spec.hub_prefix,
            secret=spec.secret,
            server_id=spec.server_id,
            # Below the home, wherever that is; an absolute one counts as it is.
            cwd=str(Path(account.home) / spec.cwd) if spec.cwd else "",
            argv=argv,
            own_port=spec.listen != "socket",
            default_url=spec.default_url,
            server_name=spec.server_name,
            process_title=f"carrel-server {account.name}",
            rlimits=rlimits_of(spec.limits),
            cgroups=tuple(map(str, group.directories)) if group else (),
        )
    except LaunchSpecError as error:
        raise LaunchError(str(error)) from error


def shown_command(argv: Sequence[str]) -> str:
    """Return a command for people to read. What is named like a secret is left out of it."""
    words, hide = [], False
    for word in argv:
        if hide or (match := _SECRET.match(word)) is None:
            words.append("..." if hide else shlex.quote(word))
            hide = False
        else:
            words.append(f"{match[0]}..." if match[0].endswith("=") else word)
            hide = not match[0].endswith("=") and word.startswith("-")
    return " ".join(words)


def _resolve(program: str, path: str) -> str:
    if os.path.isabs(program):  # noqa: PTH117 - it is a word of a command line
        return program
    found = shutil.which(program, path=path)
    if found is None:
        raise LaunchError(f"the command {program!r} is not found on {path}")
    return found
