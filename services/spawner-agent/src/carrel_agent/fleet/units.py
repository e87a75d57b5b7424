"""systemd units for a host that has joined."""

import os
import pwd
import subprocess
import sys
from pathlib import Path

from carrel_agent.fleet.places import HostPlaces

UNIT_DIRECTORY = Path("/etc/systemd/system")
RUNNING = Path("/run/systemd/system")
"""It is there where systemd runs the system (sd_booted(3)), and not where it is only installed."""
AGENT_UNIT, RELAY_UNIT = "carrel-agent.service", "carrel-relay.service"


def agent_unit(places: HostPlaces, python: str) -> str:
    """Return the agent's unit. What binds it binds the servers too, so it binds little.

    Servers outlive the agent (`KillMode=process`) and each gets a control group of its own
    (`Delegate`).
    """
    return f"""[Unit]
Description=Carrel agent: starts notebook servers on this host
Wants=network-online.target
After=network-online.target nss-user-lookup.target time-sync.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} -I -m carrel_agent --config {places.agent_settings} keeper
Restart=always
RestartSec=2
RestartPreventExitStatus=78
KillMode=process
SendSIGHUP=no
Delegate=yes
{_run_directory(places.run)}UMask=0077
LimitNOFILE=65536
OOMScoreAdjust=-500
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectHostname=yes
KeyringMode=private

[Install]
WantedBy=multi-user.target
"""


def _run_directory(run: Path) -> str:
    """Return what has systemd make the run-time directory; elsewhere the agent makes it."""
    if run.parent != Path("/run"):
        return ""
    return f"RuntimeDirectory={run.name}\nRuntimeDirectoryMode=0755\nRuntimeDirectoryPreserve=yes\n"


def relay_unit(places: HostPlaces, python: str, account: str) -> str:
    """Return the relay's unit: it may connect to sockets, and read its credentials."""
    return f"""[Unit]
Description=Carrel relay: brings requests to this host's notebook servers
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Type=exec
ExecStart={python} -I -m carrel_proxy --config {places.relay_settings}
ExecReload=/bin/kill -HUP $MAINPID
User={account}
Restart=always
RestartSec=2
RestartPreventExitStatus=78
TimeoutStopSec=45
UMask=0077
LimitNOFILE=65536
CapabilityBoundingSet=
NoNewPrivileges=yes
ProtectSystem=strict
ReadWritePaths={places.state / "relay"}
ProtectHome=read-only
PrivateTmp={_private_tmp()}
PrivateDevices=yes
ProtectClock=yes
ProtectControlGroups=yes
ProtectHostname=yes
ProtectKernelLogs=yes
ProtectKernelModules=yes
ProtectKernelTunables=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
LockPersonality=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
KeyringMode=private

[Install]
WantedBy=multi-user.target
"""


def _private_tmp() -> str:
    """Return whether the relay can have a /tmp of its own: not if that hides its program."""
    ours = (Path(sys.prefix), Path(__file__))
    hidden = any(path.is_relative_to(tmp) for path in ours for tmp in ("/tmp", "/var/tmp"))  # noqa: S108
    return "no" if hidden else "yes"


def check_units(account: str, directory: Path = UNIT_DIRECTORY, running: Path = RUNNING) -> None:
    """See beforehand that units can be installed here, and what they run be run.

    Raises:
        OSError: They cannot; the message says what to do.
    """
    if os.geteuid() != 0 or not directory.is_dir() or not running.is_dir():
        raise OSError(1, "--systemd needs root, and a system that systemd runs", str(directory))
    if reason := _why_it_cannot_run(account):
        raise OSError(
            1,
            f"the relay cannot run as the account {account} ({reason}); install carrel-proxy with"
            " this Python, in a place that every account can read",
            sys.executable,
        )


def _why_it_cannot_run(account: str) -> str:
    entry = pwd.getpwnam(account)
    try:
        tried = subprocess.run(
            [sys.executable, "-I", "-c", "import carrel_proxy"],
            user=entry.pw_uid,
            group=entry.pw_gid,
            extra_groups=[],
            cwd="/",
            capture_output=True,
            text=True,
            check=False,
        )
    except OSError as error:
        return error.strerror or "it cannot be executed"
    said = tried.stderr.strip().splitlines()
    return "" if tried.returncode == 0 else said[-1] if said else "it ended without a word"


def install_units(places: HostPlaces, account: str, directory: Path = UNIT_DIRECTORY) -> None:
    """Write both units and start them.

    Raises:
        OSError: They cannot be written or started.
    """
    python = sys.executable
    for name, text in (
        (AGENT_UNIT, agent_unit(places, python)),
        (RELAY_UNIT, relay_unit(places, python, account)),
    ):
        (directory / name).write_text(text, encoding="utf-8")
    _systemctl("daemon-reload")
    _systemctl("enable", RELAY_UNIT, AGENT_UNIT)
    _systemctl("restart", RELAY_UNIT, AGENT_UNIT)  # what ran had the credentials of before


def remove_units(directory: Path = UNIT_DIRECTORY) -> None:
    """Stop and remove what `install_units` made, where it did.

    Raises:
        OSError: It cannot be done.
    """
    there = [name for name in (AGENT_UNIT, RELAY_UNIT) if (directory / name).exists()]
    runs = RUNNING.is_dir()
    if there and runs:
        _systemctl("disable", "--now", *there)
    for name in there:
        (directory / name).unlink()
    if there and runs:
        _systemctl("daemon-reload")


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(
        ["/usr/bin/systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(1, f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", "systemd")
