"""`{hub}api/oauth2/token`: a client exchanges a code for a token (RFC 6749 4.1.3).

Errors have the form of that document (5.2), not of the rest of the API: clients read `error`.
"""

import hmac
from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

import structlog
from fastapi import Request
from fastapi.responses import JSONResponse

from carrel_hub.auth.digest import MAX_SECRET_LENGTH, digest
from carrel_hub.deps import HubDep
from carrel_hub.late_routes import LateRouter
from carrel_hub.oauth.clients import Client, find_client
from carrel_hub.oauth.codes import Redeeming, redeem_code
from carrel_hub.oauth.scopes import as_asked

router = LateRouter()
log = structlog.get_logger(__name__)

_NOT_KEPT = {"Cache-Control": "no-store", "Pragma": "no-cache"}
_UNKNOWN = {"WWW-Authenticate": 'Bearer error="invalid_client"'}
_CODE, _REFRESH = "authorization_code", "refresh_token"
_FORM = "application/x-www-form-urlencoded"
_MOST_FIELDS = 20


class TokenError(Exception):
    """The exchange is refused; `error` is a word of RFC 6749 5.2."""

    def __init__(self, error: str, description: str, *, status: int = 400) -> None:
        super().__init__(description)
        self.error, self.description, self.status = error, description, status


@router.post("/oauth2/token")
async def exchange(request: Request, hub: HubDep) -> JSONResponse:
    """Exchange a code for a token. The client proves itself by its secret in the form."""
    try:
        reply = await _exchange(request, hub)
    except TokenError as error:
        log.warning("token_refused", error=error.error, reason=error.description)
        body = {"error": error.error, "error_description": error.description}
        headers = _NOT_KEPT | (_UNKNOWN if error.status == 401 else {})
        return JSONResponse(body, status_code=error.status, headers=headers)
    return JSONResponse(reply, headers=_NOT_KEPT)


async def _exchange(request: Request, hub: HubDep) -> dict[str, Any]:
    fields = await _fields(request)
    grant = _grant(fields)
    async with hub.database.read() as db:
        client = await find_client(db, hub.settings.places, fields.get("client_id", ""))
    _prove(client, fields.get("client_secret", ""))
    if grant == _REFRESH:
        raise TokenError("unauthorized_client", "there are no refresh tokens")
    asked = Redeeming(
        client,
        fields.get("redirect_uri") or (client.redirect_uri if client else ""),
        fields["code"],
        fields.get("code_verifier", ""),
    )
    async with hub.database.write() as db:
        outcome = await redeem_code(db, hub, asked)
    # Only now: a code stays used whatever is answered.
    if outcome.token is None or outcome.user is None:
        await hub.wakeups.notify()
        raise TokenError(outcome.error, f"the code cannot be redeemed: {outcome.refusal}")
    row = outcome.token.row
    assert row.expires_at is not None  # noqa: S101 - these always end
    minutes = round((row.expires_at - row.created).total_seconds() / 60)
    return {
        "access_token": outcome.token.secret,
        "expires_in": minutes * 60,  # the sign-in that it ends with began a moment ago
        "token_type": "Bearer",
        "scope": " ".join(as_asked(text, outcome.user.name) for text in row.scopes),
    }


def _grant(fields: Mapping[str, str]) -> str:
    """Return the kind of grant. What is none of ours is refused before any secret is looked at."""
    grant = fields.get("grant_type", "")
    if grant not in (_CODE, _REFRESH):
        raise TokenError("unsupported_grant_type", f"only {_CODE} is exchanged")
    if grant == _CODE and "code" not in fields:
        raise TokenError("invalid_request", "code is missing")
    return grant


def _prove(client: Client | None, secret: str) -> None:
    """Refuse whoever is not the client: unknown ones and the proxy's look the same."""
    wanted = client.secret_hash if client is not None else ""
    fits = len(secret) <= MAX_SECRET_LENGTH and hmac.compare_digest(digest(secret), wanted)
    if not wanted or not fits:
        raise TokenError("invalid_client", "the client is not known by this secret", status=401)


async def _fields(request: Request) -> dict[str, str]:
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind not in (_FORM, ""):  # nothing is read of it: no grant either
        raise TokenError("unsupported_grant_type", f"the body must be {_FORM}")
    if request.url.query:
        raise TokenError("invalid_request", "parameters belong into the body")
    try:
        pairs = parse_qsl(
            (await request.body()).decode(),
            keep_blank_values=True,
            max_num_fields=_MOST_FIELDS,
            errors="strict",
        )
    except ValueError:
        raise TokenError("invalid_request", "the body is no form") from None
    if len(dict(pairs)) < len(pairs):
        raise TokenError("invalid_request", "a parameter is there twice")
    return dict(pairs)
