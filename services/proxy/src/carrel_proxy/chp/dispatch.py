"""What becomes of a request when the routes are those of the REST API."""

from time import perf_counter
from typing import TYPE_CHECKING

import structlog

from carrel_proxy.chp.exchange import ChpExchange
from carrel_proxy.chp.forward import Rules, request_for
from carrel_proxy.chp.metrics import Metrics
from carrel_proxy.chp.pages import ErrorPages
from carrel_proxy.chp.table import ChpRoute, ChpTable
from carrel_proxy.core.answers import CHP_HEALTH_PATH, health_answer
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.head import RequestHead
from carrel_proxy.core.redaction import shown, shown_address
from carrel_proxy.core.sites import host_name
from carrel_proxy.core.troubles import NOT_FOUND
from carrel_proxy.core.websocket import Upgrade, requested_upgrade
from carrel_proxy.engine.access_log import MOST_PATH, MOST_TEXT

if TYPE_CHECKING:
    from carrel_proxy.engine.client import ClientConnection

log = structlog.get_logger(__name__)


class ChpDispatcher:
    """Decides for all connections."""

    def __init__(
        self,
        table: ChpTable,
        rules: Rules,
        pages: ErrorPages,
        metrics: Metrics,
        *,
        host_routing: bool = False,
    ) -> None:
        self.table = table
        self.rules = rules
        self.pages = pages
        self.metrics = metrics
        self._host_routing = host_routing

    def dispatch(
        self,
        client: "ClientConnection",
        head: RequestHead,
        body: RequestBody | None,
        pending: bytes,
    ) -> None:
        """Let a request go its way.

        Raises:
            BadRequestError: If its path or its upgrade could be read in two ways.
        """
        websocket = b"upgrade" in head.special and requested_upgrade(head) is Upgrade.WEBSOCKET
        if head.target == CHP_HEALTH_PATH and (health := health_answer(head.target)) is not None:
            client.answer_at_once(head, body, health)
            return
        metrics = self.metrics
        if websocket:
            metrics.requests_ws += 1
        else:
            metrics.requests_web += 1
        if client.edge.timings > 0:
            began = perf_counter()
            route = self.match(head)
            metrics.find_target_for_req.observe(perf_counter() - began)
        else:
            route = self.match(head)
        exchange = ChpExchange(
            self,
            client,
            head,
            body,
            route or self.table.nowhere,
            websocket=websocket,
            pending=pending,
        )
        client.exchange = exchange
        client.waiting()
        if route is None or route.target is None:
            log.warning(
                "no_route",
                method=shown(head.method, 20),
                host=shown(head.host, MOST_TEXT),
                path=shown_address(head.target, MOST_PATH),
            )
            exchange.tell(NOT_FOUND)
            return
        if pending:
            route.active_at = client.edge.deadlines.now  # a body has begun to arrive
        depth = route.depth - (1 if self._host_routing and route.depth else 0)
        exchange.forward(
            request_for(head, route.target, depth, client, self.rules, websocket=websocket)
        )

    def match(self, head: RequestHead) -> ChpRoute | None:
        """Return the most specific route, by the host first where that is set."""
        path = head.target.partition(b"?")[0]
        if self._host_routing:
            path = b"/" + host_name(head.host) + path
        return self.table.trie.match(path)
