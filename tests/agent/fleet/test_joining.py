"""What an operator who joins a host types, gets wrong, and is told."""

import json
import os
import ssl
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from proxy.authority import Authority

from carrel_agent.errors import AccountRefusedError, SetupError
from carrel_agent.fleet.connections import check_credentials
from carrel_agent.fleet.credentials import store
from carrel_agent.fleet.exchange import hub_address, split_token
from carrel_agent.fleet.places import HostPlaces
from carrel_agent.fleet.units import agent_unit, check_units, relay_unit
from carrel_agent.settings import AgentSettings
from carrel_agent.supervise.accounts import Account, check_uid
from carrel_agent.supervise.capacity import find_gpus, home_source, read_capacity
from carrel_shared.fleet import FleetFiles
from carrel_shared.fleet_joining import JoinError
from carrel_shared.fleet_keys import NewKey, fingerprint, new_key_pair

PLACES = HostPlaces(Path("/etc/carrel"), Path("/var/lib/carrel"), Path("/run/carrel"))


def carrel_agent(*words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-I", "-m", "carrel_agent", *words],
        env={"PATH": os.environ["PATH"], "HOME": "/nonexistent", **environ},
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.mark.parametrize(
    "url", ["http://hub:8444", "https://hub", "hub", "https://hub:8444/x", "https://hub:99999"]
)
def test_an_address_that_is_none_is_named(url: str) -> None:
    with pytest.raises(JoinError, match="expected the hub's fleet address"):
        hub_address(url)


def test_addresses_and_tokens_are_read() -> None:
    assert hub_address("https://hub:8444") == ("hub", 8444)
    assert hub_address("[2001:db8::1]:8444") == ("2001:db8::1", 8444)
    assert split_token(f" secret.{'a' * 64}\n") == ("secret", "a" * 64)
    for text in ("", "secret", "secret.short"):
        with pytest.raises(JoinError, match="no join token"):
            split_token(text)


def test_what_cannot_be_is_said_in_a_line(tmp_path: Path) -> None:
    places = ("--config-dir", str(tmp_path), "--state-dir", str(tmp_path / "s"))
    account = () if os.geteuid() else ("--account", "root")
    token = f"x.{'0' * 64}"
    for words, stdin, line in (
        (("--label", "no label"), token, "expected NAME=VALUE"),
        ((), "rubbish", "no join token"),
        (account, token, "the hub does not answer at https://127.0.0.1:1"),
    ):
        done = carrel_agent("join", "https://127.0.0.1:1", *words, *places, stdin=stdin)
        assert done.returncode == 1
        assert line in done.stderr
        assert "Traceback" not in done.stderr
    left = carrel_agent("leave", *places)
    assert (left.returncode, "no host has joined here" in left.stderr) == (1, True)
    assert not (tmp_path / "agent.toml").exists()


def test_units_keep_servers_alive_and_lock_the_relay_in() -> None:
    agent = agent_unit(PLACES, "/opt/python")
    for line in (
        "ExecStart=/opt/python -I -m carrel_agent --config /etc/carrel/agent.toml keeper",
        "KillMode=process",
        "Delegate=yes",
        "RuntimeDirectory=carrel",
        "RuntimeDirectoryPreserve=yes",
        "RestartPreventExitStatus=78",
    ):
        assert line in agent.splitlines()
    assert "DevicePolicy" not in agent, "servers are bound by it too, and would lose their GPUs"
    assert "ProtectClock" not in agent, "it closes devices"
    relay = relay_unit(PLACES, "/opt/python", "carrel")
    for line in (
        "User=carrel",
        "CapabilityBoundingSet=",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "ReadWritePaths=/var/lib/carrel/relay",
        "SystemCallFilter=@system-service",
    ):
        assert line in relay.splitlines()


def test_units_need_root_and_systemd(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="needs root, and a system that systemd runs"):
        check_units("carrel", tmp_path / "nowhere")
    with pytest.raises(OSError, match="needs root, and a system that systemd runs"):
        check_units("carrel", tmp_path, running=tmp_path / "only-installed")


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="units are installed by root")
def test_a_relay_that_its_account_cannot_run_is_told_before_the_token_is_used(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as place:  # pytest's own are closed to others
        _check_what_is_told(Path(place), monkeypatch)


def _check_what_is_told(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place.chmod(0o755)
    program = place / "python"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    check_units("nobody", place, place)
    program.write_text("#!/bin/sh\necho \"No module named 'carrel_proxy'\" >&2; exit 1\n")
    with pytest.raises(OSError, match=r"as the account nobody \(No module named 'carrel_proxy'\)"):
        check_units("nobody", place, place)
    program.chmod(0o700)
    with pytest.raises(OSError, match="install carrel-proxy with this Python"):
        check_units("nobody", place, place)


def test_only_below_run_does_systemd_make_the_run_time_directory() -> None:
    elsewhere = HostPlaces(PLACES.config, PLACES.state, Path("/srv/carrel/run"))
    assert "RuntimeDirectory" not in agent_unit(elsewhere, "/opt/python")


def test_credentials_are_closed_to_others_and_shown_to_nobody(tmp_path: Path) -> None:
    pair = tmp_path / "fleet/host.pem"
    files = FleetFiles(tmp_path / "fleet/ca.pem", pair, pair)
    key = new_key_pair()
    store(files, key, "certificate\n", "authority\n", None)
    assert stat.S_IMODE(pair.stat().st_mode) == 0o600
    assert stat.S_IMODE(pair.parent.stat().st_mode) == 0o700
    assert repr(NewKey(b"secret", "x")) == "NewKey()"
    assert "CERTIFICATE REQUEST" in key.request


def test_an_authority_is_known_by_its_fingerprint(tmp_path: Path) -> None:
    pem = Authority(tmp_path).file.read_text()
    der = ssl.PEM_cert_to_DER_cert(pem)
    import hashlib

    assert fingerprint(pem) == hashlib.sha256(der).hexdigest()
    with pytest.raises(ValueError, match="PEM"):
        fingerprint("rubbish")


def settings(directory: Path, name: str, **more: object) -> AgentSettings:
    pair = Authority(directory).host("rack-1")
    values: dict[str, object] = {
        "name": name,
        "listen": "127.0.0.1:8445",
        "key": "k" * 32,
        "hub_url": "127.0.0.1:8444",
        "hub_key": "h" * 32,
        "state_dir": directory,
        "run_dir": directory,
        **pair.fleet,
        **more,
    }
    return AgentSettings.model_validate(values)


def test_a_host_that_was_renamed_says_so_and_does_not_start(tmp_path: Path) -> None:
    check_credentials(settings(tmp_path, "rack-1"))
    with pytest.raises(SetupError, match=r"is for carrel://host/rack-1: a host keeps the name"):
        check_credentials(settings(tmp_path, "rack-2"))
    ours = settings(tmp_path, "rack-1")
    assert ours.fleet is not None
    ours.fleet.cert.write_text("rubbish")
    with pytest.raises(SetupError, match="join anew"):
        check_credentials(ours)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"fleet_key": None}, "belong together"),
        ({"relay": "unix:/x"}, "relay and relay_key belong together"),
        ({"listen": "unix:/x"}, "listen: with the fleet files this is host:port"),
        ({"labels": {"no label": "x"}}, "labels"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(
    tmp_path: Path, changes: dict[str, object], words: str
) -> None:
    with pytest.raises(ValueError, match=words):
        settings(tmp_path, "rack-1", **changes)


def test_an_account_that_became_somebody_else_is_refused() -> None:
    alice = Account("alice", 1005, 1005, (), "/home/alice", "/bin/sh")
    check_uid(alice, None)
    check_uid(alice, 1005)
    with pytest.raises(AccountRefusedError, match=r"has uid 1005 on this host.*had 1001"):
        check_uid(alice, 1001)


def test_what_a_host_has_is_found(tmp_path: Path) -> None:
    found = read_capacity(tmp_path)
    assert found.disk_total >= found.disk_available > 0
    nvidia, amd = tmp_path / "nvidia", tmp_path / "amd"
    for number in range(2):
        (nvidia / f"0000:0{number}:00.0").mkdir(parents=True)
        information = nvidia / f"0000:0{number}:00.0/information"
        information.write_text("Model: \t\t NVIDIA A100\nIRQ: 5\n")
    for number, units in enumerate((0, 440)):
        (amd / str(number)).mkdir(parents=True)
        (amd / str(number) / "properties").write_text(f"cpu_cores_count 8\nsimd_count {units}\n")
    assert find_gpus(nvidia, amd) == ["NVIDIA A100", "NVIDIA A100", "AMD"]
    assert find_gpus(tmp_path / "none", tmp_path / "none") == []
    mounts = tmp_path / "mounts"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\nnas:/export/home /home nfs4 rw 0 0\n")
    assert home_source(mounts) == "nas:/export/home"
    mounts.write_text("/dev/sda1 / ext4 rw 0 0\n/dev/sdb1 /home ext4 rw 0 0\n")
    assert home_source(mounts) == ""
    json.dumps(found.model_dump())
