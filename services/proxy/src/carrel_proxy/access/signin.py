"""Signing a browser in to a server, with the hub as authorization server."""

import secrets
from dataclasses import replace

import structlog

from carrel_proxy.access.hub import Hub
from carrel_proxy.access.verdicts import Verdicts
from carrel_proxy.core.access import session_cookie, token_hash
from carrel_proxy.core.answers import Answer, Fields, Trouble, redirect, trouble_answer
from carrel_proxy.core.cookies import SESSION_COOKIE, count_cookies, set_cookie, single_cookie
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.signin import (
    ATTEMPT_SECONDS,
    CALLBACK,
    FLOW_SECONDS,
    MAX_ATTEMPTS,
    Flow,
    attempts_cookie,
    authorize_location,
    decode_flow,
    encode_flow,
    next_below,
    read_callback,
    state_cookie,
)
from carrel_proxy.core.troubles import SIGN_IN_LOOP, SIGN_IN_LOST, SIGN_IN_REFUSED, trouble_of
from carrel_proxy.errors import CodeRefusedError, HubAwayError
from carrel_shared.clock import Clock
from carrel_shared.wire.access import CodeRedemption
from carrel_shared.wire.routes import Access

log = structlog.get_logger(__name__)


class SignIn:
    """Begins, finishes and ends sign-ins. All state is in the browser's cookies."""

    def __init__(self, hub: Hub, verdicts: Verdicts, clock: Clock, hub_prefix: str) -> None:
        self._hub = hub
        self._verdicts = verdicts
        self._clock = clock
        self._hub_prefix = hub_prefix

    def begin(
        self, head: RequestHead, access: Access, prefix: str, below: bytes, *, https: bool
    ) -> Answer:
        """Send a browser to the hub for a code.

        Args:
            below: What it asked for below the prefix, as received.
        """
        attempts = self._attempts(head, access.server_id)
        if attempts >= MAX_ATTEMPTS:
            log.warning("sign_in_loop", server_id=access.server_id)
            return trouble_answer(
                SIGN_IN_LOOP, page=True, fields=self._forget(access, prefix, https=https)
            )
        wanted = next_below(prefix + below.decode("latin-1"), prefix)
        flow = Flow(secrets.token_hex(16), secrets.token_urlsafe(32), wanted)
        callback = prefix + CALLBACK.decode("ascii")
        cookies = (
            set_cookie(
                state_cookie(access.server_id, flow.state),
                encode_flow(flow),
                path=callback,
                max_age=FLOW_SECONDS,
                secure=https,
            ),
            set_cookie(
                attempts_cookie(access.server_id),
                str(attempts + 1),
                path=prefix,
                max_age=ATTEMPT_SECONDS,
                secure=https,
            ),
        )
        location = authorize_location(self._hub_prefix, access.client_id, callback, flow)
        return redirect(
            location.encode("ascii"), fields=tuple((b"Set-Cookie", value) for value in cookies)
        )

    async def finish(
        self, head: RequestHead, access: Access, prefix: str, *, https: bool
    ) -> Answer:
        """Answer the callback: exchange the code for a token, keep that in the browser's cookie."""
        callback = read_callback(head.target.partition(b"?")[2])
        flow = self._flow(head, access, callback.state)
        if flow is None:
            return trouble_answer(_again(SIGN_IN_LOST, prefix), page=True)
        done = set_cookie(
            state_cookie(access.server_id, flow.state),
            "",
            path=prefix + CALLBACK.decode("ascii"),
            max_age=0,
            secure=https,
        )
        fields: Fields = ((b"Set-Cookie", done),)
        session = single_cookie(head.special.get(b"cookie", ()), SESSION_COOKIE)
        if callback.error or not callback.code or not session:
            return trouble_answer(_again(SIGN_IN_REFUSED, prefix), page=True, fields=fields)
        serial = self._verdicts.serial
        try:
            token = await self._hub.redeem(
                CodeRedemption(
                    client_id=access.client_id,
                    server_id=access.server_id,
                    redirect_uri=prefix + CALLBACK.decode("ascii"),
                    code=callback.code,
                    code_verifier=flow.verifier,
                    session_id=session.decode("latin-1"),
                )
            )
        except CodeRefusedError:
            log.info("sign_in_refused", server_id=access.server_id)
            return trouble_answer(_again(SIGN_IN_REFUSED, prefix), page=True, fields=fields)
        except HubAwayError as error:
            return trouble_answer(trouble_of(error), page=True)
        key = (token_hash(token.token.encode("latin-1")), access.server_id)
        self._verdicts.put(key, token.verdict, serial)
        lifetime = int((token.expires_at - self._clock.now()).total_seconds())
        kept = set_cookie(
            session_cookie(access.server_id),
            token.token,
            path=prefix,
            max_age=max(lifetime, 0),
            secure=https,
        )
        where = next_below(flow.next_path, prefix).encode("ascii")
        return redirect(where, fields=(*fields, (b"Set-Cookie", kept)))

    def leave(self, access: Access, prefix: str, *, https: bool) -> Answer:
        """Take the browser's cookie for this server, and go on to the hub's sign-out."""
        where = f"{self._hub_prefix}logout".encode("ascii")
        return redirect(where, fields=self._forget(access, prefix, https=https))

    def _forget(self, access: Access, prefix: str, *, https: bool) -> Fields:
        names = (session_cookie(access.server_id), attempts_cookie(access.server_id))
        return tuple(
            (b"Set-Cookie", set_cookie(name, "", path=prefix, max_age=0, secure=https))
            for name in names
        )

    def _attempts(self, head: RequestHead, server_id: str) -> int:
        name = attempts_cookie(server_id).encode("ascii")
        values = head.special.get(b"cookie", [])
        if count_cookies(values, name) > 1:
            return MAX_ATTEMPTS
        value = single_cookie(values, name)
        return int(value) if value is not None and value.isdigit() and len(value) < 3 else 0

    def _flow(self, head: RequestHead, access: Access, state: str) -> Flow | None:
        """Return the sign-in that a callback belongs to, if this browser began it."""
        if not state.isascii() or not state.isalnum():
            return None
        name = state_cookie(access.server_id, state).encode("ascii")
        value = single_cookie(head.special.get(b"cookie", ()), name)
        flow = decode_flow(value) if value is not None else None
        if flow is None or not secrets.compare_digest(flow.state.encode(), state.encode()):
            return None
        return flow


def _again(trouble: Trouble, prefix: str) -> Trouble:
    return replace(trouble, action=(prefix, "Open the server"))
