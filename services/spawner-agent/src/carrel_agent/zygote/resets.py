"""Making a forked process forget that it was the zygote.

Everything here was read from the environment, or drawn at random, when the zygote started or
imported it. `tests/agent/zygote/test_frozen_values.py` fails when a release adds to the list.
"""

import atexit
import contextlib
import gettext
import importlib
import locale
import logging
import multiprocessing
import os
import random
import site
import sys
import sysconfig
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carrel_agent.process.exec_config.serving import set_default


def user_site_applies(environment: dict[str, str]) -> bool:
    """Whether a Python started normally would look into the user's site-packages.

    The zygote was started without (-I). A virtual environment leaves it out unless it was made to
    show the system's packages as well (site.py, PEP 370).
    """
    if environment.get("PYTHONNOUSERSITE"):
        return False
    return sys.prefix == sys.base_prefix or sys.base_prefix in site.PREFIXES


def user_site_directory(environment: dict[str, str], home: str) -> Path:
    """Return where that is (PEP 370, posix_user scheme)."""
    base = Path(environment.get("HOME", home)) / ".local"
    return base / f"lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"


def forget_the_zygote(environment: dict[str, str], home: str) -> None:
    """Bring this process to where a newly executed one would be.

    Call it as the user, in the directory where the server starts.
    """
    os.environ.clear()
    os.environ.update(environment)
    time.tzset()
    # As Python does at start-up. It says nothing of a locale that is not installed, either.
    with contextlib.suppress(locale.Error):
        locale.setlocale(locale.LC_CTYPE, "")
    tempfile.tempdir = None
    random.seed()
    multiprocessing.current_process().authkey = os.urandom(32)
    # The zygote's own exit functions are not the server's.
    atexit._clear()
    logging.getLogger().handlers.clear()
    _reset_streams()
    reset_site(environment, home)
    for module, reset in MODULE_RESETS.items():
        if module in sys.modules:
            reset(sys.modules[module])


def _reset_streams() -> None:
    """Let output appear as it is written; where it goes is a pipe, which Python would buffer.

    New streams: the zygote's own may have been made for a file, and would seek in the pipe.
    """
    sys.stdout, sys.stderr = (
        open(number, "w", buffering=1, errors="backslashreplace", closefd=False)  # noqa: SIM115
        for number in (1, 2)
    )


def reset_site(environment: dict[str, str], home: str) -> None:
    """Give the user's site-packages the place they have after a normal start: before the host's."""
    site.USER_BASE = site.USER_SITE = None
    sysconfig._CONFIG_VARS = None  # type: ignore[attr-defined]
    site.ENABLE_USER_SITE = user_site_applies(environment)
    place = str(user_site_directory(environment, home))
    if not site.ENABLE_USER_SITE or not Path(place).is_dir():
        return
    before = set(sys.path)
    site.addsitedir(place)
    added = [entry for entry in sys.path if entry not in before]
    rest = [entry for entry in sys.path if entry in before]
    first = next((n for n, entry in enumerate(rest) if "-packages" in entry), len(rest))
    sys.path[:] = [*rest[:first], *added, *rest[first:]]
    importlib.invalidate_caches()


def _reset_labapp(module: Any) -> None:
    for name, compute in (
        ("user_settings_dir", "get_user_settings_dir"),
        ("workspaces_dir", "get_workspaces_dir"),
    ):
        if hasattr(module, compute):
            set_default(module.LabApp, name, getattr(module, compute)())


def _reset_session(module: Any) -> None:
    set_default(module.Session, "username", os.environ.get("USER", "username"))


def _reset_handlers(module: Any) -> None:
    # A copy of the whole environment as it was at import.
    module.BaseHandler.os_environ = dict(os.environ)


def _reset_translations(module: Any) -> None:
    """Add the user's language. Its `gettext` was handed out by name, so it cannot be replaced."""
    place = str(Path(module.base_dir) / "notebook" / "i18n")
    module.trans.add_fallback(gettext.translation("notebook", localedir=place, fallback=True))


def _reset_extensions(module: Any) -> None:
    """Look for extension managers anew; the user's site-packages may bring one."""
    if site.ENABLE_USER_SITE:
        from importlib.metadata import entry_points

        module.MANAGERS.update(
            {e.name: e for e in entry_points(group="jupyterlab.extension_manager_v1")}
        )


def _reset_terminal(module: Any) -> None:
    module.TERM = os.environ.get("TERM", "")


def _reset_pypi(module: Any) -> None:
    proxies = ("all_proxy", "http_proxy", "https_proxy")
    wanted = any(os.environ.get(name) or os.environ.get(name.upper()) for name in proxies)
    if wanted or module.http_proxy_url:
        fresh = importlib.reload(module)
        sys.modules["jupyterlab.extensions"].PyPIExtensionManager = (  # type: ignore[attr-defined]
            fresh.PyPIExtensionManager
        )


MODULE_RESETS: dict[str, Callable[[Any], object]] = {
    "jupyterlab.labapp": _reset_labapp,
    "jupyter_client.session": _reset_session,
    "wsgiref.handlers": _reset_handlers,
    "jupyter_server.transutils": _reset_translations,
    "jupyterlab.extensions": _reset_extensions,
    "jupyterlab.extensions.pypi": _reset_pypi,
    "IPython.utils.terminal": _reset_terminal,
    "send2trash.plat_other": importlib.reload,
    # numpy seeds its global generator at import; Python's own does so after each fork.
    "numpy.random": lambda module: module.seed(),
}
