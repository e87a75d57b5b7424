"""Three real processes, driven as scripts drive them: over the public address, with a token."""

import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from support.accounts import Account, temporary_account
from support.installation import Installation
from support.processes import command_lines

pytestmark = pytest.mark.timeout(180)


@pytest.fixture(scope="module")
def account() -> Iterator[Account | None]:
    """Who uses the installation: a test account as root, else whoever runs the tests."""
    if os.geteuid() != 0:
        yield None
        return
    with temporary_account("carol") as made:
        yield made


@pytest.fixture(scope="module")
def installation(account: Account | None) -> Iterator[Installation]:
    with Installation(user=account.name if account else None) as running:
        yield running


@pytest.fixture(scope="module")
def api(installation: Installation) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"token {installation.new_token()}"}
    with httpx.Client(
        base_url=f"{installation.url}hub/api", headers=headers, timeout=60, trust_env=False
    ) as client:
        yield client


@pytest.fixture(scope="module")
def name(installation: Installation) -> str:
    return installation.user


def test_the_root_of_the_api_names_the_version_for_everybody(installation: Installation) -> None:
    reply = httpx.get(f"{installation.url}hub/api", trust_env=False, timeout=60)
    assert reply.status_code == 200
    assert re.fullmatch(r"\d+\.\d+\.\d+", reply.json()["version"])
    assert reply.headers["x-jupyterhub-version"] == reply.json()["version"]


def test_without_credentials_whoami_is_403_json(installation: Installation) -> None:
    reply = httpx.get(f"{installation.url}hub/api/user", trust_env=False, timeout=60)
    assert (reply.status_code, reply.json()["status"]) == (403, 403)


def test_a_script_starts_uses_and_stops_a_server(
    installation: Installation, api: httpx.Client, name: str
) -> None:
    whoami = api.get("/user").json()
    assert (whoami["name"], whoami["kind"]) == (name, "user")
    assert f"access:servers!user={name}" in whoami["scopes"] or "access:servers" in whoami["scopes"]

    started = api.post(f"/users/{name}/server")
    assert started.status_code in (201, 202)
    assert started.headers["content-type"].startswith("text/plain")

    events = []
    with api.stream("GET", f"/users/{name}/server/progress") as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        for line in stream.iter_lines():
            if line.startswith("data:"):
                events.append(json.loads(line.removeprefix("data:")))
    assert events[-1]["ready"] is True
    assert events[-1]["url"] == f"/user/{name}/"

    model = api.get(f"/users/{name}").json()["servers"][""]
    assert model["ready"]
    assert not model["stopped"]
    assert model["pending"] is None

    token = api.headers["Authorization"]
    me = httpx.get(
        f"{installation.url}user/{name}/api/me",
        headers={"Authorization": token},
        timeout=60,
        trust_env=False,
    )
    assert me.status_code == 200
    assert me.json()["identity"]["username"] == name
    kernel = httpx.post(
        f"{installation.url}user/{name}/api/kernels",
        headers={"Authorization": token},
        json={"name": "python3"},
        timeout=60,
        trust_env=False,
    )
    assert kernel.status_code == 201, kernel.text

    again = api.post(f"/users/{name}/server")
    assert again.status_code == 400, "it is already running"

    stopped = api.delete(f"/users/{name}/server")
    assert stopped.status_code in (202, 204)
    installation.wait_until_stopped()
    assert api.delete(f"/users/{name}/server").status_code == 204
    assert api.get(f"/users/{name}").json()["servers"] == {}
    gone = httpx.get(
        f"{installation.url}user/{name}/api/kernels",
        headers={"Authorization": token},
        follow_redirects=True,
        trust_env=False,
        timeout=60,
    )
    assert gone.status_code in (424, 503)


def test_one_request_is_found_in_the_logs_of_all_three(
    installation: Installation, api: httpx.Client, name: str
) -> None:
    started = api.post(f"/users/{name}/server")
    request_id = started.headers["x-request-id"]
    installation.wait_until_ready()
    lines = [line for line in installation.log_text().splitlines() if request_id in line]
    api.delete(f"/users/{name}/server")
    installation.wait_until_stopped()
    services = {name for name in ("proxy", "hub", "agent") for line in lines if f" {name} " in line}
    assert services >= {"hub", "agent"}, lines


