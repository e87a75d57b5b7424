"""What proxies ask: to redeem a browser's code, and whether a token opens a server."""

import structlog
from starlette.requests import Request

from carrel_hub.auth.browser import hub_of
from carrel_hub.errors import ForbiddenError
from carrel_hub.late_routes import LateRouter
from carrel_hub.oauth.clients import client_of_server
from carrel_hub.oauth.codes import Redeeming, is_known, redeem_code
from carrel_hub.oauth.verdicts import give_verdict, verdict_for
from carrel_shared.wire.access import CodeRedemption, RedeemedToken, Verdict, VerdictRequest

router = LateRouter(prefix="/internal/v1/access")
log = structlog.get_logger(__name__)


def require_proxy(request: Request) -> None:
    """Refuse everybody but proxies.

    Raises:
        ForbiddenError: It is another service.
    """
    caller = str(request.scope.get("state", {}).get("caller", ""))
    if not caller.startswith("proxy:"):
        raise ForbiddenError(f"the key of {caller!r} does not open this: it is for proxies")


@router.post("/redeem")
async def redeem(body: CodeRedemption, request: Request) -> RedeemedToken:
    """Exchange a code for a token for one browser and one server."""
    require_proxy(request)
    hub = hub_of(request)
    async with hub.database.read() as db:
        if not await is_known(db, body.code):
            raise _refused(body, "no such code")
    async with hub.database.write() as db:
        client = await client_of_server(db, hub.settings.places, body.server_id)
        if client is not None and (not client.is_proxys or client.client_id != body.client_id):
            client = None
        outcome = await redeem_code(
            db,
            hub,
            Redeeming(
                client, body.redirect_uri, body.code, body.code_verifier, session_id=body.session_id
            ),
        )
    # Only now: a code stays used, and what was issued for it ended, whatever is answered.
    if outcome.token is None or outcome.user is None:
        await hub.wakeups.notify()
        raise _refused(body, outcome.refusal)
    row = outcome.token.row
    assert row.expires_at is not None  # noqa: S101 - these always end
    return RedeemedToken(
        token=outcome.token.secret,
        expires_at=row.expires_at,
        verdict=verdict_for(row, outcome.user, allow=True),
    )


def _refused(body: CodeRedemption, reason: str) -> ForbiddenError:
    log.warning("code_refused", client_id=body.client_id, reason=reason)
    return ForbiddenError(f"the code cannot be redeemed: {reason}")


@router.post("/verdict")
async def verdict(body: VerdictRequest, request: Request) -> Verdict:
    """Say whether the bearer of a token may use a server."""
    require_proxy(request)
    hub = hub_of(request)
    async with hub.database.read() as db:
        return await give_verdict(db, hub, body.token_hash, body.server_id)
