"""What the hub relies on when it calls the agent."""

import os
import stat
from typing import Any

import pytest

from carrel_shared.service_auth import new_key, service_headers
from carrel_shared.wire.agents import AgentSnapshot
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.servers import LogTail, ServerReport, ServerState
from support.agent_host import AgentHost


def code(answer: Any) -> tuple[int, str]:
    body = ErrorBody.model_validate_json(answer.text)
    assert body.status == answer.status_code
    assert body.message
    return body.status, body.code


def test_nothing_but_health_answers_without_the_key(host: AgentHost) -> None:
    spec = host.spec("good")
    for headers in ({}, service_headers(new_key())):
        assert host.client.call("GET", "/health", headers=headers).status_code == 200
        for method, path in (
            ("GET", "/servers"),
            ("PUT", f"/servers/{spec['server_id']}"),
            ("POST", f"/servers/{spec['server_id']}/stop"),
            ("POST", "/warm"),
            ("GET", "/nonsense"),
        ):
            assert code(host.client.call(method, path, spec, headers)) == (401, "unauthorized")
    assert host.client.get("/servers").json()["servers"] == []


def test_a_newer_wire_version_is_refused_by_name(host: AgentHost) -> None:
    headers = {**host.client.headers, "Carrel-Wire": "99"}
    answer = host.client.call("GET", "/servers", headers=headers)
    assert code(answer) == (400, "wire_version")
    assert "upgrade agent" in answer.json()["message"]


def test_starting_twice_starts_once(host: AgentHost) -> None:
    spec = host.spec("good")
    assert host.put(spec).status_code == 202
    assert host.put(spec).status_code == 202
    report = host.wait_state(spec["server_id"], "ready")
    again = ServerReport.model_validate_json(host.put(spec).text)
    assert (again.state, again.pid) == (ServerState.READY, report["pid"])
    host.stop_server(spec["server_id"])
    host.wait_state(spec["server_id"], "stopped")
    assert ServerReport.model_validate_json(host.put(spec).text).state == ServerState.STOPPED


def test_generations_fence_every_command(host: AgentHost) -> None:
    spec = host.spec("good", generation=5)
    host.put(spec)
    server_id = spec["server_id"]
    host.wait_state(server_id, "ready")
    assert code(host.put({**spec, "generation": 4})) == (409, "generation_stale")
    assert code(host.put({**spec, "generation": 6})) == (409, "server_running")
    assert code(host.stop_server(server_id, generation=4)) == (409, "generation_stale")
    assert code(host.stop_server(server_id, generation=6)) == (404, "unknown_server")
    assert code(host.client.delete(f"/servers/{server_id}?generation=5"))[0] == 409
    assert host.report(server_id)["state"] == "ready"

    assert host.stop_server(server_id, generation=5).status_code == 202
    host.wait_state(server_id, "stopped")
    assert host.stop_server(server_id, generation=5).status_code == 200
    assert code(host.client.delete(f"/servers/{server_id}?generation=4"))[0] == 409
    assert host.client.delete(f"/servers/{server_id}?generation=5").status_code == 204
    [kept] = [one for one in host.records() if one.server_id == server_id]
    assert kept.exit is not None
    assert kept.exit.log_tail == [], "what it printed is forgotten in memory and on disk"
    assert code(host.client.get(f"/servers/{server_id}")) == (404, "unknown_server")
    assert code(host.put(spec)) == (409, "generation_stale"), "a late copy must not start it again"

    assert host.put({**spec, "generation": 6}).status_code == 202
    host.wait_state(server_id, "ready")
    host.stop_server(server_id, generation=6)
    host.wait_state(server_id, "stopped")


