"""What becomes of a request that an edge has let pass: it goes to its socket, and that is all."""

from typing import TYPE_CHECKING

from carrel_proxy.core.answers import Answer
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.headers import Onward, request_bytes
from carrel_proxy.core.sites import Sites
from carrel_proxy.core.trouble_words import AWAY, TROUBLE_FIELD, word_of
from carrel_proxy.core.websocket import Upgrade, requested_upgrade
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.engine.routes import LiveRoute
from carrel_proxy.errors import BadRequestError, ProxyError

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection

_BELIEVED = tuple(
    (name.lower(), name)
    for name in (
        b"X-Forwarded-For",
        b"X-Forwarded-Proto",
        b"X-Forwarded-Host",
        b"X-Forwarded-Port",
        b"X-Request-Id",
        b"X-Carrel-Secret",
        b"X-Carrel-User",
        b"X-Carrel-Auth",
    )
)
"""What an edge says of its client. It has removed whatever the client said of itself."""


class RelayExchange(Exchange):
    """A request whose troubles are told to the edge, in a word."""

    __slots__ = ()

    def fail(self, error: ProxyError) -> None:
        if self.over or self.answered or isinstance(error, BadRequestError):
            super().fail(error)
            return
        self.answer(_trouble(error.status, word_of(error)))


class RelayDispatcher:
    """Decides for all connections of a relay.

    Attributes:
        routes: What is in force; the table replaces it.
    """

    def __init__(self) -> None:
        self.routes: Sites[LiveRoute] = Sites()

    def dispatch(
        self,
        client: "ClientConnection",
        head: RequestHead,
        body: RequestBody | None,
        pending: bytes,
    ) -> None:
        """Hand a request to the socket of its route.

        Raises:
            BadRequestError: If its path or its upgrade could be read in two ways.
        """
        websocket = b"upgrade" in head.special and requested_upgrade(head) is Upgrade.WEBSOCKET
        route = self.routes.match(head.host, head.target.partition(b"?")[0])
        if route is None:
            client.answer_at_once(head, body, _trouble(503, AWAY))
            return
        if not route.awake:
            route.wake()
        exchange = RelayExchange(client, head, body, route, websocket=websocket, pending=pending)
        client.exchange = exchange
        client.waiting()
        onward = Onward(head.target, _believed(head))
        exchange.forward(request_bytes(head, onward, websocket=websocket))


def _believed(head: RequestHead) -> bytes:
    special = head.special
    return b"".join(
        b"%b: %b\r\n" % (name, special[key][0]) for key, name in _BELIEVED if key in special
    )


def _trouble(status: int, word: bytes) -> Answer:
    return Answer(status, ((TROUBLE_FIELD, word),))
