"""Where a host that has joined keeps what: settings, credentials, state."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from carrel_shared.fleet import FleetFiles

SERVICE_ACCOUNT = "carrel"
"""Whom the relay runs as, unless somebody says otherwise, where root joins the host."""


@dataclass(frozen=True, slots=True)
class HostPlaces:
    """Directories of one host.

    Attributes:
        config: Settings: `agent.toml` and `relay.toml`.
        state: What agent and relay keep, each in its own directory, and credentials in `fleet`.
        run: Servers' sockets; a short path.
    """

    config: Path
    state: Path
    run: Path

    @property
    def agent_settings(self) -> Path:
        return self.config / "agent.toml"

    @property
    def relay_settings(self) -> Path:
        return self.config / "relay.toml"

    @property
    def fleet(self) -> FleetFiles:
        """The host's credentials; certificate and key are one file, so that they always match."""
        pair = self.state / "fleet" / "host.pem"
        return FleetFiles(self.state / "fleet" / "ca.pem", pair, pair)

    @property
    def relay_control(self) -> str:
        """Where the agent tells the relay its routes."""
        return f"unix:{self.state / 'relay' / 'control.sock'}"


def usual_places(environ: Mapping[str, str]) -> HostPlaces:
    """Return where things are kept unless somebody says otherwise: root's, or the user's own."""
    if os.geteuid() == 0:
        return HostPlaces(Path("/etc/carrel"), Path("/var/lib/carrel"), Path("/run/carrel"))
    home = Path(environ.get("HOME") or Path.home())
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config") / "carrel"
    state = Path(environ.get("XDG_STATE_HOME") or home / ".local/state") / "carrel"
    runtime = environ.get("XDG_RUNTIME_DIR")
    return HostPlaces(config, state, Path(runtime) / "carrel" if runtime else state / "run")
