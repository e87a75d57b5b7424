"""systemd units for a host that has joined."""

import os
import subprocess
import sys
from pathlib import Path

from carrel_agent.fleet.places import HostPlaces

UNIT_DIRECTORY = Path("/etc/systemd/system")
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
ExecStart={python} -I -m carrel_agent --config {places.agent_settings} keeper
Restart=always
RestartSec=2
RestartPreventExitStatus=78
KillMode=process
SendSIGHUP=no
Delegate=yes
RuntimeDirectory={places.run.name}
RuntimeDirectoryMode=0755
RuntimeDirectoryPreserve=yes
UMask=0077
LimitNOFILE=65536
OOMScoreAdjust=-500
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectHostname=yes
KeyringMode=private

[Install]
WantedBy=multi-user.target
"""


def relay_unit(places: HostPlaces, python: str, account: str) -> str:
    """Return the relay's unit: it may connect to sockets, and read its credentials."""
    return f"""[Unit]
Description=Carrel relay: brings requests to this host's notebook servers
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
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
PrivateTmp=yes
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


def install_units(places: HostPlaces, account: str, directory: Path = UNIT_DIRECTORY) -> None:
    """Write both units and start them.

    Raises:
        OSError: They cannot be written or started.
    """
    if os.geteuid() != 0 or not directory.is_dir():
        raise OSError(1, "--systemd needs root, and a system that systemd runs", str(directory))
    python = sys.executable
    for name, text in (
        (AGENT_UNIT, agent_unit(places, python)),
        (RELAY_UNIT, relay_unit(places, python, account)),
    ):
        (directory / name).write_text(text, encoding="utf-8")
    _systemctl("daemon-reload")
    _systemctl("enable", "--now", RELAY_UNIT, AGENT_UNIT)


def remove_units(directory: Path = UNIT_DIRECTORY) -> None:
    """Stop and remove what `install_units` made, where it did.

    Raises:
        OSError: It cannot be done.
    """
    there = [name for name in (AGENT_UNIT, RELAY_UNIT) if (directory / name).exists()]
    if there:
        _systemctl("disable", "--now", *there)
        for name in there:
            (directory / name).unlink()
        _systemctl("daemon-reload")


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(
        ["/usr/bin/systemctl", *arguments], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise OSError(1, f"systemctl {' '.join(arguments)}: {done.stderr.strip()}", "systemd")
