"""What becomes of a request once its head is read: an answer of our own, a question, or onwards."""

from collections.abc import Coroutine
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import structlog

from carrel_proxy.access.guard import Guard, Passage
from carrel_proxy.access.signin import SignIn, lost
from carrel_proxy.access.verdicts import Grant
from carrel_proxy.core.access import Credentials, Refused, credentials, split_query_token
from carrel_proxy.core.answers import (
    Answer,
    Trouble,
    health_answer,
    is_navigation,
    redirect,
    trouble_answer,
)
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.crosssite import comes_from_elsewhere
from carrel_proxy.core.door import CALLBACK, LOGOUT, Door
from carrel_proxy.core.forwarded import forwarded_fields
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.headers import Onward, kept_fields, request_bytes
from carrel_proxy.core.paths import below
from carrel_proxy.core.sites import Sites
from carrel_proxy.core.troubles import (
    FROM_ELSEWHERE,
    NOT_ALLOWED,
    NOT_FOUND,
    NOT_SIGNED_IN,
    OTHER_HOST,
)
from carrel_proxy.core.websocket import Upgrade, requested_upgrade
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.engine.relayed import RelayedExchange
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.errors import BadRequestError, ProxyError
from carrel_shared.tasks import TaskOwner

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection

log = structlog.get_logger(__name__)


class Dispatcher:
    """Decides for all connections of one proxy; what it needs to know of one is on that.

    Attributes:
        routes: What is in force; the table replaces it.
    """

    def __init__(self, base_url: str, guard: Guard, sign_in: SignIn, tasks: TaskOwner) -> None:
        self.routes: Sites[LiveRoute] = Sites()
        self._base_url = base_url
        self._guard = guard
        self._sign_in = sign_in
        self._tasks = tasks

    def dispatch(
        self,
        client: "ClientConnection",
        head: RequestHead,
        body: RequestBody | None,
        pending: bytes,
    ) -> None:
        """Let a request go its way.

        Args:
            pending: What is to be sent on of its body so far.

        Raises:
            BadRequestError: If its path or its upgrade could be read in two ways.
        """
        websocket = b"upgrade" in head.special and requested_upgrade(head) is Upgrade.WEBSOCKET
        target = head.target
        path = target.partition(b"?")[0]
        if (
            target.startswith(b"/_c")
            and (health := health_answer(target, draining=client.edge.draining)) is not None
        ):
            client.answer_at_once(head, body, health)
            return
        route = self.routes.match(head.host, path)
        if route is None:
            client.answer_at_once(head, body, self._nothing_here(head, path))
            return
        if not route.awake:
            route.wake()
        rest = below(path, route.depth)
        kind = RelayedExchange if route.relayed else Exchange
        exchange = kind(client, head, body, route, websocket=websocket, pending=pending)
        client.exchange = exchange
        client.waiting()
        if rest is None:
            exchange.answer(_with_slash(head, route))
        elif route.door is None:
            onward = Onward(target, _fields(client, head), fence=route.fence)
            exchange.forward(request_bytes(head, onward, websocket=websocket))
        else:
            self._guarded(exchange, route.door, rest)

    def _nothing_here(self, head: RequestHead, path: bytes) -> Answer:
        if path == b"/" and self._base_url != "/" and head.method in (b"GET", b"HEAD"):
            return redirect(self._base_url.encode("ascii"))
        if not self.routes.knows(head.host):
            return trouble_answer(OTHER_HOST, page=is_navigation(head))
        return trouble_answer(NOT_FOUND, page=is_navigation(head))

    def _guarded(self, exchange: Exchange, door: Door, rest: bytes) -> None:
        head = exchange.head
        if rest == LOGOUT:
            https = _is_https(exchange.client, head)
            exchange.answer(self._sign_in.leave(door, https=https))
            return
        if rest == CALLBACK:
            self._later(exchange, self._finish_sign_in(exchange, door))
            return
        known: Passage | None = head.derived.get((exchange.route, head.method))
        if known is not None and not exchange.websocket and self._guard.still_counts(known):
            client = exchange.client
            client.grant = known.grant
            exchange.forward(
                b"%b %b HTTP/1.1%b\r\n%b%b\r\n"
                % (head.method, head.target, known.kept, _fields(client, head), known.added)
            )
            return
        if len(head.special.get(b"authorization", ())) > 1:
            # Neither could be told from the application's own, so one of ours would go on to it.
            exchange.fail(BadRequestError("the Authorization field is sent twice"))
            return
        shown = credentials(head, door.session_cookie, websocket=exchange.websocket)
        outcome = self._guard.check(shown, door.access.server_id)
        if outcome is None:
            self._later(exchange, self._ask(exchange, door, shown, rest))
        else:
            self._decided(exchange, door, shown, rest, outcome)

    def _later(self, exchange: Exchange, work: Coroutine[Any, Any, None]) -> None:
        """Do what takes a while. Whatever comes of it, the client is answered."""
        request_id = exchange.client.request_id.decode("ascii")

        async def answer_in_any_case() -> None:
            with structlog.contextvars.bound_contextvars(request_id=request_id):
                try:
                    await work
                except ProxyError as error:
                    exchange.fail(error)
                except Exception:
                    log.exception("request_failed", prefix=exchange.route.prefix)
                    exchange.fail(ProxyError())

        self._tasks.start(answer_in_any_case(), name="access")

    async def _ask(self, exchange: Exchange, door: Door, shown: Credentials, rest: bytes) -> None:
        outcome = await self._guard.resolve(shown, door.access.server_id)
        if not exchange.over:
            self._decided(exchange, door, shown, rest, outcome)

    async def _begin_sign_in(self, exchange: Exchange, door: Door, rest: bytes) -> None:
        head = exchange.head
        _, mark, query = head.target.partition(b"?")
        https = _is_https(exchange.client, head)
        exchange.answer(await self._sign_in.begin(head, door, rest + mark + query, https=https))

    async def _finish_sign_in(self, exchange: Exchange, door: Door) -> None:
        head = exchange.head
        https = _is_https(exchange.client, head)
        answer = await self._sign_in.finish(head, door, https=https)
        if answer is None:
            shown = credentials(head, door.session_cookie, websocket=False)
            outcome = await self._guard.resolve(shown, door.access.server_id)
            signed_in = isinstance(outcome, Grant)
            answer = redirect(door.prefix.encode("ascii")) if signed_in else lost(door)
        exchange.answer(answer)

    def _decided(
        self,
        exchange: Exchange,
        door: Door,
        shown: Credentials,
        rest: bytes,
        outcome: Grant | Refused,
    ) -> None:
        client, head, route = exchange.client, exchange.head, exchange.route
        if isinstance(outcome, Grant) and outcome.key[0] == shown.cookie and door.checks_origin:
            outcome = _or_elsewhere(exchange, door, outcome)
        if isinstance(outcome, Grant):
            token_hash = outcome.key[0]
            target = head.target
            if token_hash == shown.query:
                _, target = split_query_token(target)
            client.grant = outcome
            added = route.secret_fields + outcome.fields
            ours = token_hash == shown.header
            onward = Onward(target, _fields(client, head) + added, route.fence, ours)
            exchange.forward(request_bytes(head, onward, websocket=exchange.websocket))
            if not exchange.websocket:
                kept = kept_fields(head, onward)
                passage = self._guard.passage(outcome, kept, added)
                head.remember((route, head.method), passage)
        elif outcome is Refused.NOBODY and is_navigation(head) and head.method == b"GET":
            self._later(exchange, self._begin_sign_in(exchange, door, rest))
        else:
            exchange.tell(_refusal(outcome, door))


