"""Who makes a request: a token, else the browser's sign-in, else nobody.

`current_subject` is for the API, `page_subject` for pages. Both remember whom they found for a
moment (`auth.known`).
"""

from dataclasses import dataclass, field
from enum import StrEnum

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request

from carrel_hub.auth import xsrf
from carrel_hub.auth.activity import note_use
from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.credentials import authorization_token
from carrel_hub.auth.digest import digest
from carrel_hub.auth.rights import owner_rights, token_rights
from carrel_hub.auth.rules import is_blocked
from carrel_hub.auth.sessions import find_session, login_secret
from carrel_hub.auth.signing import Signer, signer_for
from carrel_hub.context import Hub
from carrel_hub.db.models import BrowserSession, Service, Token, User
from carrel_hub.errors import ForbiddenError
from carrel_hub.events import service_actor, user_actor
from carrel_hub.rbac import NO_MEMBERS, Members
from carrel_hub.rbac.decisions import NO_CREDENTIALS


class SubjectKind(StrEnum):
    """By what a subject is known."""

    TOKEN = "token"  # noqa: S105 - a word, not a secret
    COOKIE = "cookie"
    PASSWORD = "password"  # noqa: S105 - a word, not a secret
    ANONYMOUS = "anonymous"


@dataclass(frozen=True, slots=True)
class Subject:
    """Whoever makes a request.

    Attributes:
        kind: By what it is known.
        user: Whose token or session it is; None for nobody, and for a service.
        service: The service whose token it is.
        token: The token, when `kind` is `token`.
        session: The browser session, when `kind` is `cookie`.
        scopes: Everything it may do, expanded.
        members: Who is in the groups that `scopes` name.
    """

    kind: SubjectKind
    user: User | None = None
    service: Service | None = None
    token: Token | None = None
    session: BrowserSession | None = None
    scopes: frozenset[str] = frozenset()
    members: Members = field(default_factory=lambda: NO_MEMBERS)

    @property
    def is_anonymous(self) -> bool:
        return self.user is None and self.service is None

    @property
    def name(self) -> str:
        """The name of the user or the service; empty for nobody."""
        owner = self.user or self.service
        return owner.name if owner else ""

    @property
    def actor(self) -> str:
        """Who this is in the history."""
        if self.service is not None:
            return service_actor(self.service.name)
        return user_actor(self.name)

    def is_user(self, name: str) -> bool:
        """Whether this is the user of that name; a service of the same name is somebody else."""
        return self.user is not None and self.user.name == name


ANONYMOUS = Subject(SubjectKind.ANONYMOUS)


async def current_subject(request: Request) -> Subject:
    """Return who calls the API (a FastAPI dependency).

    A token that is unknown does not fail: the browser's sign-in is looked at next. A call that a
    cookie vouches for must come from a page of ours. Who sends a body slowly is judged by what
    holds once it is here: it must not change anything with rights that were taken away meanwhile.

    Raises:
        ForbiddenError: The token against forged requests is missing or wrong.
    """
    if request.method not in xsrf.READING:
        await request.body()
    return await subject_at_once(request)


async def subject_at_once(request: Request) -> Subject:
    """Return the same without waiting for the body, for what changes nothing.

    Raises:
        ForbiddenError: As `current_subject`.
    """
    found: Subject | None = getattr(request.state, "api_subject", None)
    if found is None:
        found = await subject_by_token(request) or await _api_cookie_subject(request)
        request.state.api_subject = found
    return found


async def require_somebody(request: Request) -> Subject:
    """Return who calls the API, refusing nobody (a FastAPI dependency).

    Raises:
        ForbiddenError: Nobody is asking, or see `current_subject`.
    """
    subject = await current_subject(request)
    if subject.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
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
    hub, token_hash = hub_of(request), digest(secret)

    async def load(db: AsyncSession) -> Subject | None:
        found = await look_up_token(db, token_hash)
        return None if found is None else await token_subject(db, hub, *found)

    subject: Subject | None = await hub.known.find(token_hash, load)
    if subject is None or subject.token is None:
        return None
    owner = subject.user or subject.service
    if owner is None or not is_good(hub, subject.token, owner):
        return None
    await note_use(hub, subject.token, owner)
    return subject


async def token_subject(db: AsyncSession, hub: Hub, token: Token, owner: User | Service) -> Subject:
    """Return whoever acts with a token that is good."""
    rights = await token_rights(db, hub, token, owner)
    return Subject(
        SubjectKind.TOKEN,
        user=owner if isinstance(owner, User) else None,
        service=owner if isinstance(owner, Service) else None,
        token=token,
        scopes=rights.scopes,
        members=rights.members,
    )


async def find_token(
    db: AsyncSession, hub: Hub, token_hash: str
) -> tuple[Token, User | Service] | None:
    """Return a token that is good now, with its owner. A disabled owner has none."""
    found = await look_up_token(db, token_hash)
    return found if found is not None and is_good(hub, *found) else None


async def look_up_token(db: AsyncSession, token_hash: str) -> tuple[Token, User | Service] | None:
    """Return a token with its owner, whether it is good or not."""
    row = (
        await db.exec(
            select(Token, User, Service)
            .join(User, col(User.id) == col(Token.user_id), isouter=True)
            .join(Service, col(Service.id) == col(Token.service_id), isouter=True)
            .where(Token.token_hash == token_hash)
        )
    ).first()
    if row is None:
        return None
    token, user, service = row
    owner = user or service
    return None if owner is None else (token, owner)


def is_good(hub: Hub, token: Token, owner: User | Service) -> bool:
    """Whether a token counts: its owner may act at all, and its time is not over."""
    if isinstance(owner, User) and is_refused(hub, owner):
        return False
    return token.expires_at is None or token.expires_at > hub.clock.now()


def is_refused(hub: Hub, user: User) -> bool:
    """Whether a user is refused everywhere."""
    return user.disabled or is_blocked(hub.settings.auth, user.name)


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
    secret_hash = digest(secret)

    async def load(db: AsyncSession) -> Subject | None:
        found = await find_session(db, secret_hash)
        return None if found is None else await _session_subject(db, hub, *found)

    subject: Subject | None = await hub.known.find(secret_hash, load)
    if subject is None or subject.session is None or subject.user is None:
        return ANONYMOUS
    if subject.session.expires_at <= hub.clock.now() or is_refused(hub, subject.user):
        return ANONYMOUS
    return subject


async def _session_subject(
    db: AsyncSession, hub: Hub, session: BrowserSession, user: User
) -> Subject:
    rights = await owner_rights(db, hub, user)
    return Subject(
        SubjectKind.COOKIE, user, session=session, scopes=rights.scopes, members=rights.members
    )


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
    said = (headers.get(f"sec-fetch-{what}") for what in ("mode", "site", "dest"))
    if xsrf.api_call_needs_token(request.method, *said):
        xsrf.check(
            request,
            hub_signer(hub_of(request)),
            xsrf_binding(request, subject),
            xsrf.sent_token(request),
        )
    return subject
