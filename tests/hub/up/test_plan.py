"""What is started, and with which environment."""

import json
from dataclasses import replace
from pathlib import Path

from carrel_hub.settings import HubSettings
from carrel_hub.up.accounts import Account
from carrel_hub.up.keys import Keys
from carrel_hub.up.layout import Layout
from carrel_hub.up.options import UpOptions, build_parser, read_up_options
from carrel_hub.up.plan import ServiceSpec, Surroundings, plan_services

ROOT = Account("root", 0, 0, "/root", "root")
CARREL = Account("carrel", 990, 991, "/nonexistent", "carrel")
ALICE = Account("alice", 1000, 1000, "/home/alice", "alice")
AS_ROOT = Surroundings(
    layout=Layout(Path("/S"), Path("/R")),
    keys=Keys(),
    own=ROOT,
    service=CARREL,
    environ={
        "PATH": "/tmp/bin",
        "LANG": "de_DE.UTF-8",
        "SECRET_OF_MINE": "x",
        "LD_PRELOAD": "/tmp/evil.so",
        "CARREL_HUB__LOG_LEVEL": "debug",
        "CARREL_AGENT__MIN_UID": "500",
        "CARREL_FAILPOINT": "hub.spawn.sent",
    },
    python="/venv/bin/python",
    keeper_main=Path("/lib/keeper/main.py"),
    version="1",
)
AS_ALICE = replace(AS_ROOT, own=ALICE, service=ALICE)


def options(*words: str) -> UpOptions:
    return read_up_options(build_parser("0").parse_args(["up", *words]))


def plan(around: Surroundings = AS_ROOT, *words: str) -> dict[str, ServiceSpec]:
    return {spec.name: spec for spec in plan_services(options(*words), around)}


def test_who_runs_as_whom() -> None:
    assert {name: spec.account.name for name, spec in plan().items()} == {
        "pam": "root",
        "proxy": "carrel",
        "hub": "carrel",
        "keeper": "root",
    }
    assert {spec.account.name for spec in plan(AS_ALICE).values()} == {"alice"}
    assert "pam" not in plan(AS_ALICE), "only root can check passwords"


def test_no_key_is_ever_in_an_argument() -> None:
    keys = AS_ROOT.keys
    secrets = [keys.console, keys.hub_to_agent, keys.agent_to_hub]
    secrets += [keys.hub_to_proxy, keys.proxy_to_hub]
    assert len(set(secrets)) == 5
    for spec in plan().values():
        argv = " ".join([*spec.argv, *(spec.before or ())])
        assert not any(secret in argv for secret in secrets)
        assert not any(secret in repr(spec) for secret in secrets)


def test_each_service_gets_its_own_settings_and_nothing_else_of_the_caller() -> None:
    services = plan()
    assert services["hub"].environment["CARREL_HUB__LOG_LEVEL"] == "debug"
    assert services["keeper"].environment["CARREL_AGENT__MIN_UID"] == "500"
    for name, spec in services.items():
        prefix = {"keeper": "CARREL_AGENT__"}.get(name, f"CARREL_{name.upper()}__")
        others = {each for each in spec.environment if not each.startswith(prefix)}
        assert others == {"PATH", "LANG", "HOME"}
        assert "/tmp" not in spec.environment["PATH"]
        assert spec.environment["LANG"] == "de_DE.UTF-8"
    assert services["hub"].environment["HOME"] == "/nonexistent"
    assert plan(AS_ALICE)["keeper"].environment["PATH"] == "/tmp/bin"


def test_each_key_is_held_by_its_two_ends_alone() -> None:
    keys = AS_ROOT.keys
    services = plan()

    def holders(key: str) -> set[str]:
        return {
            name
            for name, spec in services.items()
            if any(key in value for value in spec.environment.values())
        }

    assert holders(keys.console) == {"hub"}
    assert holders(keys.hub_to_proxy) == holders(keys.proxy_to_hub) == {"hub", "proxy"}
    assert holders(keys.hub_to_agent) == holders(keys.agent_to_hub) == {"hub", "keeper"}