def test_tokens_do_not_reach_the_log_or_any_command_line(
    installation: Installation, api: httpx.Client
) -> None:
    token = str(api.headers["Authorization"]).removeprefix("token ")
    link_secret = installation.new_link().rsplit("/", 1)[1]
    httpx.get(f"{installation.url}hub/api/user?token={token}", trust_env=False, timeout=60)
    httpx.get(f"{installation.url}hub/sign-in/{link_secret}", trust_env=False, timeout=60)
    secrets_known = [token, link_secret, *installation.keys()]
    text = installation.log_text()
    commands = command_lines().decode(errors="replace")
    for secret in secrets_known:
        assert secret not in text
        assert secret not in commands


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to become another user")
def test_a_users_shell_gets_nothing_from_the_services(
    installation: Installation, api: httpx.Client, account: Account
) -> None:
    """Every socket of ours is closed to a user, or asks for a key."""
    probe = """
import pathlib, socket, sys
for path in sys.argv[1:]:
    s = socket.socket(socket.AF_UNIX); s.settimeout(60)
    try:
        s.connect(path)
        s.sendall(b"GET /agent/v1/servers HTTP/1.1\\r\\nHost: x\\r\\nConnection: close\\r\\n\\r\\n")
        print(path, s.recv(20)[9:12].decode())
    except PermissionError:
        print(path, "refused")
"""
    paths = [str(p) for p in installation.run_dir.rglob("*.sock")]
    assert paths
    done = subprocess.run(
        ["setpriv", "--reuid", account.name, "--regid", account.name, "--init-groups",
         "/usr/bin/python3", "-I", "-c", probe, *paths],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    outcomes = dict(line.rsplit(" ", 1) for line in done.stdout.splitlines())
    assert set(outcomes) == set(paths)
    assert set(outcomes.values()) <= {"refused", "401"}
    readable = subprocess.run(
        ["setpriv", "--reuid", account.name, "--regid", account.name, "--init-groups",
         "find", str(installation.state_dir), str(installation.run_dir), "-type", "f", "-readable"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert readable.stdout == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="the accounts differ only as root")
def test_hub_and_proxy_have_no_privileges(installation: Installation) -> None:
    for service in ("hub", "proxy"):
        status = Path(f"/proc/{installation.pid_of(service)}/status").read_text()
        fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        assert fields["Uid"].split() != ["0"] * 4
        assert "0" not in fields["Uid"].split()
        assert int(fields["CapEff"], 16) == 0


def test_a_route_survives_the_restart_of_the_proxy_without_the_hub(
    installation: Installation, api: httpx.Client, name: str
) -> None:
    assert api.post(f"/users/{name}/server").status_code in (201, 202)
    installation.wait_until_ready()
    token = {"Authorization": str(api.headers["Authorization"])}
    url = f"{installation.url}user/{name}/api/kernels"
    assert httpx.get(url, headers=token, trust_env=False, timeout=60).status_code == 200
    installation.wait_until_saved(name)
    with installation.paused("hub"):
        installation.kill("proxy")
        installation.wait_for_port()
        assert httpx.get(url, headers=token, trust_env=False, timeout=60).status_code == 200
    api.delete(f"/users/{name}/server")
    installation.wait_until_stopped()


def test_an_unknown_token_opens_nothing(installation: Installation, name: str) -> None:
    for header in (f"token {secrets.token_hex(32)}", "token", "Bearer x y", "Basic YTpi"):
        reply = httpx.get(
            f"{installation.url}hub/api/users/{name}",
            headers={"Authorization": header},
            trust_env=False,
            timeout=60,
        )
        assert reply.status_code == 403, header


def test_the_command_line_speaks_plainly(installation: Installation) -> None:
    """A second `up` on the same state, and a port that is taken."""
    second = installation.run_cli("up")
    assert second.returncode == 1
    assert "already" in second.stdout + second.stderr
    assert "Traceback" not in second.stdout + second.stderr
    status = installation.run_cli("status")
    assert status.returncode == 0
    assert installation.url in status.stdout
    assert sys.executable
