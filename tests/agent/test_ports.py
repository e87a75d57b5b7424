"""Servers that listen on a port, and one account for everybody's, under a real keeper."""

import os
import pwd
import socket
import stat
from urllib.parse import urlsplit

import pytest

from carrel_agent.settings import AgentSettings
from carrel_agent.supervise import listeners
from carrel_agent.supervise.listeners import listener_uids
from carrel_agent.supervise.ports import FIRST_PORT, LAST_PORT, choose_port
from support.agent_host import AgentHost


def test_a_command_listens_where_it_is_told_and_gets_nothing_of_ours(host: AgentHost) -> None:
    reports = [host.started("port", listen="port") for _ in range(2)]
    targets = {report["target"] for report in reports}
    assert len(targets) == 2
    for report in reports:
        port = urlsplit(report["target"]).port
        assert report["target"] == f"http://127.0.0.1:{port}"
        assert FIRST_PORT <= (port or 0) <= LAST_PORT
        assert report["peer_uid"] is None
        assert listener_uids(port or 0) == {host.account.pw_uid}
        # Only the mark by which a server's processes are found is among its variables.
        [said] = host.wait_line(report["server_id"], "serving ")
        assert said.split()[1] == "/user/somebody/"
        assert said.split()[4:] == ["CARREL_SERVER_ID"]
    host.kill_agent()
    again = host.wait_state(reports[0]["server_id"], "ready")
    assert again["target"] == reports[0]["target"], "adopted with its port"
    assert host.stop_server(reports[0]["server_id"]).status_code == 202
    assert host.wait_state(reports[0]["server_id"], "stopped")["exit"]["code"] == 0


def test_who_dies_before_it_listens_has_failed_at_once(host: AgentHost) -> None:
    spec = host.spec("exit", "3", listen="port", start_timeout_seconds=60)
    host.put(spec)
    exit_ = host.wait_state(spec["server_id"], "failed")["exit"]
    assert (exit_["cause"], exit_["code"]) == ("exited", 3)


def test_jupyterlab_itself_takes_no_port(host: AgentHost) -> None:
    assert host.put(host.spec(listen="port")).status_code == 400


def test_a_port_that_is_taken_is_not_given() -> None:
    port = choose_port(())
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))
        listener.listen()
        assert listener_uids(port) == {os.getuid()}
        assert choose_port({port}) != port
    assert listener_uids(port) == set()


def test_the_kernel_and_its_tables_agree_on_who_listens() -> None:
    families = [socket.AF_INET, *([socket.AF_INET6] if socket.has_dualstack_ipv6() else [])]
    for family in families:
        with socket.socket(family) as listener, socket.socket(family) as idle:
            for one in (listener, idle):
                one.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            listener.listen()
            port = listener.getsockname()[1]
            assert listeners._asked(family, port) == [os.getuid()]
            assert listeners._read(listeners._TABLES[family], port) == {os.getuid()}
            assert listeners._asked(family, idle.getsockname()[1]) == []


def test_where_the_kernel_does_not_answer_its_tables_are_read(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(listeners, "_SOCK_DIAG", 250)  # no such protocol
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert listener_uids(listener.getsockname()[1]) == {os.getuid()}


def test_one_account_runs_everybodys_servers_each_at_home(account: pwd.struct_passwd) -> None:
    with AgentHost(account) as host:
        homes = host.base / "homes"
        host.environment |= {
            "CARREL_AGENT__ACCOUNTS": "shared-insecure",
            "CARREL_AGENT__SHARED_ACCOUNT": account.pw_name,
            "CARREL_AGENT__SHARED_HOMES": f"{homes}/{{username}}",
        }
        hub = host.open_hub()
        host.start()
        for user in ("alice", "b o/b@x", ".."):
            report = host.started("port", listen="port", user=user, account="")
            [said] = host.wait_line(report["server_id"], "serving ")
            _, _, cwd, uid, *_ = said.replace("b o", "b_o").split()
            assert int(uid) == account.pw_uid
            assert cwd.startswith(f"{homes}/")
        made = {entry.name: entry.stat() for entry in homes.iterdir()}
        assert made.keys() == {"alice", "b o%2Fb@x", "%2E."}
        for found in made.values():
            assert (found.st_uid, stat.S_IMODE(found.st_mode)) == (account.pw_uid, 0o700)
        assert {report["accounts"] for report in hub.reports} == {"shared-insecure"}
        assert "accounts_shared" in host.log.read_text()


def test_what_is_in_the_way_of_a_home_is_not_followed(account: pwd.struct_passwd) -> None:
    with AgentHost(account) as host:
        homes = host.base / "homes"
        homes.mkdir(mode=0o711)
        (homes / "mallory").symlink_to(host.base)
        host.environment |= {
            "CARREL_AGENT__ACCOUNTS": "shared-insecure",
            "CARREL_AGENT__SHARED_ACCOUNT": account.pw_name,
            "CARREL_AGENT__SHARED_HOMES": f"{homes}/{{username}}",
        }
        host.start()
        refused = host.put(host.spec("port", listen="port", user="mallory"))
        assert refused.status_code == 400
        assert "mallory" in refused.json()["message"]


def test_whoever_has_no_account_runs_on_no_other_host(host: AgentHost) -> None:
    refused = host.put(host.spec("good", account="", user="guest"))
    assert refused.status_code == 400
    assert "guest" in refused.json()["message"]


@pytest.mark.parametrize("homes", ["", "relative/{username}", "/homes/{username}/x", "/homes"])
def test_homes_must_be_told_apart_by_name(homes: str) -> None:
    with pytest.raises(ValueError, match="shared_homes"):
        AgentSettings(
            listen="unix:/x/a", key="k" * 32, hub_url="unix:/x/h", hub_key="h" * 32,
            state_dir="/x", run_dir="/r", accounts="shared-insecure", shared_homes=homes,
        )  # fmt: skip
