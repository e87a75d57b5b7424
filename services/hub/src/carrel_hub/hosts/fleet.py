"""The authority that all hubs on a database share, and this hub's own certificates under it."""

import asyncio
from pathlib import Path

import structlog
from sqlmodel import delete, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.signing import forget_former, former_signers, signer_for
from carrel_hub.context import Hub
from carrel_hub.db.engine import Database
from carrel_hub.db.models import JoinToken, Replica
from carrel_hub.db.models.fleet import THE_ONE, FleetAuthority
from carrel_hub.events import CONSOLE_ACTOR, HUB_ACTOR, record
from carrel_hub.hosts.authority import Authority, new_authority, past_half_life
from carrel_hub.hosts.earlier_files import read_earlier, set_aside
from carrel_hub.hosts.opened import AuthorityError
from carrel_hub.hosts.places import fleet_directory, own_files
from carrel_hub.hosts.sealing import AuthorityKeys, UnsealError, seal, unseal
from carrel_hub.replicas import alive
from carrel_hub.settings import HubSettings
from carrel_shared.clock import Clock
from carrel_shared.files import write_atomically
from carrel_shared.fleet import RenewedContext

log = structlog.get_logger(__name__)

LOOK_SECONDS = 3600.0

SUBJECT = "fleet"
"""What events about the authority are about."""


async def open_authority(hub: Hub, *, make: bool) -> None:
    """Open the authority of the database; writers follow one another, so there never are two.

    Args:
        make: Have one, and take the one in `STATE/fleet` over, if there is none.

    Raises:
        AuthorityError: It cannot be used.
    """
    state_dir = hub.settings.state_dir
    if not make:
        async with hub.database.read() as session:
            there = await session.get(FleetAuthority, THE_ONE) is not None
        if not there:
            forget_former(state_dir)
            return
    directory = fleet_directory(state_dir)
    earlier = read_earlier(directory)
    async with hub.database.write() as session:
        row = await session.get(FleetAuthority, THE_ONE)
        if row is None:
            keys = await _keep(session, hub, earlier)
        else:
            _refuse_another(row, earlier, directory)
            keys = await _unsealed(session, hub, row)
        authority = _used(keys, directory if keys == earlier else None)
    hub.fleet.open(authority)
    try:
        set_aside(directory)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(own_files(state_dir).ca, authority.certificate.encode(), mode=0o600)
    except OSError as error:
        raise AuthorityError(f"{directory}: {error.strerror}") from error
    forget_former(state_dir)


async def _keep(session: AsyncSession, hub: Hub, earlier: AuthorityKeys | None) -> AuthorityKeys:
    """Put the first authority into the database."""
    now = hub.clock.now()
    keys = earlier or new_authority(now)
    sealed = seal(signer_for(hub.settings.state_dir), keys)
    session.add(FleetAuthority(certificate=keys.certificate, sealed=sealed, created=now))
    kind = "fleet.authority_created" if earlier is None else "fleet.authority_taken_over"
    record(session, kind, HUB_ACTOR, SUBJECT, at=now)
    log.info(kind)
    return keys


async def _unsealed(session: AsyncSession, hub: Hub, row: FleetAuthority) -> AuthorityKeys:
    """Open a row, and seal it anew if that took a former signing key."""
    signer = signer_for(hub.settings.state_dir)
    for one in (signer, *former_signers(hub.settings.state_dir, _former(hub.settings))):
        try:
            keys = unseal(one, row.certificate, row.sealed)
        except UnsealError:
            continue
        if one is not signer:
            await _refuse_others(session, hub)
            row.sealed = seal(signer, keys)
            session.add(row)
            record(session, "fleet.sealed_anew", HUB_ACTOR, SUBJECT, at=hub.clock.now())
            log.info("fleet.sealed_anew")
        return keys
    place = (
        "hub.signing_key" if hub.settings.signing_key else f"{hub.settings.state_dir}/cookie.key"
    )
    raise AuthorityError(
        f"the fleet's authority in the database is sealed with another signing key than {place}:"
        " set that back, or say in hub.former_signing_key what it was before. If that is lost:"
        " `carrel-hub db forget-fleet`, after which every host has to join anew"
    )


async def _refuse_others(session: AsyncSession, hub: Hub) -> None:
    """Change nothing under a hub that runs with the former key: one of the two is wrong."""
    others = select(Replica.id).where(alive(hub.database))
    if not hub.database.is_sqlite and (await session.exec(others)).first() is not None:
        raise AuthorityError(
            "another hub runs on this database with another hub.signing_key: give all the same, or"
            " stop that one first"
        )


async def forget_authority(database: Database, clock: Clock) -> bool:
    """Have the hubs make a new authority when they start; return whether there was one.

    Raises:
        AuthorityError: A hub runs on the database.
    """
    async with database.write() as session:
        if not database.is_sqlite:
            running = (await session.exec(select(Replica).where(alive(database)))).first()
            if running is not None:
                raise AuthorityError("a hub runs on this database; stop it first")
        row = await session.get(FleetAuthority, THE_ONE)
        if row is None:
            return False
        await session.delete(row)
        await session.exec(delete(JoinToken))
        record(session, "fleet.authority_forgotten", CONSOLE_ACTOR, SUBJECT, at=clock.now())
    return True


def _refuse_another(row: FleetAuthority, earlier: AuthorityKeys | None, directory: Path) -> None:
    if earlier is not None and earlier.certificate != row.certificate:
        raise AuthorityError(
            f"{directory} holds another authority than the database, and there can be one only:"
            " move it away; hosts that joined under it have to join anew"
        )


def _used(keys: AuthorityKeys, directory: Path | None) -> Authority:
    try:
        return Authority(keys)
    except AuthorityError as error:
        where, way = "the fleet's authority in the database", "run `carrel-hub db forget-fleet`"
        if directory is not None:
            where, way = str(directory), "remove it"
        raise AuthorityError(
            f"{where}: {error}; restore a backup, or {way} and have every host join anew"
        ) from error


def _former(settings: HubSettings) -> str | None:
    former = settings.former_signing_key
    return None if former is None else former.get_secret_value()


def renew_own(authority: Authority, state_dir: Path, clock: Clock) -> bool:
    """Make or renew this hub's and its edges' certificates; return whether there are new ones.

    Raises:
        OSError: They cannot be written.
    """
    fresh = False
    for name in ("hub", "edge"):
        path = own_files(state_dir, name).cert
        pem = path.read_bytes() if path.exists() else b""
        if not authority.has_signed(pem) or past_half_life(pem, clock.now()):
            authority.sign_own(path.parent, name, clock.now())
            log.info("certificate_issued", file=str(path))
            fresh = True
    return fresh


async def keep_certificates(hub: Hub, listening: RenewedContext) -> None:
    """Renew them at half their lives, for as long as the hub runs."""
    while True:
        await asyncio.sleep(LOOK_SECONDS)
        try:
            authority, state_dir = hub.fleet.authority, hub.settings.state_dir
            if await asyncio.to_thread(renew_own, authority, state_dir, hub.clock):
                listening.renew()
        except Exception as error:
            log.error("certificate_not_renewed", reason=str(error))