def _or_elsewhere(exchange: Exchange, door: Door, grant: Grant) -> Grant | Refused:
    """Refuse what a page of another origin sent with somebody's cookie."""
    client, head = exchange.client, exchange.head
    key = ("elsewhere", door.access.origin, head.method, exchange.websocket)
    elsewhere: bool | None = head.derived.get(key)
    if elsewhere is None:
        said = head.value(b"x-forwarded-host") if client.trusted else None
        host = said.split(b",")[0].strip() if said else head.host
        elsewhere = comes_from_elsewhere(
            head,
            door.access.origin.encode("ascii"),
            https=_is_https(client, head),
            host=host,
            websocket=exchange.websocket,
        )
        head.remember(key, elsewhere)
    return Refused.ELSEWHERE if elsewhere else grant


def _refusal(outcome: Refused, door: Door) -> Trouble:
    if outcome is Refused.NOT_ALLOWED:
        return NOT_ALLOWED
    if outcome is Refused.ELSEWHERE:
        return FROM_ELSEWHERE
    return replace(NOT_SIGNED_IN, action=(door.prefix, "Sign in"))


def _fields(client: "ClientConnection", head: RequestHead) -> bytes:
    """Return what the next hop is told of the client. For most it is the same each time."""
    if client.trusted:
        fields = forwarded_fields(
            client.peer, https=client.https, host=head.host, sent=head.special
        )
    else:
        host, fields = client.forwarded
        if host != head.host:
            fields = forwarded_fields(client.peer, https=client.https, host=head.host)
            client.forwarded = (head.host, fields)
    return b"%bX-Request-Id: %b\r\n" % (fields, client.request_id)


def _is_https(client: "ClientConnection", head: RequestHead) -> bool:
    """Whether the browser came over TLS, here or at a proxy before this one."""
    if client.trusted and (claimed := head.special.get(b"x-forwarded-proto")):
        return claimed[0].split(b",")[0].strip().lower() == b"https"
    return client.https


def _with_slash(head: RequestHead, route: LiveRoute) -> Answer:
    """Send to the prefix itself, which needs its last slash for relative links to work."""
    _, mark, query = head.target.partition(b"?")
    status = 302 if head.method in (b"GET", b"HEAD") else 308
    return redirect(route.prefix_bytes + mark + query, status=status)
