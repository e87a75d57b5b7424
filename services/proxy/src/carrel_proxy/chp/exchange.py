"""A request in progress, as configurable-http-proxy would end it."""

from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from carrel_proxy.chp.forward import rewritten_location
from carrel_proxy.chp.table import ChpRoute
from carrel_proxy.core.answers import Answer, Trouble, is_navigation
from carrel_proxy.core.body import RequestBody
from carrel_proxy.core.fields import field_values, without_fields
from carrel_proxy.core.head import RequestHead, ResponseHead
from carrel_proxy.engine.deadlines import NEVER
from carrel_proxy.engine.exchange import Exchange

if TYPE_CHECKING:
    from carrel_proxy.chp.dispatch import ChpDispatcher
    from carrel_proxy.engine.client import ClientConnection

log = structlog.get_logger(__name__)

_AWAY = frozenset((502, 504))


class ChpExchange(Exchange):
    """Errors have their pages, redirects are rewritten, statuses counted."""

    __slots__ = ("_asked", "_chp", "_client_host", "_requested", "_target")

    def __init__(
        self,
        chp: "ChpDispatcher",
        client: "ClientConnection",
        head: RequestHead,
        body: RequestBody | None,
        route: ChpRoute,
        *,
        websocket: bool,
        pending: bytes,
    ) -> None:
        super().__init__(client, head, body, route, websocket=websocket, pending=pending)
        self._chp = chp
        self._asked = False
        self._client_host = head.host
        self._requested = head.target
        self._target = route.target

    def _begin_response(self, head: ResponseHead, data: bytes) -> None:
        self._chp.metrics.proxied[head.status] += 1
        target = self._target
        rules = self._chp.rules
        if target is not None and (rules.auto_rewrite or rules.protocol_rewrite):
            locations = field_values(head.plain, b"location")
            plain = without_fields(head.plain, (b"location",))
            for value in locations:
                plain += b"\r\nLocation: " + rewritten_location(
                    value, head.status, self._client_host, target, rules
                )
            head = replace(head, plain=plain, openings=None)
        super()._begin_response(head, data)

    def _switch(self, head: ResponseHead, data: bytes) -> None:
        super()._switch(head, data)
        self._chp.metrics.proxied[head.status] += 1

    def answer(self, answer: Answer) -> None:
        if not self.over:
            self._chp.metrics.proxied[answer.status] += 1
        super().answer(answer)

    def tell(self, trouble: Trouble) -> None:
        """End with the page that is set for this error, which may have to be asked for first."""
        if self._asked:
            return
        if trouble.status in _AWAY:
            trouble = replace(trouble, status=503)
        pages = self._chp.pages
        if self.websocket:
            self.answer(Answer(trouble.status))
        elif not pages.asks:
            self.answer(pages.at_once(trouble, navigation=is_navigation(self.head)))
        else:
            self._asked = True
            upstream, self._upstream = self._upstream, None
            if upstream is not None:
                upstream.release(reusable=False)
            self.client.deadline = NEVER
            self.client.edge.tasks.start(self._ask(trouble), name="error-page")

    def timed_out(self) -> None:
        """What took too long ends; a handshake has all the time that it needs, as in the original:
        servers hold it back while a kernel starts."""
        if self.websocket and not self.answered:
            self.client.deadline = NEVER
        else:
            super().timed_out()

    async def _ask(self, trouble: Trouble) -> None:
        try:
            answer = await self._chp.pages.ask(
                trouble, self._requested, navigation=is_navigation(self.head)
            )
        except Exception:
            log.exception("error_page_failed")
            answer = Answer(trouble.status)
        self.answer(answer)
