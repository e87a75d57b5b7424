"""The few answers the proxy gives itself: pages and JSON about what is wrong, redirects, health."""

import json
from dataclasses import dataclass, replace
from enum import StrEnum
from http import HTTPStatus

from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.pages import PAGE_POLICY, error_page

Fields = tuple[tuple[bytes, bytes], ...]

HEALTH_PATH = b"/_carrel/health"
CHP_HEALTH_PATH = b"/_chp_healthz"

_NO_STORE = (b"Cache-Control", b"no-store")
_NO_SNIFF = (b"X-Content-Type-Options", b"nosniff")


class Reason(StrEnum):
    """Why the proxy answers by itself: for counters and the log, so names stay what they are."""

    BAD_RESPONSE = "bad_response"
    CAPPED = "capped"
    CROSS_SITE = "cross_site"
    FAILED = "failed"
    HEALTH = "health"
    HUB_AWAY = "hub_away"
    NO_RESPONSE = "no_response"
    NOT_ALLOWED = "not_allowed"
    NOT_FOUND = "not_found"
    NOT_SIGNED_IN = "not_signed_in"
    OTHER = "other"
    OTHER_HOST = "other_host"
    REDIRECT = "redirect"
    REFUSED = "refused"
    """The request is malformed, too large, or could be read in two ways."""
    SIGN_IN = "sign_in"
    SIGN_IN_FAILED = "sign_in_failed"
    SIGN_OUT = "sign_out"
    TARGET_AWAY = "target_away"
    TOO_SLOW = "too_slow"
    WRONG_PEER = "wrong_peer"


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole response.

    Attributes:
        fields: Names and values, without those that frame the body.
        told: What the body says, if that is about something wrong.
    """

    status: int
    fields: Fields = ()
    body: bytes = b""
    reason: Reason = Reason.OTHER
    told: "Told | None" = None

    def naming(self, request_id: bytes) -> "Answer":
        """Return this answer with the id in it by which the log is searched, if it has a place."""
        if self.told is None or not request_id:
            return self
        return replace(self, body=self.told.body(request_id.decode("ascii")))


@dataclass(frozen=True, slots=True)
class Trouble:
    """Something to tell a person or a program.

    Attributes:
        title: For the page, a few words.
        message: What is wrong and what to do, in plain words.
        retry_after: Seconds after which it may work.
        action: Path and words of a link that helps.
    """

    status: int
    title: str
    message: str
    retry_after: int | None = None
    action: tuple[str, str] | None = None
    reason: Reason = Reason.OTHER


def is_navigation(head: RequestHead) -> bool:
    """Whether a person waits for a page: browsers say so; of others, a GET that wants HTML."""
    mode = head.value(b"sec-fetch-mode")
    if mode is not None:
        return mode.lower() == b"navigate"
    accept = head.value(b"accept") or b""
    return head.method == b"GET" and b"text/html" in accept.lower()


@dataclass(frozen=True, slots=True)
class Told:
    """A trouble in words.

    Attributes:
        page: For people; else JSON for programs.
    """

    trouble: Trouble
    page: bool

    def body(self, request_id: str = "") -> bytes:
        """Return the words, with the id that an administrator can search the log for."""
        trouble = self.trouble
        if self.page:
            return error_page(
                trouble.status, trouble.title, trouble.message, trouble.action, request_id
            )
        said = {"status": trouble.status, "message": trouble.message}
        if request_id:
            said["request_id"] = request_id
        return json.dumps(said).encode()


def trouble_answer(trouble: Trouble, *, page: bool, fields: Fields = ()) -> Answer:
    """Return a page for people, JSON for programs."""
    extra = [_NO_STORE, _NO_SNIFF, *fields]
    if trouble.retry_after is not None:
        extra.append((b"Retry-After", b"%d" % trouble.retry_after))
    kind: Fields = ((b"Content-Type", b"application/json"),)
    if page:
        kind = (
            (b"Content-Type", b"text/html; charset=utf-8"),
            (b"Content-Security-Policy", PAGE_POLICY),
            (b"Referrer-Policy", b"no-referrer"),
        )
    told = Told(trouble, page)
    return Answer(trouble.status, (*kind, *extra), told.body(), trouble.reason, told)


def redirect(
    location: bytes,
    *,
    status: int = 302,
    fields: Fields = (),
    reason: Reason = Reason.REDIRECT,
) -> Answer:
    """Return a redirect that is not cached."""
    return Answer(status, ((b"Location", location), _NO_STORE, *fields), b"", reason)


def health_answer(target: bytes, *, draining: bool = False) -> Answer | None:
    """Return the answer to a health check, None for any other path.

    Args:
        draining: Whoever spreads people over several proxies is to leave this one out.
    """
    if draining and target in (HEALTH_PATH, CHP_HEALTH_PATH):
        fields = ((b"Content-Type", b"application/json"), _NO_STORE)
        return Answer(503, fields, b'{"status":"draining"}', Reason.HEALTH)
    if target == HEALTH_PATH:
        body = b'{"status":"ok"}'
    elif target == CHP_HEALTH_PATH:
        body = b'{"status":"OK"}'
    else:
        return None
    fields = ((b"Content-Type", b"application/json"), _NO_STORE)
    return Answer(200, fields, body, Reason.HEALTH)


def answer_bytes(answer: Answer, *, keep_alive: bool, head_only: bool = False) -> bytes:
    """Return an answer as it goes over the wire."""
    try:
        reason = HTTPStatus(answer.status).phrase.encode("ascii")
    except ValueError:
        reason = b""
    lines = [b"HTTP/1.1 %d %b" % (answer.status, reason)]
    lines += [b"%b: %b" % field for field in answer.fields]
    lines.append(b"Content-Length: %d" % len(answer.body))
    if not keep_alive:
        lines.append(b"Connection: close")
    return b"\r\n".join(lines) + b"\r\n\r\n" + (b"" if head_only else answer.body)