def test_our_wiring_wins_over_the_callers_variables() -> None:
    around = replace(AS_ROOT, environ={"CARREL_HUB__CONSOLE_KEY": "guessed"})
    assert plan(around)["hub"].environment["CARREL_HUB__CONSOLE_KEY"] == AS_ROOT.keys.console


def test_a_failpoint_reaches_the_first_start_of_hub_and_keeper_alone() -> None:
    services = plan()
    armed = {"CARREL_FAILPOINT": "hub.spawn.sent"}
    assert services["hub"].first_start == services["keeper"].first_start == armed
    assert services["proxy"].first_start == services["pam"].first_start == {}
    assert not any("CARREL_FAILPOINT" in spec.environment for spec in services.values())


def test_the_hubs_variables_are_settings_the_hub_takes() -> None:
    import os
    import subprocess
    import sys

    program = (
        "import os, json; from carrel_shared.settings import load_settings;"
        "from carrel_hub.settings import HubSettings;"
        "s = load_settings(HubSettings, None, os.environ);"
        "print(json.dumps([s.base_url, s.agents[0].url, s.auth.pam_socket,"
        " s.auth.authenticator, s.console_key.get_secret_value()]))"
    )
    assert HubSettings.table == "hub"
    for around, pam in ((AS_ROOT, ["unix:/R/pam/pam.sock", "pam"]), (AS_ALICE, [None, "none"])):
        environment = dict(plan(around, "--base-url", "/jup/")["hub"].environment)
        environment["PATH"] = os.environ["PATH"]
        said = subprocess.run(
            [sys.executable, "-c", program], env=environment, capture_output=True, check=True
        )
        expected = ["/jup/", "unix:/R/agent/agent.sock", *pam, AS_ROOT.keys.console]
        assert json.loads(said.stdout) == expected


def test_an_ordinary_users_own_word_on_passwords_counts() -> None:
    """Only root can ask PAM; what the settings file names instead is left alone."""
    said = replace(AS_ALICE, config_text=b"[hub.auth]\nauthenticator = 'dummy'\n")
    variable = "CARREL_HUB__AUTH__AUTHENTICATOR"
    assert plan(AS_ALICE)["hub"].environment[variable] == "none"
    assert variable not in plan(said)["hub"].environment
    assert plan(replace(AS_ALICE, config_text=b"["))["hub"].environment[variable] == "none"
    api = plan(AS_ROOT, "--base-url", "/jup/")["hub"].environment["CARREL_HUB__API_URL"]
    assert api == "http://127.0.0.1:8000/jup/hub/api"


def test_a_change_of_settings_keys_version_or_file_changes_the_fingerprint() -> None:
    same = {name: spec.fingerprint for name, spec in plan().items()}
    assert same == {name: spec.fingerprint for name, spec in plan().items()}

    def changed(around: Surroundings, *words: str) -> set[str]:
        now = plan(around, *words)
        return {name for name in same if now[name].fingerprint != same[name]}

    assert changed(AS_ROOT, "--bind", "127.0.0.1:9000") == {"hub", "proxy"}, "servers call the hub"
    assert changed(AS_ROOT, "--base-url", "/x/") == {"proxy", "hub"}
    assert changed(replace(AS_ROOT, version="2")) == set(same)
    assert changed(replace(AS_ROOT, config_text=b"[hub]")) == set(same)
    assert changed(replace(AS_ROOT, keys=Keys())) == {"proxy", "hub", "keeper"}
    quiet = {k: v for k, v in AS_ROOT.environ.items() if k != "CARREL_FAILPOINT"}
    assert changed(replace(AS_ROOT, environ=quiet)) == set()


def test_with_hosts_elsewhere_the_proxy_has_the_certificate_that_the_hub_makes() -> None:
    elsewhere = replace(AS_ROOT, config_text=b'[hub]\nfleet_listen = "0.0.0.0:8444"\n')
    environment = plan(elsewhere)["proxy"].environment
    assert environment["CARREL_PROXY__FLEET_CA"] == "/S/hub/fleet/ca.pem"
    assert environment["CARREL_PROXY__FLEET_CERT"] == "/S/hub/fleet/edge.pem"
    assert "CARREL_PROXY__FLEET_CA" not in plan()["proxy"].environment
