"""deploy/compose.yaml, held against the services' settings and command lines. Needs no Docker."""

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import tomllib
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

from carrel_agent.settings import AgentSettings
from carrel_hub import __version__
from carrel_hub.cli import _parser as hub_parser
from carrel_hub.settings import HubSettings
from carrel_hub.up.keys import Keys
from carrel_proxy.settings import ProxySettings
from carrel_shared.settings import ServiceSettings, load_settings

ROOT = Path(__file__).resolve().parents[2]
DEPLOY = ROOT / "deploy"
IMAGES = DEPLOY / "images"
Service = dict[str, Any]


def _compose(name: str = "compose.yaml") -> dict[str, Any]:
    text = (DEPLOY / name).read_text(encoding="utf-8")
    # As Compose does with nothing set.
    text = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", text)
    found: dict[str, Any] = yaml.safe_load(text)
    return found


def _services() -> dict[str, Service]:
    found: dict[str, Service] = _compose()["services"]
    return found


def _prepare() -> ModuleType:
    loader = importlib.machinery.SourceFileLoader("prepare", str(IMAGES / "prepare"))
    spec = importlib.util.spec_from_loader("prepare", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("service", "cls"),
    [
        ("hub", HubSettings),
        ("link", HubSettings),
        ("proxy", ProxySettings),
        ("agent", AgentSettings),
    ],
)
def test_each_service_accepts_what_it_is_set_to(
    service: str, cls: type[ServiceSettings], monkeypatch: pytest.MonkeyPatch
) -> None:
    services = _services()
    for name, value in services["prepare"]["environment"].items():
        monkeypatch.setenv(name, value)
    made = _prepare().variables_of(Keys(), "postgresql://carrel:x@/carrel?host=/run/postgresql")
    keys, _ = made["hub" if service == "link" else service]
    for name in services["prepare"]["environment"]:
        monkeypatch.delenv(name)
    environment = services[service]["environment"] | keys
    if service == "proxy":
        environment["CARREL_PROXY__INSECURE"] = "true"  # as `with-keys` has it
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    file = None if service == "agent" else DEPLOY / "settings/carrel.toml"
    load_settings(cls, file, environment)


def test_keys_go_to_whom_they_concern(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in _services()["prepare"]["environment"].items():
        monkeypatch.setenv(name, value)
    keys = Keys()
    made = {name: str(each[0]) for name, each in _prepare().variables_of(keys, None).items()}
    assert keys.hub_to_agent in made["agent"]
    assert keys.agent_to_hub in made["agent"]
    assert keys.hub_to_proxy not in made["agent"]
    assert keys.proxy_to_hub not in made["agent"]
    assert keys.hub_to_agent not in made["proxy"]
    assert keys.console not in "".join(made.values())


def test_every_socket_is_in_a_volume_of_both_its_ends() -> None:
    for name, service in _services().items():
        if name == "prepare":
            continue
        mounts = {volume.split(":")[1] for volume in service["volumes"]}
        sockets = re.findall(r"/run/carrel/[^ '\"]+", str(service.get("environment", "")))
        sockets += re.findall(r"/run/carrel/[^ '\"\],]+", str(service.get("command", "")))
        if name != "link":  # it asks the database
            assert {str(Path(each).parent) for each in sockets if ".sock" in each} <= mounts, name


def test_volumes_are_seen_by_those_who_need_them() -> None:
    seen: dict[str, set[str]] = {name: set() for name in _compose()["volumes"]}
    for name, service in _services().items():
        for volume in service["volumes"]:
            source, _, mode = (
                volume.split(":", 2) if volume.count(":") == 2 else (*volume.split(":"), "rw")
            )
            if not source.startswith("."):
                seen[source].add(name if mode == "rw" else f"{name} reads")
            else:
                assert mode == "ro"
    for each in seen.values():
        each.remove("prepare")
    assert seen == {
        "hub": {"hub", "link"},
        "proxy": {"proxy"},
        "agent": {"agent"},
        "accounts": {"agent", "pam reads"},
        "homes": {"agent"},
        "front": {"hub", "proxy reads"},
        "internal": {"hub", "proxy reads", "agent reads"},
        "control": {"proxy", "hub reads"},
        "servers": {"agent", "hub reads", "proxy reads"},
        "pam": {"pam", "hub reads"},
    }
    assert set(seen) <= set(_prepare().DIRECTORIES) | {"hub", "proxy"}


def test_nothing_has_more_rights_than_it_needs() -> None:
    given = {}
    for name, service in _services().items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] is True, name
        assert not {"privileged", "pid", "ipc", "devices", "userns_mode"} & set(service), name
        assert service.get("network_mode", "none") == "none", name
        given[name] = set(service.get("cap_add", ()))
    assert given["hub"] == given["proxy"] == given["link"] == set()
    assert given["agent"] == {"SETUID", "SETGID", "KILL", "SYS_PTRACE", "CHOWN"}
    assert given["pam"] == {"CHOWN", "AUDIT_WRITE"}
    rooted = {name for name, each in _services().items() if each.get("user", "").startswith("0")}
    assert rooted == {"prepare"}


