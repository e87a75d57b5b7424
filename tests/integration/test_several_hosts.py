"""Several hosts for real: joined, filled evenly, reached by TLS, cut off and back, copied, left."""

import json
import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.accounts import Account
from support.fleet import FLEET_PORT, Fleet, Host, fleet, wait_for

pytestmark = [
    pytest.mark.root,
    pytest.mark.timeout(600),  # a dozen programs begin, however busy the machine is
    pytest.mark.skipif(
        os.geteuid() != 0 or any(shutil.which(one) is None for one in ("ip", "nsenter", "unshare")),
        reason="needs root and the packages iproute2 and util-linux",
    ),
]


@pytest.fixture(scope="module")
def hosts() -> Iterator[Fleet]:
    with fleet() as made:
        for host in made.hosts:
            joined = host.join("--label", f"rack={host.number}")
            assert joined.returncode == 0, joined.stderr
            assert f"this host is {host.name}" in joined.stderr
            host.start()
        for host in made.hosts:
            _until_ready(made, host)
        yield made


def _until_ready(made: Fleet, host: Host) -> None:
    wait_for(f"{host.name} to be ready", lambda: _state(made, host) == "ready")


def _until_served(made: Fleet, person: Account) -> None:
    wait_for(f"{person.name}'s server", lambda: made.server(person).get("state") == "ready")


def _state(made: Fleet, host: Host) -> str:
    return str(made.shown(host.name).get("state"))


def test_servers_are_spread_and_reached_by_tls(hosts: Fleet) -> None:
    for person in hosts.people:
        hosts.console("link", {"user": person.name, "account": person.name})
        status, reply = hosts.api("POST", f"/users/{person.name}/server")
        assert status in (201, 202), reply
    places = set()
    for person in hosts.people:
        _until_served(hosts, person)
        places.add(hosts.server(person)["host"])
        status, who = hosts.visit(person)
        assert (status, who["uid"]) == (200, pwd.getpwnam(person.name).pw_uid)
    assert places == {"rack-1", "rack-2", "rack-3"}
    assert hosts.shown("rack-2")["labels"] == {"rack": "2"}


def _notes(hosts: Fleet) -> tuple[int, object]:
    return hosts.public("GET", "/services/notes/api")


def test_a_service_of_a_joined_host_is_reached_through_its_relay(hosts: Fleet) -> None:
    uid = pwd.getpwnam(hosts.people[-1].name).pw_uid
    wait_for("the service", lambda: _notes(hosts) == (404, {"uid": uid}))
    rack = hosts.hosts[1]
    rack.cut()
    try:
        wait_for("rack-2 to be missed", lambda: _state(hosts, rack) == "unreachable")
        assert _notes(hosts)[0] == 503
        assert hosts.api("GET", "/services/notes")[1]["pid"], "unknown is not dead"
    finally:
        rack.mend()
    wait_for("rack-2 to be back", lambda: _state(hosts, rack) == "ready")
    wait_for("the service to be back", lambda: _notes(hosts) == (404, {"uid": uid}))


def test_a_host_that_is_cut_off_is_unreachable_and_its_server_unknown_not_dead(
    hosts: Fleet,
) -> None:
    [person] = [one for one in hosts.people if hosts.server(one)["host"] == "rack-2"]
    others = [one for one in hosts.people if one != person]
    before = hosts.visit(person)[1]["pid"]
    rack = hosts.hosts[1]
    rack.cut()
    try:
        assert hosts.visit(person)[0] == 503, "over the connection that waits since just now"
        wait_for("rack-2 to be missed", lambda: _state(hosts, rack) == "unreachable")
        wait_for("its server to be unknown", lambda: hosts.server(person)["state"] == "unknown")
        assert hosts.visit(person)[0] == 503
        for other in others:
            assert hosts.visit(other)[0] == 200, "the others go on"
    finally:
        rack.mend()
    wait_for("rack-2 to be back", lambda: _state(hosts, rack) == "ready")
    wait_for("its server to be back", lambda: hosts.server(person)["state"] == "ready")
    status, who = hosts.visit(person)
    assert (status, who["pid"]) == (200, before), "it was running all the time"


