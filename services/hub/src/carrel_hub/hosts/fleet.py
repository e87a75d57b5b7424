"""This hub among the machines: its authority, and certificates that are renewed in time."""

import asyncio
import functools
from pathlib import Path

import structlog

from carrel_hub.hosts.authority import Authority, past_half_life
from carrel_hub.hosts.places import fleet_directory, own_files
from carrel_shared.clock import Clock, SystemClock
from carrel_shared.fleet import RenewedContext

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3600.0


@functools.cache
def authority_of(state_dir: Path) -> Authority:
    """Return the authority of a hub's state directory, read once a process.

    Raises:
        AuthorityError: It cannot be used.
    """
    return Authority.open(fleet_directory(state_dir), SystemClock().now())


def renew_own(state_dir: Path, clock: Clock) -> bool:
    """Make or renew this hub's and its edges' certificates; return whether there are new ones.

    Raises:
        AuthorityError: The authority cannot be used.
        OSError: They cannot be written.
    """
    authority, fresh = authority_of(state_dir), False
    for name in ("hub", "edge"):
        path = own_files(state_dir, name).cert
        if not path.exists() or past_half_life(path.read_bytes(), clock.now()):
            authority.sign_own(path.parent, name, clock.now())
            log.info("certificate_issued", file=str(path))
            fresh = True
    return fresh


async def keep_certificates(state_dir: Path, clock: Clock, listening: RenewedContext) -> None:
    """Renew them at half their lives, for as long as the hub runs."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            if await asyncio.to_thread(renew_own, state_dir, clock):
                listening.renew()
        except Exception as error:
            log.error("certificate_not_renewed", reason=str(error))