def test_only_the_proxy_is_published_and_only_on_this_machine() -> None:
    published = {name: each["ports"] for name, each in _services().items() if "ports" in each}
    assert published == {"proxy": ["127.0.0.1:8000:8000"]}
    bridges = _compose()["networks"]
    assert {name for name, each in _services().items() if "networks" in each} == {
        "hub",
        "proxy",
        "agent",
    }
    assert bridges["hub"] == {"internal": True}


def test_images_have_this_version() -> None:
    for name, service in _services().items():
        assert re.fullmatch(
            rf"carrel-(hub|proxy|agent):{re.escape(__version__)}", service["image"]
        ), name
    texts = [(IMAGES / "Dockerfile").read_text("utf-8")]
    texts += [path.read_text("utf-8") for path in DEPLOY.glob("compose*.yaml")]
    assert "latest" not in "".join(texts)


def test_targets_of_the_dockerfile_are_those_that_are_built() -> None:
    text = (IMAGES / "Dockerfile").read_text("utf-8")
    stages = dict(re.findall(r"^FROM [^\n]* AS (\w+)$(.*?)(?=^FROM|\Z)", text, re.M | re.S))
    assert {each["build"]["target"] for each in _services().values()} == {"hub", "proxy", "agent"}
    for name in ("hub", "proxy"):
        assert "USER carrel\n" in stages[name]
    for path in re.findall(r"^COPY (?!--from)(.*) \S+$", text, re.M):
        assert all((ROOT / each).exists() for each in path.split()), path


def test_commands_exist() -> None:
    scripts = set()
    for service in ("hub", "proxy", "spawner-agent"):
        text = (ROOT / "services" / service / "pyproject.toml").read_text("utf-8")
        scripts |= set(tomllib.loads(text)["project"]["scripts"])
    text = (IMAGES / "Dockerfile").read_text("utf-8")
    programs = set(re.findall(r"ln -s with-keys /usr/local/bin/(\S+)", text))
    assert programs <= scripts
    own = {path.name for path in IMAGES.iterdir() if os.access(path, os.X_OK)}
    used = {each["command"][0] for each in _services().values() if "command" in each}
    used |= {
        each["healthcheck"]["test"][1] for each in _services().values() if "healthcheck" in each
    }
    assert used - {"/opt/carrel/bin/python"} <= own | programs
    link = _services()["link"]["command"]
    hub_parser().parse_args(link[1:])


def test_services_have_time_to_end() -> None:
    text = (DEPLOY / "settings/carrel.toml").read_text("utf-8")
    drain = tomllib.loads(text)["proxy"]["drain_seconds"]
    for name in ("hub", "proxy", "agent"):
        assert int(_services()[name]["stop_grace_period"].removesuffix("s")) >= drain + 8


def test_the_database_is_reached_where_the_hub_expects_it() -> None:
    services = _compose("compose.postgres.yaml")["services"]
    assert services["database"]["network_mode"] == "none"
    assert services["prepare"]["volumes"] == [f"database-password:/volumes/{_prepare().DATABASE}"]
    for name in ("hub", "link"):
        assert services[name]["volumes"] == ["database-socket:/run/postgresql:ro"]


@pytest.mark.parametrize(
    ("publish", "open_to_its_machine"),
    [
        ("127.0.0.1:8000", True),
        ("[::1]:8000", True),
        ("0.0.0.0:8000", False),
        ("8000", False),
        ("127.evil.example", False),
        ("", False),
    ],
)
def test_tls_is_left_out_only_where_nobody_else_can_come(
    publish: str, open_to_its_machine: bool, tmp_path: Path
) -> None:
    (tmp_path / "keys").write_text("CARREL_PROXY__HUB_KEY='a b'\n")
    program = tmp_path / "carrel-proxy.real"
    program.write_text("#!/bin/sh\nenv\n")
    program.chmod(0o755)
    text = (IMAGES / "with-keys").read_text("utf-8")
    text = text.replace("/var/lib/carrel/", f"{tmp_path}/").replace("/etc/carrel/", f"{tmp_path}/")
    wrapper = tmp_path / "carrel-proxy"
    wrapper.write_text(text.replace("/opt/carrel/bin/$name", f"{tmp_path}/$name.real"))
    said = subprocess.run(
        ["sh", str(wrapper)],
        env={"PATH": os.environ["PATH"], "CARREL_PUBLISH": publish},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "CARREL_PROXY__HUB_KEY=a b\n" in said
    assert ("CARREL_PROXY__INSECURE=true" in said) is open_to_its_machine
    assert ("CARREL_HUB__AUTH__LINK_FROM=anywhere" in said) is open_to_its_machine


def test_without_keys_a_service_says_who_makes_them(tmp_path: Path) -> None:
    text = (IMAGES / "with-keys").read_text("utf-8").replace("/var/lib/carrel/", f"{tmp_path}/")
    wrapper = tmp_path / "carrel-hub"
    wrapper.write_text(text)
    done = subprocess.run(["sh", str(wrapper)], capture_output=True, text=True, check=False)
    assert (done.returncode, "prepare" in done.stderr) == (78, True)
