"""Signing a browser in to a server, with the hub as authorization server."""

import asyncio
import hashlib
import secrets
from dataclasses import replace

import structlog

from carrel_proxy.access.hub import Hub
from carrel_proxy.access.verdicts import Verdicts
from carrel_proxy.core.access import token_hash
from carrel_proxy.core.answers import Answer, Fields, Reason, Trouble, redirect, trouble_answer
from carrel_proxy.core.cookies import SESSION_COOKIE, count_cookies, set_cookie, single_cookie
from carrel_proxy.core.door import Door
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.signin import (
    ATTEMPT_SECONDS,
    FLOW_SECONDS,
    MAX_ATTEMPTS,
    Flow,
    authorize_location,
    decode_flow,
    encode_flow,
    next_below,
    read_callback,
)
from carrel_proxy.core.troubles import SIGN_IN_LOOP, SIGN_IN_LOST, SIGN_IN_REFUSED, trouble_of
from carrel_proxy.errors import CodeRefusedError, HubAwayError, ProxyError
from carrel_shared.clock import Clock
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.access import CodeRedemption, RedeemedToken

log = structlog.get_logger(__name__)

REPEAT_SECONDS = 10.0
"""How long the answer to a code is kept. Somebody who reloads while it is on its way sends the code
again, and to the hub that would look like a stolen one."""


