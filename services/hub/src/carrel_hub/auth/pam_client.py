"""Asking carrel-pam whether a password is right.

One line of JSON each way over a unix socket that belongs to the hub alone. The hub never sees the
password database, and a module of PAM that hangs is killed over there, not here.
"""

import asyncio
import json
from dataclasses import dataclass

import structlog

from carrel_hub.errors import UnavailableError
from carrel_shared.addresses import AddressError, UnixAddress, parse_address

log = structlog.get_logger(__name__)

DEADLINE_SECONDS = 15.0
"""Longer than carrel-pam gives one attempt, so its own word is heard first."""
MAX_PASSWORD = 1024
MAX_REPLY = 64 * 1024

EXPIRED = "password_expired"
"""The password was right and is too old."""
NOT_CHECKED = ("busy", "timeout", "unavailable")
"""Reasons that say nothing of the password."""

AWAY = (
    "Passwords cannot be checked right now. Please try again in a moment; if it stays so, the"
    " administrator finds the reason in the log of carrel-pam."
)


@dataclass(frozen=True, slots=True)
class PamVerdict:
    """The answer.

    Attributes:
        account: The unix account that the name and password belong to, when `ok`.
        reason: Why not, in carrel-pam's word for it.
    """

    ok: bool
    account: str = ""
    reason: str = ""


async def check_password(
    socket: str, user: str, password: str, *, seconds: float = DEADLINE_SECONDS
) -> PamVerdict:
    """Ask whether a password is right and its account may be used.

    Args:
        socket: Where carrel-pam listens: `unix:/path`.

    Raises:
        UnavailableError: It is away, too slow, too busy, or answers nonsense.
    """
    if not password or len(password) > MAX_PASSWORD or "\0" in password:
        return PamVerdict(False, reason="no password that PAM could be asked about")
    path = _path(socket)
    question = json.dumps({"user": user, "password": password}).encode() + b"\n"
    try:
        async with asyncio.timeout(seconds):
            reader, writer = await asyncio.open_unix_connection(path, limit=MAX_REPLY)
            try:
                writer.write(question)
                await writer.drain()
                line = await reader.readline()
            finally:
                writer.close()
        reply = json.loads(line)
        ok, account, reason = reply["ok"], reply.get("account"), reply.get("reason")
    except (OSError, TimeoutError, ValueError, KeyError, TypeError, AttributeError) as error:
        # The name of the error only: its text could hold what was sent.
        log.error("pam_unavailable", error=type(error).__name__, socket=path)
        raise UnavailableError(AWAY) from None
    if ok is not True and reason in NOT_CHECKED:
        log.error("pam_unavailable", error=reason, socket=path)
        raise UnavailableError(AWAY)
    return PamVerdict(ok is True, str(account or ""), str(reason or "")[:200])


def _path(socket: str) -> str:
    try:
        address = parse_address(socket)
    except AddressError:
        address = None
    if not isinstance(address, UnixAddress):
        log.error("pam_socket_unusable", socket=socket, needed="unix:/path")
        raise UnavailableError(AWAY)
    return address.path
