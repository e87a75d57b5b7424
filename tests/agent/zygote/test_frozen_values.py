"""No value of the zygote's environment outlives a fork without being known.

What a module computes from the environment when it is imported is the zygote's in every forked
server, and a new release of anything in the stack may add such a value. When one does, these fail:
reset it in `carrel_agent/zygote/resets.py`, or let `preflight.py` execute where it matters.
"""

import subprocess
import sys
from pathlib import Path

import pytest

from carrel_agent.zygote import preflight

SCAN = Path(__file__).with_name("frozen_scan.py")
LIST_MODULES = """
import sys
from carrel_agent.zygote import preload
preload.preload(frozenset())
print(*sys.modules)
"""
SENTINELS = {
    "HOME": "/sentinel-home",
    "USER": "sentinel-user",
    "LOGNAME": "sentinel-user",
    "SHELL": "/sentinel-shell",
    "PWD": "/sentinel-pwd",
    "TZ": "sentinel-tz",
    "TERM": "sentinel-term",
    "EDITOR": "sentinel-editor",
    "BROWSER": "sentinel-browser",
    "HTTP_PROXY": "http://sentinel-proxy.example:1",
    "XDG_DATA_HOME": "/sentinel-data",
    "XDG_CONFIG_HOME": "/sentinel-config",
    "XDG_CACHE_HOME": "/sentinel-cache",
    "XDG_RUNTIME_DIR": "/sentinel-run",
    "JUPYTER_PATH": "/sentinel-jupyter",
    "JUPYTER_CONFIG_DIR": "/sentinel-jupyter-config",
    "JUPYTER_RUNTIME_DIR": "/sentinel-jupyter-run",
    "JUPYTER_DATA_DIR": "/sentinel-jupyter-data",
    "JUPYTERLAB_SETTINGS_DIR": "/sentinel-settings",
    "JUPYTERLAB_WORKSPACES_DIR": "/sentinel-workspaces",
    "IPYTHONDIR": "/sentinel-ipython",
    "SENTINEL": "sentinel-any",
}

HARMLESS_REMAINS = {
    # Read only where `http_proxy_url` is set, which is computed anew.
    "jupyterlab.extensions.pypi.http_proxy",
    "jupyterlab.extensions.pypi.proxy_host",
}

READ_AGAIN = {
    # Computed anew by the resets.
    *("HOME", "USER", "LOGNAME", "TERM", "TZ", "XDG_DATA_HOME", "b'XDG_DATA_HOME'"),
    *("JUPYTERLAB_SETTINGS_DIR", "JUPYTERLAB_WORKSPACES_DIR", "JUPYTER_CONFIG_DIR"),
    *("LANG", "LANGUAGE", "LC_ALL", "LC_MESSAGES"),
    *("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"),
    # Asked for again whenever they are needed: nothing of them is kept, as the other test shows.
    *("BROWSER", "EDITOR", "IPYTHONDIR", "PATH", "PWD", "SHELL", "SENTINEL", "JUPYTERLAB_DIR"),
    *("JUPYTER_DATA_DIR", "JUPYTER_NO_CONFIG", "JUPYTER_PATH", "JUPYTER_RUNTIME_DIR"),
    *("XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"),
    *("SSLKEYLOGFILE", "SSL_CERT_DIR", "SSL_CERT_FILE"),
    # Of other systems, of documentation builds, of Python's own build.
    *("ANDROID_DATA", "JUPYTER_USE_PROGRAMDATA", "IN_SPHINX_RUN", "JUPYTER_LSP_BUILDING_DOCS"),
    *("IPYTHON_TESTING_TIMEOUT_SCALE", "_PYTHON_PROJECT_BASE", "_PYTHON_SYSCONFIGDATA_NAME"),
}


def run(*arguments: str, **environment: str) -> list[str]:
    """Return the lines that a Python process prints."""
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={"PATH": "/usr/bin:/bin", "LANG": "C.UTF-8", **environment},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.fixture(scope="module")
def found() -> dict[str, set[str]]:
    """What the scan says, by kind."""
    modules = run("-c", LIST_MODULES)[0].split()
    assert len(modules) > 1000
    kinds: dict[str, set[str]] = {"read": set(), "frozen": set(), "survives": set()}
    for line in run(str(SCAN), *modules, **SENTINELS):
        kind, _, what = line.partition(" ")
        kinds[kind].add(what)
    return kinds


def test_the_scan_sees_what_is_known_to_freeze(found: dict[str, set[str]]) -> None:
    assert {
        "jupyterlab.labapp.LabApp.workspaces_dir",
        "jupyter_client.session.Session.username",
        "site.USER_BASE",
        "wsgiref.handlers.BaseHandler.os_environ",
    } <= found["frozen"]


def test_nothing_of_the_zygotes_environment_survives_the_resets(
    found: dict[str, set[str]],
) -> None:
    assert found["survives"] - HARMLESS_REMAINS == set()


def test_each_variable_that_is_read_at_import_is_dealt_with(found: dict[str, set[str]]) -> None:
    """A number or a switch leaves no text behind for the scan to find, but it was asked for."""
    executes = {n for n in found["read"] if preflight.environment_reason({n: "1"}) is not None}
    assert found["read"] - executes - READ_AGAIN == set()
