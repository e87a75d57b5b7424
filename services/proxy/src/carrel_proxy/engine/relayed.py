"""Requests to servers on other hosts, through the relay of their host."""

from carrel_proxy.core.head import ResponseHead
from carrel_proxy.core.trouble_words import TROUBLE_FIELD, error_of
from carrel_proxy.engine.exchange import Exchange
from carrel_proxy.errors import HostAwayError, ProxyError, TargetAwayError

_FIELD = TROUBLE_FIELD.lower()


class RelayedExchange(Exchange):
    """A request to a server on another host. What its relay says is wrong is told from here."""

    __slots__ = ()

    def _begin_response(self, head: ResponseHead, data: bytes) -> None:
        told = head.special.get(_FIELD)
        if told is None:
            super()._begin_response(head, data)
            return
        upstream, self._upstream = self._upstream, None
        if upstream is not None:
            whole = head.length == 0 and not data and self.request_done
            upstream.release(reusable=whole and head.keep_alive)
        error = error_of(told[0])
        self.route.note_trouble("relay_says", str(error))
        super().fail(error)

    def upstream_lost(self, error: Exception | None) -> None:
        if not self.answered and error is None:
            # A relay that refuses a certificate can only hang up: see `carrel_proxy.relay.gate`.
            error = ConnectionError("the relay hung up; if it refused fleet_cert, its log says so")
        super().upstream_lost(error)

    def fail(self, error: ProxyError) -> None:
        if type(error) is TargetAwayError:  # the relay ended: nobody knows what of the server
            error = HostAwayError(str(error))
        super().fail(error)
