"""A forked and an executed server are given the same identity, and hold on to it."""

import json
import os
import pwd
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from carrel_agent.process.drop import ExitCode
from carrel_agent.process.launch_spec import LaunchSpec
from support.launching import Launcher, Server, build_spec
from support.processes import child_of, open_files

HOSTILE = """
from jupyter_server.auth.identity import PasswordIdentityProvider
c.ServerApp.sock = "/tmp/mine.sock"
c.ServerApp.port = 9999
c.ServerApp.ip = "0.0.0.0"
c.ServerApp.base_url = "/elsewhere/"
c.ServerApp.certfile = "/tmp/none.pem"
c.ServerApp.token = "mine"
c.ServerApp.allow_remote_access = False
c.ServerApp.open_browser = True
c.ServerApp.identity_provider_class = PasswordIdentityProvider
c.IdentityProvider.token = "mine"
c.ServerApp.tornado_settings = {"headers": {"X-Mine": "yes"}, "page_config_hook": None}
c.LabApp.default_url = "/lab/tree/start.ipynb"
c.ServerApp.quit_button = True
"""


def write(path: Path, text: str, account: pwd.struct_passwd) -> None:
    """Write a file as if the user had."""
    made = [place for place in path.parents if not place.exists()]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    for place in (path, *made):
        os.chown(place, account.pw_uid, account.pw_gid)


@pytest.fixture(scope="module", params=["fork", "execute"])
def start(request: pytest.FixtureRequest, zygote: Launcher) -> Callable[[LaunchSpec], Server]:
    way: Callable[[LaunchSpec], Server] = getattr(zygote, request.param)
    return way


@pytest.fixture(scope="module")
def hostile(
    start: Callable[[LaunchSpec], Server],
    account: pwd.struct_passwd,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Server]:
    """A server whose owner's configuration wants everything to be different."""
    if os.geteuid() != 0:
        pytest.skip("would write into your own ~/.jupyter")
    home = Path(account.pw_dir)
    for name in ("jupyter_server_config.py", "jupyter_lab_config.py"):
        write(home / ".jupyter" / name, HOSTILE, account)
    server = start(build_spec(account))
    server.wait_until_ready()
    yield server
    server.stop()
    for path in (home / ".jupyter").glob("*_config.py"):
        path.unlink()


def test_a_users_configuration_cannot_take_it_from_the_proxy(hostile: Server) -> None:
    reply, text = hostile.visit("GET", "api/me")
    assert reply.status == 200, hostile.log_text()
    assert json.loads(text)["identity"]["username"] == hostile.spec.user
    assert hostile.visit("GET", "api/contents", X_Carrel_Secret="x")[0].status == 403
    assert hostile.request("GET", "api/contents?token=mine")[0].status == 403
    page = hostile.visit("GET", "lab")[1]
    assert '"hubPrefix": "/hub/"' in page
    assert '"token": ""' in page
    assert not Path("/tmp/mine.sock").exists()


def test_a_users_configuration_is_in_force_otherwise(hostile: Server) -> None:
    reply, page = hostile.visit("GET", "lab")
    assert reply.getheader("X-Mine") == "yes"
    assert '"quitButton": true' in page
    landing = hostile.visit("GET", "")[0].getheader("Location", "")
    assert landing.rstrip("?").endswith("/lab/tree/start.ipynb")


@pytest.fixture(scope="module")
def executed(zygote: Launcher, account: pwd.struct_passwd) -> Iterator[Server]:
    server = zygote.execute(build_spec(account, server_name="big"))
    server.wait_until_ready()
    yield server
    server.stop()


def test_an_executed_server_knows_its_visitor(executed: Server) -> None:
    assert json.loads(executed.visit("GET", "api/me")[1])["identity"]["display_name"] == "Zoë Ω"
    assert executed.request("GET", "api/contents")[0].status == 403
    assert executed.visit("PUT", "api/contents/a.txt", "{}")[0].status == 403
    page = executed.visit("GET", "lab")[1]
    assert executed.spec.secret not in page
    assert '"hubServerName": "big"' in page


def test_an_executed_server_passes_nothing_of_ours_on(executed: Server) -> None:
    assert executed.spec.secret not in executed.proc("cmdline")
    reply, text = executed.visit("POST", "api/kernels", '{"name":"python3"}', auth="token")
    assert reply.status == 201, text
    kernel = child_of(executed.pid, "ipykernel")  # beside it the server may ask npm for something
    assert kernel is not None
    environment = Path(f"/proc/{kernel}/environ").read_bytes()
    for stray in (b"CARREL", b"JUPYTER_CONFIG_PATH", executed.spec.secret.encode()):
        assert stray not in environment
    inherited = open_files(kernel).values()
    listening = str(Path(f"/proc/{executed.pid}/fd/3").readlink())
    assert listening not in inherited


@pytest.mark.parametrize(
    ("environment", "argv", "reason"),
    [
        ({"PYTHONPATH": "/nowhere"}, None, "PYTHONPATH is in its environment"),
        ({}, (sys.executable, "-P", "-m", "jupyterlab"), "it has a command of its own"),
    ],
)
def test_the_fork_server_executes_where_a_fork_would_differ(
    zygote: Launcher,
    account: pwd.struct_passwd,
    environment: dict[str, str],
    argv: tuple[str, ...] | None,
    reason: str,
) -> None:
    spec = build_spec(account, argv=argv)
    server = zygote.fork(replace(spec, environment={**spec.environment, **environment}))
    server.wait_until_ready()
    assert f"[carrel] Starting the long way, because {reason}." in server.log_text()
    assert "jupyterlab" in server.proc("cmdline")
    assert json.loads(server.visit("GET", "api/me")[1])["identity"]["username"] == spec.user
    assert server.stop() == 0


def test_a_jupyter_that_cannot_be_set_up_does_not_serve(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    """Jupyter logs a broken configuration file and goes on: with its own idea of who may enter."""
    too_old = "import jupyter_server.auth.identity as i; del i.User"
    run = f"from jupyterlab.labapp import main; {too_old}; main([])"
    server = zygote.execute(build_spec(account, argv=(sys.executable, "-P", "-c", run)))
    assert server.wait() == ExitCode.CONFIGURATION
    assert "jupyter_server 2 or later" in server.log_text()
    assert server.spec.secret not in server.log_text()


def test_the_configuration_is_inert_for_any_other_jupyter(monkeypatch: pytest.MonkeyPatch) -> None:
    from carrel_agent.process.exec_environment import CONFIG_DIRECTORY

    monkeypatch.delenv("CARREL_SERVER", raising=False)
    text = (CONFIG_DIRECTORY / "jupyter_server_config.py").read_text(encoding="utf-8")
    seen: list[Any] = []
    names = {"get_config": lambda: seen, "__file__": str(CONFIG_DIRECTORY / "x.py")}
    exec(compile(text, "config", "exec"), names)  # noqa: S102 - what traitlets does with it
    assert seen == []
