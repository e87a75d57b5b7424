"""From a fork of the zygote to somebody's JupyterLab."""

import atexit
import contextlib
import gc
import os
import sys
import sysconfig
import threading
import traceback
from functools import cache
from pathlib import Path
from typing import NoReturn

from carrel_agent.process import drop
from carrel_agent.process.exec_config import identity, kernels, serving
from carrel_agent.process.exec_environment import server_settings
from carrel_agent.process.launch_spec import LaunchSpec, LaunchSpecError, read_launch_spec
from carrel_agent.zygote import preflight, resets, title


def run_child(spec_fd: int, listen_fd: int, log_fd: int) -> NoReturn:
    """In a forked child: become the user and serve, or execute. Never returns, never raises."""
    code: int = drop.ExitCode.UNEXPECTED
    try:
        os.dup2(log_fd, 2)
        spec = read_launch_spec(spec_fd)
        drop.become_user(spec, listen_fd=listen_fd, log_fd=log_fd, for_exec=False)
        code = _start(spec)
    except drop.StartError as error:
        code = error.code
        drop.say(f"This server was not started: {error}")
    except LaunchSpecError as error:
        code = drop.ExitCode.SPEC
        drop.say(f"This server was not started: {error}")
    except BaseException as error:
        drop.say(f"This server was not started: unexpected {type(error).__name__}: {error}")
    finally:
        os._exit(code)


def _start(spec: LaunchSpec) -> int:
    """As the user: serve and return the exit status, or execute.

    Raises:
        StartError: If it should be executed and cannot.
    """
    user_site = None
    if resets.user_site_applies(spec.environment):
        user_site = resets.user_site_directory(spec.environment, spec.home)
    reason = preflight.reason_to_execute(spec, preloaded=preloaded_names(), user_site=user_site)
    if reason is not None:
        drop.say(f"Starting the long way, because {reason}.")
        drop.reset_signals(for_exec=True)
        os.set_inheritable(drop.LISTEN_FD, True)
        drop.execute_server(spec)
    # What is imported is there; pages and what is imported later come from files.
    drop.require_readable(spec, sys.executable, str(sys.modules["jupyterlab"].__file__))
    gc.enable()
    resets.forget_the_zygote(spec.environment, spec.home)
    title.set_title(spec.process_title or f"carrel-server {spec.user}")
    return _serve(spec)


@cache
def preloaded_names() -> frozenset[str]:
    """Return the top-level names of loaded modules that are not the standard library's."""
    tops = {name.partition(".")[0] for name in sys.modules}
    return frozenset(tops - sys.stdlib_module_names - {"__main__", "carrel_agent", "carrel_shared"})


def _serve(spec: LaunchSpec) -> int:
    """Run JupyterLab until it stops, and return its exit status, as its own script would."""
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.labapp import LabApp

    settings = serving.ServerSettings(**server_settings(spec, drop.LISTEN_FD))  # type: ignore[arg-type]
    provider = identity.build_provider(spec.secret, spec.hub_prefix)
    serving.prepare(ServerApp, settings, provider)
    serving.prepare_lab(LabApp, settings)
    kernels.keep_kernels_private(serving.set_default)
    sys.argv = [str(Path(sysconfig.get_path("scripts")) / "jupyter-lab")]
    status = 0
    try:
        LabApp.launch_instance(argv=[])
    except SystemExit as ending:
        status = _exit_status(ending)
    except BaseException:
        # What an executed server would leave in its log.
        traceback.print_exc()
        status = 1
    _finish()
    return status


def _exit_status(ending: SystemExit) -> int:
    """Return the status that `sys.exit()` asked for, as the interpreter would."""
    if ending.code is None:
        return 0
    if isinstance(ending.code, int):
        return ending.code & 0xFF
    sys.stderr.write(f"{ending.code}\n")
    return 1


def _finish() -> None:
    """Do what the interpreter does at its end, short of taking itself apart."""
    with contextlib.suppress(Exception):
        threading._shutdown()  # type: ignore[attr-defined]
    with contextlib.suppress(Exception):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
