"""The proxy as the OAuth client of a server (RFC 6749 4.1, PKCE by RFC 7636). Pure.

All that a sign-in under way needs to know is in a cookie of the browser, at the callback's path: so
any worker of any proxy can finish it, and nobody can start more of them than they have cookies.
"""

import base64
import hashlib
import json
import re
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, urlencode

from carrel_proxy.core.door import Door
from carrel_proxy.core.paths import climbs

FLOW_SECONDS = 600
MAX_NEXT = 1500
MAX_ATTEMPTS = 4
"""Sign-ins that a browser may begin within `ATTEMPT_SECONDS` before it is told what is wrong."""
ATTEMPT_SECONDS = 60

_SAFE_REST = re.compile(r"[\x21-\x5b\x5d-\x7e]*")  # a backslash is left out: browsers turn it


@dataclass(frozen=True, slots=True)
class Flow:
    """One sign-in under way.

    Attributes:
        state: Random; returns with the code (RFC 6749 10.12).
        verifier: Random; only its SHA-256 goes through the hub first (RFC 7636).
        next_path: Where the browser wanted to go, below the server's prefix.
    """

    state: str
    verifier: str = field(repr=False)
    next_path: str


@dataclass(frozen=True, slots=True)
class Callback:
    """What the hub sent the browser back with."""

    state: str = ""
    code: str = field(default="", repr=False)
    error: str = ""


def encode_flow(flow: Flow) -> str:
    """Return a flow as a cookie's value."""
    data = json.dumps([flow.state, flow.verifier, flow.next_path], separators=(",", ":"))
    return base64.urlsafe_b64encode(data.encode()).decode("ascii").rstrip("=")


def decode_flow(value: bytes) -> Flow | None:
    """Return the flow in a cookie, or None if it holds none. Its next path is not to be trusted."""
    try:
        data = json.loads(base64.urlsafe_b64decode(value + b"=" * (-len(value) % 4)))
    except (ValueError, RecursionError):
        return None
    if (
        isinstance(data, list)
        and len(data) == 3
        and all(isinstance(part, str) for part in data)
        and data[0]
    ):
        return Flow(*data)
    return None


def next_below(path: str, prefix: str) -> str:
    """Return `path` if it lies below `prefix` and can only be read as a path, else the prefix."""
    if not (path.startswith(prefix) and len(path) <= MAX_NEXT and _SAFE_REST.fullmatch(path)):
        return prefix
    rest = re.split("[?#]", path.removeprefix(prefix), maxsplit=1)[0].encode("ascii")
    return prefix if climbs(rest.split(b"/")) else path


def authorize_location(door: Door, flow: Flow) -> str:
    """Return where a browser asks the hub for a code."""
    digest = hashlib.sha256(flow.verifier.encode("ascii")).digest()
    challenge = base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")
    query = urlencode(
        {
            "client_id": door.access.client_id,
            "redirect_uri": door.redirect_uri,
            "response_type": "code",
            "state": flow.state,
            "code_challenge": challenge,
            "code_challenge_method": "S256",
        }
    )
    return f"{door.hub}api/oauth2/authorize?{query}"


def read_callback(query: bytes) -> Callback:
    """Return what a callback's query says. What is said twice counts as not said."""
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return Callback()
    names = [name for name, _ in pairs]
    values = {name: value for name, value in pairs if names.count(name) == 1}
    return Callback(values.get("state", ""), values.get("code", ""), values.get("error", ""))
