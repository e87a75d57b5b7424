"""How often a password may be guessed: counted by address and by name, in the database.

An attempt is counted before its password is checked and struck out when it was right, so a
thousand at once are a thousand, not one.
"""

import ipaddress
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlmodel import col, delete, func, or_, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.digest import digest
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.db.models import LoginAttempt


@dataclass(frozen=True, slots=True)
class Attempt:
    """The right to check one password, or how long to wait for it.

    Attributes:
        id: Of the counted attempt; None when there were too many.
        wait_seconds: When to try again.
    """

    id: int | None
    wait_seconds: int = 0


def counted_as(address: str) -> str:
    """Return what attempts from an address are counted under.

    Of IPv6 that is its /64: whoever has one address there has all 2**64 of them (RFC 4291 2.5.4).
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    if parsed.version == 4:
        return address
    return str(ipaddress.ip_network((parsed, 64), strict=False))


async def begin_attempt(
    db: AsyncSession, settings: AuthSettings, *, address: str, name: str, now: datetime
) -> Attempt:
    """Count an attempt, unless there were too many from this address or for this name."""
    address = counted_as(address)
    window = timedelta(seconds=settings.failure_window_seconds)
    # Those of the future were made before somebody set the clock back.
    stale = or_(col(LoginAttempt.at) <= now - window, col(LoginAttempt.at) > now + window)
    await db.exec(delete(LoginAttempt).where(stale))
    name_hash = digest(name)
    waits = []
    for mine, most in (
        (LoginAttempt.address == address, settings.max_failures),
        (LoginAttempt.name_hash == name_hash, settings.max_failures_for_name),
    ):
        count, oldest = (
            await db.exec(select(func.count(), func.min(LoginAttempt.at)).where(mine))
        ).one()
        if count >= most and oldest is not None:
            waits.append((oldest + window - now).total_seconds())
    if waits:
        return Attempt(None, wait_seconds=max(int(max(waits)), 0) + 1)
    row = LoginAttempt(at=now, address=address, name_hash=name_hash)
    db.add(row)
    await db.flush()
    return Attempt(row.id)


async def strike_out(db: AsyncSession, attempt: Attempt) -> None:
    """Uncount an attempt that could not be checked, through no fault of who made it."""
    await db.exec(delete(LoginAttempt).where(col(LoginAttempt.id) == attempt.id))


async def forgive(db: AsyncSession, attempt: Attempt, *, address: str, name: str) -> None:
    """Strike an attempt out that was right, and this person's own typing errors before it."""
    await db.exec(
        delete(LoginAttempt).where(
            or_(
                col(LoginAttempt.id) == attempt.id,
                (col(LoginAttempt.address) == counted_as(address))
                & (col(LoginAttempt.name_hash) == digest(name)),
            )
        )
    )
