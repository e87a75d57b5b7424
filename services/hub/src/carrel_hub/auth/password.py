"""Signing in with a password: counted, checked by PAM, judged by the rules, then a session."""

from dataclasses import dataclass

import structlog

from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.auth.pam_client import EXPIRED, check_password
from carrel_hub.auth.rate_limit import Attempt, begin_attempt, forgive, strike_out
from carrel_hub.auth.rules import Known, admit
from carrel_hub.auth.sessions import NewSession, begin_session
from carrel_hub.auth.signing import Signer
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.errors import UnavailableError
from carrel_hub.events import record, user_actor
from carrel_hub.users.accounts import find_user, get_or_create_user

log = structlog.get_logger(__name__)

WRONG = "That user name and password do not belong together. Please try again."
TOO_OLD = (
    "Your password has expired. Change it on the machine itself (the command is “passwd”), then"
    " sign in here with the new one."
)
SWITCHED_OFF = (
    "Nobody signs in with a password here. The person at the console signs in with the link that"
    " “carrel link” prints."
)


@dataclass(frozen=True, slots=True)
class SignIn:
    """What came of it.

    Attributes:
        user: Who is signed in; None when nobody is.
        session: The new session, with `user`.
        status: For the answer to somebody who is not: 403, 429 or 503.
        message: Why, in plain words.
        wait_seconds: When to try again, with 429.
    """

    user: User | None = None
    session: NewSession | None = None
    status: int = 403
    message: str = ""
    wait_seconds: int = 0


async def sign_in(
    hub: Hub, signer: Signer, *, typed_name: str, password: str, address: str
) -> SignIn:
    """Sign somebody in by name and password.

    PAM is asked for every well-formed name, known or not, so that the time of the answer tells
    nobody which names exist. No transaction is held meanwhile.

    Args:
        typed_name: As typed.
        address: Where the browser is, for counting.
    """
    settings = hub.settings.auth
    if settings.authenticator == "none" or settings.pam_socket is None:
        return SignIn(message=SWITCHED_OFF)
    try:
        name = normalise_name(typed_name)
    except InvalidNameError:
        name = ""
    async with hub.database.write() as db:
        attempt = await begin_attempt(db, settings, address=address, name=name, now=hub.clock.now())
    if attempt.id is None:
        log.warning("sign_in_too_many", address=address)
        return SignIn(
            status=429,
            message="There were too many attempts from here or for this name. Please wait"
            f" {_in_words(attempt.wait_seconds)} and try again.",
            wait_seconds=attempt.wait_seconds,
        )
    if not name:
        return SignIn(message=WRONG)
    try:
        verdict = await check_password(settings.pam_socket, name, password)
    except UnavailableError as error:
        async with hub.database.write() as db:
            await strike_out(db, attempt)
        return SignIn(status=503, message=error.message)
    if not verdict.ok:
        log.info("sign_in_refused", name=name[:64], address=address, reason=verdict.reason)
        return SignIn(message=TOO_OLD if verdict.reason == EXPIRED else WRONG)
    if verdict.account != name:
        log.warning("sign_in_account_differs", name=name[:64], account=verdict.account[:64])
        return SignIn(
            message="The password is right, but the system knows this account by another name;"
            " please sign in by that name."
        )
    return await _admit(hub, signer, attempt, name=name, account=verdict.account, address=address)


async def _admit(
    hub: Hub, signer: Signer, attempt: Attempt, *, name: str, account: str, address: str
) -> SignIn:
    now = hub.clock.now()
    async with hub.database.write() as db:
        await forgive(db, attempt, address=address, name=name)
        row = await find_user(db, name)
        known = (
            Known(
                disabled=row.disabled,
                console=row.console,
                hub_only=row.console and row.account is None,
            )
            if row is not None
            else Known()
        )
        admission = admit(hub.settings.auth, name, known)
        if not admission.admitted:
            actor = user_actor(name)
            record(db, "session.refused", actor, actor, at=now, message=admission.reason)
            return SignIn(message=admission.reason)
        user = await get_or_create_user(
            db,
            name,
            at=now,
            account=account,
            admin=admission.admin,
            actor=user_actor(name),
        )
        session = await begin_session(db, hub, signer, user, how="password")
    log.info("signed_in", user=name, how="password", address=address)
    return SignIn(user=user, session=session)


def _in_words(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} seconds"
    return f"{-(-seconds // 60)} minutes"
