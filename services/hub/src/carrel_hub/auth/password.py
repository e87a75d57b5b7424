"""Signing in with a password: counted, checked, judged by the rules, then a session."""

from dataclasses import dataclass

import structlog

from carrel_hub.auth.authenticators import WRONG, Checked, check
from carrel_hub.auth.names import InvalidNameError, normalise_name
from carrel_hub.auth.rate_limit import Attempt, begin_attempt, forgive, strike_out
from carrel_hub.auth.rules import Known, admit
from carrel_hub.auth.sessions import NewSession, begin_session
from carrel_hub.auth.shared_passwords import mark_of
from carrel_hub.auth.signing import Signer
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.errors import UnavailableError
from carrel_hub.events import record, user_actor
from carrel_hub.groups.store import join_group
from carrel_hub.users.accounts import find_user, get_or_create_user

log = structlog.get_logger(__name__)

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


@dataclass(frozen=True, slots=True)
class Proven:
    """Somebody whose name and password belong together, and whom the rules let in.

    Attributes:
        user: None for nobody; then the rest says what to answer.
        status, message, wait_seconds: As in `SignIn`.
    """

    user: User | None = None
    status: int = 403
    message: str = ""
    wait_seconds: int = 0


async def sign_in(
    hub: Hub, signer: Signer, *, typed_name: str, password: str, address: str
) -> SignIn:
    """Sign somebody in by name and password.

    Args:
        typed_name: As typed.
        address: Where the browser is, for counting.
    """
    proven, session = await _prove(hub, typed_name, password, address, signer=signer)
    return SignIn(proven.user, session, proven.status, proven.message, proven.wait_seconds)


async def prove(hub: Hub, *, typed_name: str, password: str, address: str) -> Proven:
    """Return who gave the right password, and is let in, without signing a browser in."""
    return (await _prove(hub, typed_name, password, address, signer=None))[0]


async def _prove(
    hub: Hub, typed_name: str, password: str, address: str, *, signer: Signer | None
) -> tuple[Proven, NewSession | None]:
    """Check, count and judge one attempt.

    The check is made for every well-formed name, known or not, so that the time of the answer
    tells nobody which names exist. No transaction is held meanwhile.
    """
    settings = hub.settings.auth
    if not settings.checks_passwords:
        return Proven(message=SWITCHED_OFF), None
    try:
        name = normalise_name(typed_name)
    except InvalidNameError:
        name = ""
    async with hub.database.write() as db:
        attempt = await begin_attempt(db, settings, address=address, name=name, now=hub.clock.now())
    if attempt.id is None:
        log.warning("sign_in_too_many", address=address)
        message = (
            "There were too many attempts from here or for this name. Please wait"
            f" {_in_words(attempt.wait_seconds)} and try again."
        )
        return Proven(status=429, message=message, wait_seconds=attempt.wait_seconds), None
    if not name:
        return Proven(message=WRONG), None
    try:
        checked = await check(settings, name, password)
    except UnavailableError as error:
        async with hub.database.write() as db:
            await strike_out(db, attempt)
        return Proven(status=503, message=error.message), None
    if not checked.ok:
        log.info("sign_in_refused", name=name[:64], address=address, reason=checked.reason)
        return Proven(message=checked.message or WRONG), None
    mark = mark_of(signer, settings, password) if signer is not None else ""
    return await _admit(
        hub, signer, attempt, typed=name, checked=checked, address=address, mark=mark
    )


async def _admit(
    hub: Hub,
    signer: Signer | None,
    attempt: Attempt,
    *,
    typed: str,
    checked: Checked,
    address: str,
    mark: str,
) -> tuple[Proven, NewSession | None]:
    now = hub.clock.now()
    session = None
    try:
        name = hub.settings.auth.name_of(typed)
    except InvalidNameError as error:
        return Proven(message=f"Your password is right, but {error}."), None
    async with hub.database.write() as db:
        await forgive(db, attempt, address=address, name=typed)
        row = await find_user(db, name)
        known = (
            Known(
                exists=True,
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
            return Proven(message=admission.reason), None
        user = await get_or_create_user(
            db,
            name,
            at=now,
            account=checked.account,
            admin=admission.admin,
            actor=user_actor(name),
        )
        if checked.group is not None:
            await join_group(db, user, checked.group, at=now)
        if signer is not None:
            session = await begin_session(db, hub, signer, user, how="password", password_mark=mark)
    log.info("password_accepted", user=name, address=address, signed_in=signer is not None)
    return Proven(user), session


def _in_words(seconds: int) -> str:
    if seconds < 90:
        return f"{seconds} seconds"
    return f"{-(-seconds // 60)} minutes"
