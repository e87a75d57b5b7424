"""A forked JupyterLab is its user's, as if it had been executed, and knows who is visiting."""

import json
import os
import pwd
import re
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from carrel_shared.identity import read_stat
from support.launching import Launcher, Server, build_spec
from support.processes import child_of, open_files

NOTEBOOK = json.dumps({"type": "file", "format": "text", "content": "6*7"})


@pytest.fixture(scope="module")
def server(zygote: Launcher, account: pwd.struct_passwd) -> Iterator[Server]:
    one = zygote.fork(build_spec(account))
    one.wait_until_ready()
    yield one
    one.stop()


def status_line(pid: int, name: str) -> list[str]:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line for line in text.splitlines() if line.startswith(f"{name}:")).split()[1:]


def test_the_process_is_the_users(server: Server) -> None:
    spec = server.spec
    assert status_line(server.pid, "Uid") == [str(spec.uid)] * 4
    assert status_line(server.pid, "Gid") == [str(spec.gid)] * 4
    if os.geteuid() == 0:
        assert {int(group) for group in status_line(server.pid, "Groups")} == set(spec.groups)
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            assert int(status_line(server.pid, name)[0], 16) == 0
    assert status_line(server.pid, "Umask") == ["0022"]
    assert os.getsid(server.pid) == server.pid
    assert Path(f"/proc/{server.pid}/cwd").readlink() == Path(spec.home)
    # /proc/self belongs to root after a change of ids without exec, unless that is undone.
    assert Path(f"/proc/{server.pid}/environ").stat().st_uid == spec.uid


def test_its_parent_is_the_keeper(server: Server) -> None:
    """Not the zygote, which may end: somebody has to learn the exit status."""
    stat = read_stat(server.pid)
    assert stat is not None
    assert stat.parent == os.getpid()


def test_it_holds_only_its_own_descriptors(zygote: Launcher, server: Server) -> None:
    # The socket, and asyncio's: an epoll, and the pair by which it wakes itself.
    expected = ["anon_inode:", "socket:", "socket:", "socket:"]
    deadline = time.monotonic() + 60
    while True:
        held = open_files(server.pid)
        own = {held.pop(name) for name in ("0", "1", "2")}
        if sorted(target.partition("[")[0] for target in held.values()) == expected:
            break
        # For a moment after its start jupyter-lsp reads files and asks npm for its prefix.
        assert time.monotonic() < deadline, held
        time.sleep(0.02)
    assert own == {"/dev/null", str(server.log)}
    assert not set(open_files(zygote.zygote_pid).values()) & set(held.values())


def test_it_is_named_in_the_process_list(server: Server) -> None:
    assert server.proc("cmdline").rstrip("\0") == f"carrel-server {server.spec.user}"
    assert server.proc("comm").startswith("carrel-server")


def test_the_proxy_says_who_is_visiting(server: Server) -> None:
    reply, text = server.visit("GET", "api/me")
    assert reply.status == 200
    identity = json.loads(text)["identity"]
    assert identity["username"] == server.spec.user
    assert identity["display_name"] == identity["name"] == "Zoë Ω"
    assert identity["initials"] == "ZΩ"
    # Jupyter's own login cookie would outlive what the hub decides.
    assert [value for name, value in reply.getheaders() if "username-" in value] == []


def test_readiness_needs_no_identity_and_nothing_else_works_without(server: Server) -> None:
    assert server.request("GET", "api")[0].status == 200
    assert server.request("GET", "api/contents")[0].status == 403
    reply, _ = server.request("GET", "lab")
    assert (reply.status, reply.getheader("Location", "").partition("?")[0]) == (
        302,
        f"{server.spec.base_url}login",
    )


@pytest.mark.parametrize("path", ["api/contents", "lab", "api", "static/favicon.ico"])
def test_a_wrong_secret_is_refused_everywhere(server: Server, path: str) -> None:
    reply, _ = server.visit("GET", path, X_Carrel_Secret="0" * 64)
    assert reply.status == 403
    assert reply.getheader("Location") is None


@pytest.mark.parametrize(
    "visitor", ["", "alice", "[]", '{"name":""}', '{"name":7}', '{"display_name":"x"}']
)
def test_a_proxy_that_does_not_say_who_is_refused(server: Server, visitor: str) -> None:
    assert server.visit("GET", "api/me", X_Carrel_User=visitor)[0].status == 403


def test_a_cookie_visitor_needs_the_xsrf_header(server: Server) -> None:
    path = "api/contents/xsrf.txt"
    assert server.visit("PUT", path, NOTEBOOK)[0].status == 403
    page, _ = server.visit("GET", "lab")
    cookies = [value for name, value in page.getheaders() if name == "Set-Cookie"]
    found = re.search(r"_xsrf=([^;]+)", " ".join(cookies))
    assert found, cookies
    token = found[1]
    cookie = f"_xsrf={token}"
    assert server.visit("PUT", path, NOTEBOOK, Cookie=cookie)[0].status == 403
    reply, text = server.visit("PUT", path, NOTEBOOK, Cookie=cookie, X_XSRFToken=token)
    assert reply.status == 201, text
    foreign = {"Origin": "https://evil.example", "Cookie": cookie, "X_XSRFToken": token}
    assert server.visit("PUT", path, NOTEBOOK, **foreign)[0].status == 404


def test_a_token_visitor_does_not(server: Server) -> None:
    reply, text = server.visit("PUT", "api/contents/token.txt", NOTEBOOK, auth="token")
    assert reply.status == 201, text
    made = Path(server.spec.home) / "token.txt"
    assert (made.stat().st_uid, made.stat().st_mode & 0o777) == (server.spec.uid, 0o644)