class SignIn:
    """Begins, finishes and ends sign-ins. All state is in the browser's cookies."""

    def __init__(self, hub: Hub, verdicts: Verdicts, clock: Clock, tasks: TaskOwner) -> None:
        self._hub = hub
        self._verdicts = verdicts
        self._clock = clock
        self._tasks = tasks
        self._redeemed: dict[bytes, asyncio.Task[RedeemedToken | ProxyError]] = {}

    async def begin(self, head: RequestHead, door: Door, below: bytes, *, https: bool) -> Answer:
        """Send a browser to the hub for a code.

        Args:
            below: What it asked for below the prefix, as received.

        Raises:
            HubAwayError: If nobody would answer it there.
        """
        attempts = self._attempts(head, door)
        if attempts >= MAX_ATTEMPTS:
            log.warning("sign_in_loop", server_id=door.access.server_id)
            return trouble_answer(SIGN_IN_LOOP, page=True, fields=_forget(door, https=https))
        await self._hub.check_reachable()
        wanted = next_below(door.prefix + below.decode("latin-1"), door.prefix)
        flow = Flow(secrets.token_hex(16), secrets.token_urlsafe(32), wanted)
        secure = door.is_secure(https=https)
        cookies = (
            set_cookie(
                door.state_cookie(flow.state),
                encode_flow(flow),
                path=door.callback_path,
                max_age=FLOW_SECONDS,
                secure=secure,
            ),
            set_cookie(
                door.attempts_cookie.decode("ascii"),
                str(attempts + 1),
                path=door.cookie_path,
                max_age=ATTEMPT_SECONDS,
                secure=secure,
            ),
        )
        location = authorize_location(door, flow)
        fields = tuple((b"Set-Cookie", value) for value in cookies)
        return redirect(location.encode("ascii"), fields=fields, reason=Reason.SIGN_IN)

    async def finish(self, head: RequestHead, door: Door, *, https: bool) -> Answer | None:
        """Answer the callback: exchange the code for a token, keep that in the browser's cookie.

        Returns:
            None when this browser has not begun the sign-in, or has finished it before.
        """
        callback = read_callback(head.target.partition(b"?")[2])
        flow = self._flow(head, door, callback.state)
        if flow is None:
            return None
        secure = door.is_secure(https=https)
        state = door.state_cookie(flow.state)
        done = set_cookie(state, "", path=door.callback_path, max_age=0, secure=secure)
        fields: Fields = ((b"Set-Cookie", done),)
        session = single_cookie(head.special.get(b"cookie", ()), SESSION_COOKIE)
        if callback.error or not callback.code or not (session or door.own_host):
            return trouble_answer(_again(SIGN_IN_REFUSED, door), page=True, fields=fields)
        asked = CodeRedemption(
            client_id=door.access.client_id,
            server_id=door.access.server_id,
            redirect_uri=door.redirect_uri,
            code=callback.code,
            code_verifier=flow.verifier,
            # Where nobody else can have set the cookie of this sign-in, that is proof enough; and
            # a session cookie for several hosts could have been joined by another of the same name.
            session_id=None if door.own_host or session is None else session.decode("latin-1"),
        )
        try:
            token = await self._redeem(asked)
        except CodeRefusedError:
            log.info("sign_in_refused", server_id=door.access.server_id)
            return trouble_answer(_again(SIGN_IN_REFUSED, door), page=True, fields=fields)
        except HubAwayError as error:
            return trouble_answer(trouble_of(error), page=True)
        lifetime = int((token.expires_at - self._clock.now()).total_seconds())
        kept = set_cookie(
            door.session_cookie.decode("ascii"),
            token.token,
            path=door.cookie_path,
            max_age=max(lifetime, 0),
            secure=secure,
        )
        where = next_below(flow.next_path, door.prefix).encode("ascii")
        return redirect(where, fields=(*fields, (b"Set-Cookie", kept)), reason=Reason.SIGN_IN)

    async def _redeem(self, asked: CodeRedemption) -> RedeemedToken:
        """Exchange a code, once: the same question from the same browser gets the same answer.

        Raises:
            CodeRefusedError: If the hub does not take it.
            HubAwayError: If there is no answer that could be used.
        """
        key = hashlib.sha256(asked.model_dump_json().encode()).digest()
        task = self._redeemed.get(key)
        if task is None:
            task = self._redeemed[key] = self._tasks.start(self._redeem_now(asked), name="redeem")
            task.add_done_callback(lambda done: self._forget_later(key, done))
        outcome = await asyncio.shield(task)
        if isinstance(outcome, ProxyError):
            raise outcome
        return outcome

    async def _redeem_now(self, asked: CodeRedemption) -> RedeemedToken | ProxyError:
        serial = self._verdicts.serial
        try:
            token = await self._hub.redeem(asked)
        except ProxyError as error:
            return error
        key = (token_hash(token.token.encode("latin-1")), asked.server_id)
        self._verdicts.put(key, token.verdict, serial)
        return token

    def _forget_later(self, key: bytes, done: "asyncio.Task[RedeemedToken | ProxyError]") -> None:
        if done.cancelled() or isinstance(done.result(), HubAwayError):
            self._redeemed.pop(key, None)  # it may be asked again
        else:
            asyncio.get_running_loop().call_later(REPEAT_SECONDS, self._redeemed.pop, key, None)

    def leave(self, door: Door, *, https: bool) -> Answer:
        """Take the browser's cookie for this server, and go on to the hub's sign-out."""
        where = f"{door.hub}logout".encode("ascii")
        return redirect(where, fields=_forget(door, https=https), reason=Reason.SIGN_OUT)

    def _attempts(self, head: RequestHead, door: Door) -> int:
        values = head.special.get(b"cookie", [])
        if count_cookies(values, door.attempts_cookie) > 1:
            return MAX_ATTEMPTS
        value = single_cookie(values, door.attempts_cookie)
        return int(value) if value is not None and value.isdigit() and len(value) < 3 else 0

    def _flow(self, head: RequestHead, door: Door, state: str) -> Flow | None:
        """Return the sign-in that a callback belongs to, if this browser began it."""
        if not state.isascii() or not state.isalnum():
            return None
        name = door.state_cookie(state).encode("ascii")
        value = single_cookie(head.special.get(b"cookie", ()), name)
        flow = decode_flow(value) if value is not None else None
        if flow is None or not secrets.compare_digest(flow.state.encode(), state.encode()):
            return None
        return flow


def lost(door: Door) -> Answer:
    """Return the page that says that a sign-in cannot be finished."""
    return trouble_answer(_again(SIGN_IN_LOST, door), page=True)


def _forget(door: Door, *, https: bool) -> Fields:
    return tuple(
        (
            b"Set-Cookie",
            set_cookie(
                name.decode("ascii"),
                "",
                path=door.cookie_path,
                max_age=0,
                secure=door.is_secure(https=https),
            ),
        )
        for name in (door.session_cookie, door.attempts_cookie)
    )


def _again(trouble: Trouble, door: Door) -> Trouble:
    return replace(trouble, action=(door.prefix, "Open the server"))
