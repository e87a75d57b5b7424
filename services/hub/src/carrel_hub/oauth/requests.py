"""What an authorization request asks for, and whether it is one (RFC 6749 4.1.1). Pure."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from carrel_hub.oauth.pkce import PLAIN, S256

PARAMETERS = (
    "client_id",
    "redirect_uri",
    "response_type",
    "state",
    "scope",
    "code_challenge",
    "code_challenge_method",
)
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
_ANY_CHALLENGE = re.compile(r"[A-Za-z0-9._~-]{1,128}")
"""Of clients that need none: how much theirs is worth is their own affair, as with JupyterHub."""
MAX_STATE = 2048


class ClientProblemError(Exception):
    """Whoever sent the browser here cannot be told about it: the person must be (4.1.2.1)."""


@dataclass(frozen=True, slots=True)
class AuthorizeRequest:
    """The parameters of a request, each at most once."""

    client_id: str
    redirect_uri: str | None
    response_type: str | None
    state: str | None
    scope: str | None
    code_challenge: str | None
    code_challenge_method: str | None


@dataclass(frozen=True, slots=True)
class Problem:
    """An error that the client is told of, by sending the browser back to it (4.1.2.1)."""

    error: str
    description: str


def read_request(pairs: Sequence[tuple[str, str]]) -> AuthorizeRequest:
    """Read the query of an authorization request.

    Raises:
        ClientProblemError: A parameter is there twice, or no client is named.
    """
    values: dict[str, str] = {}
    for name, value in pairs:
        if name in PARAMETERS:
            if name in values:
                raise ClientProblemError(f"The parameter {name} is there twice.")
            values[name] = value
    if not values.get("client_id"):
        raise ClientProblemError("The request does not say what it is for.")
    return AuthorizeRequest(
        client_id=values["client_id"],
        redirect_uri=values.get("redirect_uri"),
        response_type=values.get("response_type"),
        state=values.get("state"),
        scope=values.get("scope"),
        code_challenge=values.get("code_challenge"),
        code_challenge_method=values.get("code_challenge_method"),
    )


def checked_redirect(request: AuthorizeRequest, registered: str) -> str:
    """Return where the answer goes: exactly the registered address, or that by default.

    Raises:
        ClientProblemError: It is any other.
    """
    if request.redirect_uri is None or request.redirect_uri == registered:
        return registered
    raise ClientProblemError("The request wants its answer sent to an address that is not its own.")


def find_problem(
    request: AuthorizeRequest, *, strict: bool, challenge_needed: bool = False
) -> Problem | None:
    """Return what is wrong with a request whose client and address are right.

    Args:
        strict: The client is the proxy: without a challenge by S256 it is not.
        challenge_needed: The settings want one of every client.
    """
    if request.response_type is None:
        return Problem("invalid_request", "response_type is missing")
    if request.response_type != "code":
        return Problem("unsupported_response_type", "only response_type=code is answered")
    if request.state is not None and len(request.state) > MAX_STATE:
        return Problem("invalid_request", "state is too long")
    if not request.code_challenge:
        if strict or challenge_needed:
            return Problem("invalid_request", "code_challenge is needed (RFC 7636)")
        return None
    return _problem_of_challenge(request, strict=strict)


def challenge_method(request: AuthorizeRequest) -> str:
    """Return how the challenge was made; one that does not say so is plain (RFC 7636 4.3)."""
    return PLAIN if request.code_challenge_method is None else request.code_challenge_method


def _problem_of_challenge(request: AuthorizeRequest, *, strict: bool) -> Problem | None:
    method, challenge = challenge_method(request), request.code_challenge or ""
    if method not in ((S256,) if strict else (S256, PLAIN)):
        return Problem("invalid_request", "code_challenge_method must be S256")
    good = (_CHALLENGE if strict else _ANY_CHALLENGE).fullmatch(challenge)
    return None if good else Problem("invalid_request", "code_challenge has a wrong form")


def with_answer(redirect_uri: str, state: str | None, **values: str) -> str:
    """Return the address that takes an answer to the client, with its `state` as it was."""
    if state is not None:
        values["state"] = state
    joint = "&" if "?" in redirect_uri else "?"
    return f"{redirect_uri}{joint}{urlencode(values)}"