@pytest.mark.parametrize("auth", ["Token", "token, token", "cookie", "none", ""])
def test_only_that_word_switches_xsrf_off(server: Server, auth: str) -> None:
    assert server.visit("PUT", "api/contents/no.txt", NOTEBOOK, auth=auth)[0].status == 403


def test_a_websocket_from_another_site_is_refused(server: Server) -> None:
    upgrade = {
        "Connection": "Upgrade",
        "Upgrade": "websocket",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "dGhlIHNhbXBsZSBub25jZQ==",
        "Origin": "https://evil.example",
    }
    assert server.visit("GET", "api/events/subscribe", **upgrade)[0].status == 403
    assert server.visit("GET", "api/events/subscribe?token=x", **upgrade)[0].status == 403


def test_pages_hold_no_secret_and_lead_to_the_hub(server: Server) -> None:
    reply, page = server.visit("GET", "lab")
    assert reply.status == 200
    assert server.spec.secret not in page
    config = json.loads(page.partition('id="jupyter-config-data" type="application/json">')[2]
                        .partition("</script>")[0])  # fmt: skip
    assert config["token"] == ""
    assert config["hubPrefix"] == "/hub/"
    assert config["hubUser"] == server.spec.user
    assert config["quitButton"] is False
    assert "@jupyterlab/apputils-extension:announcements" in config["disabledExtensions"]
    assert "hubServerName" not in config


@pytest.mark.parametrize("name", ["login", "logout"])
def test_signing_in_and_out_is_the_hubs(server: Server, name: str) -> None:
    reply, _ = server.visit("GET", name)
    assert (reply.status, reply.getheader("Location")) == (302, f"/hub/{name}")
    assert server.request("GET", name)[0].getheader("Location") == f"/hub/{name}"


def test_lab_keeps_its_files_in_the_users_home(server: Server) -> None:
    """Both directories are class attributes that were computed for the zygote's account."""
    assert server.visit("GET", "lab/api/workspaces")[0].status == 200
    assert server.visit("GET", "lab/api/settings")[0].status == 200
    body = json.dumps({"data": {}, "metadata": {"id": "default"}})
    reply, text = server.visit("PUT", "lab/api/workspaces/default", body, auth="token")
    assert reply.status == 204, text
    assert list((Path(server.spec.home) / ".jupyter/lab/workspaces").iterdir())


def test_deleting_goes_to_the_users_trash(server: Server) -> None:
    path = "api/contents/unwanted.txt"
    assert server.visit("PUT", path, NOTEBOOK, auth="token")[0].status == 201
    assert server.visit("DELETE", path, auth="token")[0].status == 204
    assert (Path(server.spec.home) / ".local/share/Trash/files/unwanted.txt").exists()


def test_no_file_of_the_server_holds_its_secret(server: Server) -> None:
    written = [path for path in Path(server.spec.home).rglob("*") if path.is_file()]
    assert written
    for path in written:
        assert server.spec.secret.encode() not in path.read_bytes(), path
    assert server.spec.secret not in server.log_text()


def test_a_kernel_inherits_nothing_of_ours_and_ends_with_the_server(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    server = zygote.fork(build_spec(account))
    server.wait_until_ready()
    reply, text = server.visit("POST", "api/kernels", '{"name":"python3"}', auth="token")
    assert reply.status == 201, text
    pid = child_of(server.pid, "ipykernel")
    assert pid is not None
    kernel = Path(f"/proc/{pid}")
    environment = (kernel / "environ").read_bytes()
    assert server.spec.secret.encode() not in environment
    assert b"CARREL" not in environment
    assert f"HOME={server.spec.home}".encode() in environment
    assert (kernel / "status").stat().st_uid == server.spec.uid
    assert server.stop() == 0, server.log_text()
    deadline = time.monotonic() + 60
    while (stat := read_stat(pid)) and stat.state != "Z":
        assert time.monotonic() < deadline, "the kernel outlived its server"
        time.sleep(0.02)


def test_an_interrupt_ends_it_cleanly_and_without_questions(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    server = zygote.fork(build_spec(account, server_name="gpu", process_title="title of its own"))
    server.wait_until_ready()
    assert server.proc("cmdline").rstrip("\0") == "title of its own"
    assert '"hubServerName": "gpu"' in server.visit("GET", "lab")[1]
    assert server.stop(signal.SIGINT) == 0
    assert "Shut down this Jupyter server" not in server.log_text()
    runtime = Path(server.spec.home) / ".local/share/jupyter/runtime"
    assert list(runtime.glob(f"jpserver-{server.pid}*")) == []


def test_language_time_zone_and_umask_are_the_users(
    zygote: Launcher, account: pwd.struct_passwd
) -> None:
    spec = build_spec(account, umask=0o077)
    spec = replace(spec, environment={**spec.environment, "TZ": "Pacific/Kiritimati"})
    server = zygote.fork(spec)
    server.wait_until_ready()
    assert status_line(server.pid, "Umask") == ["0077"]
    stamp = re.search(r"\[I (\S+ \d\d):", server.log_text())
    assert stamp
    now = time.time()  # noqa: TID251 - compared with a clock of another process
    east = {time.strftime("%Y-%m-%d %H", time.gmtime(now + 14 * 3600 - s)) for s in (0, 600)}
    assert stamp[1] in east
    server.stop()