def test_a_shell_on_a_host_gets_nothing_from_agent_relay_and_hub(hosts: Fleet) -> None:
    """SEC-09 where it counts: each port and file of a joined host, as one of its users."""
    rack, person = hosts.hosts[0], hosts.people[0]
    here, uid = hosts.here, pwd.getpwnam(person.name).pw_uid
    asked: dict[str, list[Any]] = {
        "files": [f"{here}/{name}" for name in CLOSED],
        "sockets": [f"{here}/state/relay/control.sock"],
        "addresses": [
            *((where, port) for where in ("127.0.0.1", rack.address) for port in (8445, 8446)),
            (rack.hub_address, FLEET_PORT),
        ],
        "paths": ["/agent/v1/servers", f"/user/{person.name}/", "/internal/v1/agents/rack-1/leave"],
    }
    ran = subprocess.run(
        rack.command("/usr/bin/python3", "-I", "-S", "-c", AT_A_SHELL, uid=uid),
        input=json.dumps(asked),
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(ran.stdout)
    assert found["uid"] == uid
    assert found["opened"] == []
    assert len(found["said"]) == len(asked["addresses"]) * len(asked["paths"]) * 2
    for said in found["said"]:
        assert not said or said.startswith(("HTTP/1.1 400", "HTTP/1.1 401", "HTTP/1.1 404")), said
    _until_ready(hosts, rack)


CLOSED = ("etc/agent.toml", "etc/relay.toml", "state/fleet/host.pem", "state/agent", "state/relay")
AT_A_SHELL = """
import json, os, socket, ssl, sys
asked = json.load(sys.stdin)
opened = []
for path in asked["files"]:
    try:
        os.close(os.open(path, os.O_RDONLY))
        opened.append(path)
    except PermissionError:
        pass
for path in asked["sockets"]:
    try:
        socket.socket(socket.AF_UNIX).connect(path)
        opened.append(path)
    except PermissionError:
        pass
def ask(address, path, context):
    try:
        with socket.create_connection(address, 20) as plain:
            end = plain if context is None else context.wrap_socket(plain)
            head = f"POST {path} HTTP/1.1\\r\\nHost: x\\r\\nContent-Length: 2\\r\\n"
            head += "Content-Type: application/json\\r\\nConnection: close\\r\\n\\r\\n{}"
            end.sendall(head.encode())
            return end.recv(4096).decode(errors="replace")
    except (ssl.SSLError, ConnectionError):
        return ""
anybody = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
anybody.check_hostname, anybody.verify_mode = False, ssl.CERT_NONE
said = [
    ask(tuple(address), path, context)
    for address in asked["addresses"] for path in asked["paths"] for context in (anybody, None)
]
print(json.dumps({"uid": os.getuid(), "opened": opened, "said": said}))
"""


def test_an_agent_that_is_replaced_under_running_servers_changes_nothing(hosts: Fleet) -> None:
    [person] = [one for one in hosts.people if hosts.server(one)["host"] == "rack-1"]
    rack = hosts.hosts[0]
    before = hosts.visit(person)[1]["pid"]
    rack.stop()
    rack.start()
    wait_for("its relay", lambda: hosts.visit(person)[0] == 200)
    assert hosts.visit(person)[1]["pid"] == before
    _until_ready(hosts, rack)
    _until_served(hosts, person)


def test_a_copy_of_a_host_is_refused_and_everybody_hears_of_it(hosts: Fleet) -> None:
    """The copy of rack-3 runs on rack-1, whose own agent rests meanwhile."""
    original, copy = hosts.hosts[2], hosts.hosts[0]
    copy.stop()
    kept = hosts.base / "kept"
    own = hosts.base / copy.name
    for part in ("etc", "state/fleet"):
        shutil.copytree(own / part, kept / part)
        shutil.rmtree(own / part)
        shutil.copytree(hosts.base / original.name / part, own / part)
    settings = own / "etc/agent.toml"  # the hub has another address on this wire
    settings.write_text(settings.read_text().replace(original.hub_address, copy.hub_address))
    copy.start_agent()
    try:
        wait_for("the trouble", lambda: "copied" in hosts.shown("rack-3")["trouble"])
        wait_for("the copy to say so", lambda: "these credentials were copied" in copy.log)
        _until_ready(hosts, original)
    finally:
        copy.stop()
        for part in ("etc", "state/fleet"):
            shutil.rmtree(own / part)
            shutil.copytree(kept / part, own / part)
        os.chown(own / "etc/relay.toml", 0, pwd.getpwnam(hosts.relay_account.name).pw_gid)


def test_a_host_leaves_when_nothing_runs_there_any_more(hosts: Fleet) -> None:
    rack = hosts.hosts[2]
    [person] = [one for one in hosts.people if hosts.server(one).get("host") == "rack-3"]
    again = rack.carrel_agent("join", f"https://{rack.hub_address}:8444", "x.y")
    assert again.returncode == 1
    assert "this host has joined already" in again.stderr
    refused = rack.carrel_agent("leave")
    assert refused.returncode == 1
    assert "evacuate it first" in refused.stderr
    assert hosts.api("POST", "/hosts/rack-3/evacuate")[0] == 202
    wait_for("its server to end", lambda: not hosts.server(person))
    left = rack.carrel_agent("leave")
    assert left.returncode == 0, left.stderr
    assert _state(hosts, rack) == "gone"
    assert not (hosts.base / "rack-3/etc/agent.toml").exists()
    wait_for("its agent to be refused", lambda: "join anew" in rack.log)