def test_all_servers_and_their_output_can_be_read(host: AgentHost) -> None:
    report = host.started("good")
    snapshot = AgentSnapshot.model_validate_json(host.client.get("/servers").text)
    assert report["server_id"] in {s.server_id for s in snapshot.servers}
    host.wait_line(report["server_id"], "serving ")
    tail = LogTail.model_validate_json(host.client.get(f"/servers/{report['server_id']}/log").text)
    assert tail.lines == ["serving /user/somebody/"]
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"account": "root"}, "root"),
        ({"account": "no-such-account"}, "no-such-account"),
        ({"account": "daemon"}, "daemon"),
        ({"account": "../x"}, "account"),
        ({"base_url": "user"}, "base_url"),
        ({"secret": "short"}, "secret"),
        ({"environment": {"A B": "x"}}, "environment"),
        ({"environment": {"A": "x\ny"}}, "line break"),
        ({"command": ["no-such-program"]}, "no-such-program"),
        ({"runner": "fork"}, "fork"),
        ({"runner": "slurm"}, "runner"),
        ({"surprise": 1}, "surprise"),
    ],
)
def test_what_cannot_be_run_is_refused_with_the_reason(
    host: AgentHost, change: dict[str, Any], word: str
) -> None:
    spec = host.spec("good", **change)
    answer = host.put(spec)
    assert code(answer)[0] == 400
    assert word in answer.json()["message"]
    assert spec["secret"] not in answer.text
    assert code(host.client.get(f"/servers/{spec['server_id']}"))[0] == 404


def test_the_path_must_name_the_server_of_the_body(host: AgentHost) -> None:
    spec = host.spec("good")
    assert code(host.client.put("/servers/000000000000", spec)) == (400, "invalid_request")


def test_errors_have_one_shape(host: AgentHost) -> None:
    assert code(host.client.get("/nonsense"))[0] == 404
    assert code(host.client.get("/servers/not-an-id"))[0] == 400
    assert code(host.client.get("/servers/0123456789ab/log?lines=0"))[0] == 400
    assert code(host.client.post("/servers"))[0] == 405
    assert code(host.client.put("/servers/0123456789ab", [1]))[0] == 400


@pytest.mark.skipif(os.geteuid() != 0, reason="modes for a group are set as root")
def test_sockets_are_closed_to_users(host: AgentHost) -> None:
    report = host.started("good")
    directory = host.run / "s" / report["server_id"]
    agent_socket = host.base / "agent.sock"
    assert stat.S_IMODE(agent_socket.stat().st_mode) & 0o007 == 0
    assert directory.stat().st_uid == 0
    assert stat.S_IMODE(directory.stat().st_mode) & 0o007 == 0
    host.stop_server(report["server_id"])
    host.wait_state(report["server_id"], "stopped")


def test_no_secret_is_written_or_shown(host: AgentHost) -> None:
    spec = host.spec("good")
    host.put(spec)
    host.wait_state(spec["server_id"], "ready")
    secrets = [spec["secret"], *host.keys.values()]
    written = (host.state / "servers").glob("*.json")  # others are being written
    texts = [host.log.read_text(), *(path.read_text() for path in written)]
    texts.append(host.client.get("/servers").text)
    for secret in secrets:
        assert not [text for text in texts if secret in text]
    host.stop_server(spec["server_id"])
    host.wait_state(spec["server_id"], "stopped")


def test_a_start_that_says_something_wrong_is_answered_as_any_request(host: AgentHost) -> None:
    spec = host.spec("good")
    path = f"/servers/{spec['server_id']}"
    for body, said in (
        ({**spec, "generation": "many"}, "generation"),
        ({**spec, "server_id": "0" * 12}, "the path names server"),
        ({}, "server_id"),
    ):
        answer = host.client.put(path, body)
        assert code(answer) == (400, "invalid_request")
        assert said in answer.json()["message"]
    for query in ("?wait=6", "?wait=-1", "?wait=soon", "?wait=99"):
        assert code(host.client.put(path + query, spec)) == (400, "invalid_request")
    assert code(host.client.get(path)) == (404, "unknown_server")
    for query in ("?wait=0.5", "?wait=2", ""):
        assert host.client.put(path + query, spec).status_code == 202
