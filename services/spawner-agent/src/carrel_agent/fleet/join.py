"""`carrel-agent join URL TOKEN`: make this machine one of the hub's hosts."""

import grp
import json
import os
import pwd
import socket
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carrel_agent.fleet.credentials import store
from carrel_agent.fleet.exchange import exchange_token, hub_address, split_token
from carrel_agent.fleet.places import SERVICE_ACCOUNT, HostPlaces
from carrel_agent.fleet.units import check_units, install_units
from carrel_shared.clock import SystemClock
from carrel_shared.files import write_atomically
from carrel_shared.fleet_joining import JoinError, learn_authority
from carrel_shared.fleet_keys import new_key_pair
from carrel_shared.service_auth import new_key
from carrel_shared.wire.hosts import JoinReply


@dataclass(frozen=True, slots=True)
class JoinOptions:
    """What the operator said.

    Attributes:
        address: Where hub and proxies reach this host; empty for the address that leads to the hub.
        account: Whom the relay runs as, where root joins the host.
        homes: What people's homes lie on, by name, where other hosts have the same.
        again: Take the place of what an earlier joining left here.
    """

    url: str
    token: str
    places: HostPlaces
    labels: dict[str, str]
    address: str = ""
    agent_port: int = 8445
    relay_port: int = 8446
    homes: str = ""
    account: str = SERVICE_ACCOUNT
    systemd: bool = False
    again: bool = False


def join(options: JoinOptions) -> str:
    """Join, write settings and credentials, and return the host's name.

    Raises:
        JoinError: It cannot be done; nothing was changed on this host then.
    """
    places = options.places
    if places.agent_settings.exists() and not options.again:
        raise JoinError(
            f"this host has joined already ({places.agent_settings}); `carrel-agent leave` first,"
            " or say --again to give it new credentials"
        )
    host, port = hub_address(options.url)
    secret, fingerprint = split_token(options.token)
    group = _service_group(options.account)
    if options.systemd:
        _check_units(options.account)
    bracketed = f"[{host}]" if ":" in host else host
    base = f"https://{bracketed}:{port}"
    authority = learn_authority(base, fingerprint)
    _check_writable(places)
    key = new_key_pair()
    reply = exchange_token(
        base,
        authority,
        token=secret,
        request=key.request,
        at=SystemClock().now(),
        address=options.address or _own_address(host, port),
        ports=(options.agent_port, options.relay_port),
    )
    try:
        store(places.fleet, key, reply.certificate, reply.authority, group)
        _write_settings(options, reply, f"{bracketed}:{port}", group)
        if options.systemd:
            install_units(places, options.account)
    except OSError as error:
        raise JoinError(
            f"{error.filename or places.config}: {error.strerror}; the host has joined as"
            f" {reply.name}, but is not set up: mend this and join with --again and another token"
        ) from error
    return reply.name


def _check_writable(places: HostPlaces) -> None:
    """See that nothing stands in the way before the token is used up."""
    for path in (places.config, places.state):
        try:
            if not path.is_dir():
                path.mkdir(parents=True)
                path.chmod(0o755)  # the relay's account finds its own files in it
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "cannot be written by this account")
        except OSError as error:
            raise JoinError(f"{path}: {error.strerror}") from error


def _service_group(account: str) -> int | None:
    """Return the group of the relay's account; None where all runs as this one.

    Raises:
        JoinError: There is no such account.
    """
    if os.geteuid() != 0:
        return None
    try:
        return pwd.getpwnam(account).pw_gid
    except KeyError:
        raise JoinError(
            f"the relay needs the system account {account!r}; make it with `useradd"
            " --system --user-group --no-create-home --shell /usr/sbin/nologin"
            f" {account}`"
        ) from None


def _check_units(account: str) -> None:
    try:
        check_units(account)
    except OSError as error:
        raise JoinError(f"{error.filename}: {error.strerror}") from error


def _own_address(host: str, port: int) -> str:
    """Return this machine's address on the way to the hub."""
    try:
        [*_, (family, _, _, _, there)] = socket.getaddrinfo(host, port, type=socket.SOCK_DGRAM)
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect(there)
            found = str(probe.getsockname()[0])
    except OSError as error:
        raise JoinError(f"{host}: {error.strerror}; say --address yourself") from error
    return found


def _write_settings(
    options: JoinOptions, reply: JoinReply, hub_url: str, group: int | None
) -> None:
    places, files, relay_key = options.places, options.places.fleet, new_key()
    bound = "[::]" if ":" in (options.address or "") else "0.0.0.0"
    fleet = {
        "fleet_ca": str(files.ca),
        "fleet_cert": str(files.cert),
        "fleet_key": str(files.key),
    }
    agent: dict[str, Any] = {
        "name": reply.name,
        "listen": f"{bound}:{options.agent_port}",
        "key": reply.hub_key,
        "hub_url": hub_url,
        "hub_key": reply.agent_key,
        "state_dir": str(places.state / "agent"),
        "run_dir": str(places.run),
        "relay": places.relay_control,
        "relay_key": relay_key,
        "labels": options.labels,
        **fleet,
    }
    if options.homes:
        agent["homes"] = options.homes
    if group is not None:
        agent["socket_group"] = grp.getgrgid(group).gr_name
    relay = {
        "mode": "relay",
        "bind": f"{bound}:{options.relay_port}",
        "base_url": reply.base_url,
        "control_listen": places.relay_control,
        "control_key": relay_key,
        "state_dir": str(places.state / "relay"),
        **fleet,
    }
    state = places.state / "relay"
    state.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(places.agent_settings, _toml("agent", agent), mode=0o600)
    write_atomically(places.relay_settings, _toml("proxy", relay), mode=0o600)
    if group is not None:
        account = pwd.getpwnam(options.account)
        os.chown(state, account.pw_uid, group)
        os.chown(places.relay_settings, 0, group)
        places.relay_settings.chmod(0o640)


def _toml(table: str, values: dict[str, Any]) -> bytes:
    lines = [
        "# Written by `carrel-agent join`. `carrel-agent --generate-config` explains each setting.",
        f"[{table}]",
    ]
    for name, value in values.items():
        if isinstance(value, dict):
            inner = ", ".join(f"{json.dumps(k)} = {json.dumps(v)}" for k, v in value.items())
            lines.append(f"{name} = {{{inner}}}")
        else:
            lines.append(f"{name} = {json.dumps(value)}")
    return ("\n".join(lines) + "\n").encode()


def advice(options: JoinOptions, name: str) -> str:
    """Return what to do next, for the operator."""
    places = options.places
    if options.systemd:
        return f"this host is {name}; carrel-agent and carrel-relay are running"
    python = Path(sys.executable)
    return (
        f"this host is {name}. Run both, and have them started at boot (or use --systemd):\n"
        f"  {python} -I -m carrel_agent --config {places.agent_settings} keeper\n"
        f"  {python} -I -m carrel_proxy --config {places.relay_settings}"
        + ("" if os.geteuid() else f"   # as the account {options.account}")
    )
