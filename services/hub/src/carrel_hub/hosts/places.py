"""Where a hub keeps its authority and its own certificates."""

from pathlib import Path

from carrel_shared.fleet import FleetFiles


def fleet_directory(state_dir: Path) -> Path:
    """Return where the authority and the hub's own certificates are kept."""
    return state_dir / "fleet"


def own_files(state_dir: Path, name: str = "hub") -> FleetFiles:
    """Return the files by which hosts know this hub, or relays its edges (`edge`)."""
    directory = fleet_directory(state_dir)
    pair = directory / f"{name}.pem"
    return FleetFiles(directory / "ca.pem", pair, pair)
