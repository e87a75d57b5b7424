"""Who may pass a guarded route: what a request shows, and what follows from the hub's verdicts."""

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime
from enum import Enum, auto
from typing import Literal

from carrel_proxy.core.cookies import single_cookie
from carrel_proxy.core.head import RequestHead
from carrel_shared.wire.access import Verdict, Visitor

Via = Literal["cookie", "token"]

LEAST_SECONDS = 10.0
"""How long a yes counts at least: the hub says by itself when it ends, so not each request asks."""

MAX_TOKEN = 256
"""Longer texts are no token of the hub's, and are not asked about."""

_AUTHORIZATION = re.compile(rb"(?:token|bearer) +([\x21-\x7e]+)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows, as SHA-256 (hex); each may be missing.

    Attributes:
        header: A token in `Authorization`, which may as well be the application's own.
        query: A token in the query of a WebSocket handshake, where browsers cannot set headers.
        cookie: The token of a browser that signed in to this server.
    """

    header: str | None = None
    query: str | None = None
    cookie: str | None = None


NO_CREDENTIALS = Credentials()


class Standing(Enum):
    """What a verdict from a while ago is worth."""

    USE = auto()
    REFRESH = auto()
    """It still counts, and is to be asked for again meanwhile."""
    ASK = auto()
    """It does not count before it was asked for again."""


@dataclass(frozen=True, slots=True)
class Allowed:
    """The request passes, on this token."""

    token_hash: str
    via: Via


@dataclass(frozen=True, slots=True)
class Ask:
    """The hub must be asked about this token first."""

    token_hash: str


class Refused(Enum):
    """The request does not pass."""

    NOBODY = auto()
    """It shows nothing that counts: whoever it is may sign in."""
    NOT_ALLOWED = auto()
    """Its token is good, and not for this server."""
    ELSEWHERE = auto()
    """A page of another origin made the browser send it."""


Decision = Allowed | Ask | Refused


def token_hash(token: bytes) -> str:
    """Return what the hub knows a token by."""
    return hashlib.sha256(token).hexdigest()


def credentials(head: RequestHead, session_cookie: bytes, *, websocket: bool) -> Credentials:
    """Return what a request shows for a server.

    Args:
        session_cookie: The name of the cookie with the browser's token for that server.
    """
    if websocket and b"token=" in head.target:
        return replace(_shown(head, session_cookie), query=_query_token(head.target))
    key = ("shown", session_cookie)
    shown: Credentials | None = head.derived.get(key)
    if shown is None:
        shown = head.remember(key, _shown(head, session_cookie))
    return shown


def _query_token(target: bytes) -> str | None:
    token, _ = split_query_token(target)
    return None if token is None else token_hash(token)


def _shown(head: RequestHead, session_cookie: bytes) -> Credentials:
    special = head.special
    header = cookie = None
    if b"authorization" in special:
        values = special[b"authorization"]
        match = _AUTHORIZATION.fullmatch(values[0]) if len(values) == 1 else None
        if match is not None and len(match.group(1)) <= MAX_TOKEN:
            header = token_hash(match.group(1))
    if b"cookie" in special:
        value = single_cookie(special[b"cookie"], session_cookie)
        if value and len(value) <= MAX_TOKEN:
            cookie = token_hash(value)
    return Credentials(header=header, cookie=cookie)


def split_query_token(target: bytes) -> tuple[bytes | None, bytes]:
    """Return the single `token` of a query, and the target without it."""
    path, mark, query = target.partition(b"?")
    if b"token=" not in query:
        return None, target
    pairs = query.split(b"&")
    tokens = [pair[6:] for pair in pairs if pair.startswith(b"token=")]
    if len(tokens) != 1 or not 0 < len(tokens[0]) <= MAX_TOKEN:
        return None, target
    rest = b"&".join(pair for pair in pairs if not pair.startswith(b"token="))
    return tokens[0], path + mark + rest if rest else path


def decide(shown: Credentials, verdict_of: Callable[[str], Verdict | None]) -> Decision:
    """Return whether a request passes.

    Args:
        verdict_of: The verdict on a token for this server; None when it is not known.
    """
    for token in (shown.header, shown.query):
        if token is None:
            continue
        verdict = verdict_of(token)
        if verdict is None:
            return Ask(token)
        if verdict.known:
            return Allowed(token, "token") if verdict.allow else Refused.NOT_ALLOWED
    if shown.cookie is not None:
        verdict = verdict_of(shown.cookie)
        if verdict is None:
            return Ask(shown.cookie)
        if verdict.known and verdict.allow:
            return Allowed(shown.cookie, "cookie")
    return Refused.NOBODY


@dataclass(frozen=True, slots=True)
class Freshness:
    """How long verdicts count, in seconds.

    Attributes:
        refresh: After this a yes is asked for again while it still counts.
        stale: After this it no longer counts unless the hub says it again.
        negative: How long a no counts.
    """

    refresh: float = 60
    stale: float = 900
    negative: float = 2


def freshness_of(stale: float) -> Freshness:
    """Return how long verdicts count when nobody need be asked for `stale` seconds."""
    return Freshness(refresh=min(60.0, max(stale, LEAST_SECONDS)), stale=stale)


def standing(
    verdict: Verdict, age: float, now: datetime, freshness: Freshness, *, recheck: bool
) -> Standing:
    """Return what a verdict is worth.

    Args:
        age: Seconds since the hub said it.
        now: For the token's own end, which nothing outlives.
        recheck: Something happened since that may have changed it.
    """
    if recheck:
        return Standing.ASK
    if not (verdict.known and verdict.allow):
        return Standing.USE if age <= freshness.negative else Standing.ASK
    if verdict.expires_at is not None and now >= verdict.expires_at:
        return Standing.ASK
    if age <= freshness.refresh:
        return Standing.USE
    return Standing.REFRESH if age <= freshness.stale else Standing.ASK


def identity_fields(visitor: Visitor, via: Via) -> bytes:
    """Return the lines that tell a server who its visitor is. ASCII whatever the name is."""
    user = json.dumps(visitor.model_dump(), separators=(",", ":"))
    return b"X-Carrel-User: %b\r\nX-Carrel-Auth: %b\r\n" % (user.encode("ascii"), via.encode())
