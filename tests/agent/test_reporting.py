"""What the hub hears without asking."""

import os
import pwd
from typing import Any

from carrel_shared.wire.agents import AgentReport
from support.agent_host import AgentHost, FakeHub, wait_for


def latest(hub: FakeHub, server_id: str, state: str) -> dict[str, Any]:
    """Wait for a report that has a server in this state."""

    def look() -> dict[str, Any] | None:
        for report in reversed(hub.reports):
            for server in report["servers"]:
                if (server["server_id"], server["state"]) == (server_id, state):
                    return dict(report)
        return None

    return wait_for(f"a report of {server_id} {state}", look)


def test_each_change_is_reported_and_forgetting_is_honoured(account: pwd.struct_passwd) -> None:
    with AgentHost(account, name="rack-1") as host:
        hub = host.open_hub()
        host.start()
        wait_for("a first report", lambda: bool(hub.reports))
        first = dict(hub.reports[0])
        assert first.pop("path") == "/internal/v1/agents/rack-1/report"
        report = AgentReport.model_validate(first)
        assert report.sequence == 1
        assert report.accounts == ("any" if os.geteuid() == 0 else account.pw_name)
        assert report.capacity.memory_total > report.capacity.memory_available > 0
        assert hub.headers[0]["Authorization"] == f"Bearer {host.keys['hub_key']}"

        started = host.started("stubborn")  # its end takes long enough to be a change of its own
        server_id = started["server_id"]
        latest(hub, server_id, "ready")
        hub.forget = [server_id]  # it lives: a hub that forgets too early changes nothing
        before = len(hub.reports)
        wait_for("a heartbeat", lambda: len(hub.reports) > before)
        assert host.report(server_id)["state"] == "ready"
        hub.forget = []
        host.stop_server(server_id, interrupt_seconds=1, terminate_seconds=1)
        latest(hub, server_id, "stopping")
        latest(hub, server_id, "stopped")
        sequences = [r["sequence"] for r in hub.reports]
        assert sequences == sorted(set(sequences))

        hub.forget = [server_id]
        wait_for("it to be forgotten", lambda: not host.client.get("/servers").json()["servers"])
        assert not list((host.state / "logs").iterdir())

        hub.status = 500
        silent = host.started("good")
        hub.forget = []
        host.kill_agent()
        hub.reports.clear()  # what the old one said and was not heard
        hub.status = 200
        again = latest(hub, silent["server_id"], "ready")
        assert again["instance"] != report.instance, "another agent, as the hub can see"
        host.stop_server(silent["server_id"])
        latest(hub, silent["server_id"], "stopped")


def test_who_waits_for_a_start_is_told_and_not_told_again(account: pwd.struct_passwd) -> None:
    with AgentHost(account) as host:
        hub = host.open_hub()
        host.start()
        spec = host.spec("good")
        answered = host.client.put(f"/servers/{spec['server_id']}?wait=5", spec)
        told = answered.json()
        if told["state"] == "starting":  # on a very busy machine: as to everybody else
            told = host.wait_state(spec["server_id"], "ready")
            answered = host.client.put(f"/servers/{spec['server_id']}?wait=5", spec)
        assert answered.status_code == 202
        assert answered.json()["state"] == "ready"
        known = {"server_id": spec["server_id"], "generation": 1}
        wait_for("a report", lambda: any(known in report["unchanged"] for report in hub.reports))
        host.kill_agent()
        latest(hub, spec["server_id"], "ready")  # this agent does not know what the hub knows
        host.stop_server(spec["server_id"])
        latest(hub, spec["server_id"], "stopped")


def test_who_waits_for_a_start_hears_of_its_failure_and_it_is_reported(
    account: pwd.struct_passwd,
) -> None:
    with AgentHost(account) as host:
        hub = host.open_hub()
        host.start()
        spec = host.spec("exit", "3", listen="port")
        url = f"/servers/{spec['server_id']}?wait=5"
        wait_for("its failure", lambda: host.client.put(url, spec).json()["state"] == "failed")
        latest(hub, spec["server_id"], "failed")
        assert host.client.put(f"/servers/{spec['server_id']}?wait=9", spec).status_code == 400
