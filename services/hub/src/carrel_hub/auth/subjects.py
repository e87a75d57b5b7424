"""Who makes a request: a token, else the browser's sign-in, else nobody.

`current_subject` is for the API, `page_subject` for pages. Both read the database once a request.
"""

from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from carrel_hub.auth import xsrf
from carrel_hub.auth.activity import note_use
from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.credentials import authorization_token
from carrel_hub.auth.digest import digest
from carrel_hub.auth.sessions import find_session, login_secret
from carrel_hub.auth.signing import Signer, signer_for
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, Token, User
from carrel_hub.errors import ForbiddenError
from carrel_hub.groups.membership import members_for
from carrel_hub.rbac import NO_MEMBERS, Members, owner_scopes, token_scopes
from carrel_hub.rbac.decisions import NO_CREDENTIALS


class SubjectKind(StrEnum):
    """By what a subject is known."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    COOKIE = "cookie"
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever makes a request.

    Attributes:
        kind: By what it is known.
        user: Whose token or session it is; None for nobody.
        token: The token, when `kind` is `token`.
        session: The browser session, when `kind` is `cookie`.
        scopes: Everything it may do, expanded.
        members: Who is in the groups that `scopes` name.
    """

    kind: SubjectKind
    user: User | None = None
    token: Token | None = None
    session: BrowserSession | None = None
    scopes: frozenset[str] = frozenset()
    members: Members = field(default_factory=lambda: NO_MEMBERS)

    @property
    def is_anonymous(self) -> bool:
        return self.user is None

    @property
    def name(self) -> str:
        """The user's name; empty for nobody."""
        return self.user.name if self.user else ""

    def require_user(self) -> User:
        """Return the user.

        Raises:
            ForbiddenError: Nobody is asking.
        """
        if self.user is None:
            raise ForbiddenError(NO_CREDENTIALS)
        return self.user


ANONYMOUS = Subject(SubjectKind.ANONYMOUS)


async def current_subject(request: Request) -> Subject:
    """Return who calls the API (a FastAPI dependency).

    A token that is unknown does not fail: the browser's sign-in is looked at next. A call that a
    cookie vouches for must come from a page of ours.

    Raises:
        ForbiddenError: The token against forged requests is missing or wrong.
    """
    found: Subject | None = getattr(request.state, "api_subject", None)
    if found is None:
        found = await subject_by_token(request) or await _api_cookie_subject(request)
        request.state.api_subject = found
    return found


async def require_user(request: Request) -> Subject:
    """Return who calls the API, refusing nobody (a FastAPI dependency).

    Raises:
        ForbiddenError: Nobody is asking, or see `current_subject`.
    """
    subject = await current_subject(request)
    subject.require_user()
    return subject


async def page_subject(request: Request) -> Subject:
    """Return who is signed in in this browser. Pages take no tokens."""
    found: Subject | None = getattr(request.state, "page_subject", None)
    if found is None:
        found = await _cookie_subject(request)
        request.state.page_subject = found
    return found


async def subject_by_token(request: Request) -> Subject | None:
    """Return whose token a request carries in `Authorization`, or None without a good one."""
    secret = authorization_token(request.headers.get("authorization"))
    if secret is None:
        return None
    hub = hub_of(request)
    async with hub.database.read() as db:
        found = await find_token(db, hub, digest(secret))
        members = NO_MEMBERS if found is None else await members_for(db, found[0].scopes)
    if found is None:
        return None
    token, user = found
    note_use(hub, token, user)
    scopes = scopes_of_token(token, user, members)
    return Subject(SubjectKind.TOKEN, user, token=token, scopes=scopes, members=members)


async def find_token(db: AsyncSession, hub: Hub, token_hash: str) -> tuple[Token, User] | None:
    """Return a token that is good now, with its owner. A disabled owner has none."""
    found = await look_up_token(db, token_hash)
    return found if found is not None and is_good(*found, hub.clock.now()) else None


async def look_up_token(db: AsyncSession, token_hash: str) -> tuple[Token, User] | None:
    """Return a token with its owner, whether it is good or not."""
    row = (
        await db.exec(
            select(Token, User)
            .join(User, col(User.id) == col(Token.user_id))
            .where(Token.token_hash == token_hash)
        )
    ).first()
    return None if row is None else (row[0], row[1])


def is_good(token: Token, user: User, now: datetime) -> bool:
    """Whether a token counts: its owner is not disabled and its time is not over."""
    return not user.disabled and (token.expires_at is None or token.expires_at > now)


def scopes_of_token(token: Token, user: User, members: Members = NO_MEMBERS) -> frozenset[str]:
    """Return what a token may do now.

    Args:
        members: Who is in the groups it names; scopes filtered by others open nothing.
    """
    owner = owner_scopes(user.name, admin=user.admin)
    return token_scopes(token.scopes, owner, name=user.name, members=members)


def hub_signer(hub: Hub) -> Signer:
    """Return what signs the hub's cookies."""
    return signer_for(hub.settings.state_dir)


def xsrf_binding(request: Request, subject: Subject) -> str:
    """Return what tokens against forged requests are made for, in this browser."""
    session = subject.session
    return xsrf.binding(request, session.secret_hash if session else None)


async def _cookie_subject(request: Request) -> Subject:
    hub = hub_of(request)
    secret = login_secret(request, hub_signer(hub))
    if secret is None:
        return ANONYMOUS
    async with hub.database.read() as db:
        found = await find_session(db, digest(secret), now=hub.clock.now())
    if found is None:
        return ANONYMOUS
    session, user = found
    scopes = owner_scopes(user.name, admin=user.admin)
    return Subject(SubjectKind.COOKIE, user, session=session, scopes=scopes)


async def _api_cookie_subject(request: Request) -> Subject:
    content_type = request.headers.get("content-type", "application/json")
    if request.method == "POST" and (
        content_type.partition(";")[0].strip().lower() != "application/json"
    ):
        return ANONYMOUS  # what a form of another site can send is nobody's
    subject = await page_subject(request)
    if subject.is_anonymous:
        return subject
    headers = request.headers
    if xsrf.api_call_needs_token(
        request.method, headers.get("sec-fetch-mode"), headers.get("sec-fetch-site")
    ):
        xsrf.check(
            request,
            hub_signer(hub_of(request)),
            xsrf_binding(request, subject),
            xsrf.sent_token(request),
        )
    return subject
