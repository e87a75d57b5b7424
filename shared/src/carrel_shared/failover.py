"""A client of a service that runs several times: of the hub's replicas, one that answers is asked.

Calls between services can be repeated, so one that was cut off is made again to the next address.
The exception, a call that counts, says so: `extensions={ONCE: True}`.
"""

from collections.abc import Callable, Sequence

import httpx

from carrel_shared.addresses import Address, UnixAddress, http_client, parse_addresses

ONCE = "carrel_once"
"""Of a request that must not reach the service twice."""

_NOT_SENT = (httpx.ConnectError, httpx.ConnectTimeout)
_CUT_OFF = (httpx.ReadError, httpx.WriteError, httpx.RemoteProtocolError, httpx.CloseError)


def service_client(
    addresses: str, *, headers: dict[str, str] | None = None, timeout_seconds: float = 10
) -> httpx.AsyncClient:
    """Return a client of whoever answers at one of these addresses.

    Args:
        addresses: One address or several, with commas between them.

    Raises:
        AddressError: One cannot be read.
    """
    found = parse_addresses(addresses)
    if len(found) == 1:
        return http_client(found[0], headers=headers, timeout_seconds=timeout_seconds)
    return httpx.AsyncClient(
        base_url="http://carrel.internal",
        headers=headers,
        transport=Failover(found),
        timeout=timeout_seconds,
        trust_env=False,
    )


def _plain(address: Address) -> httpx.AsyncBaseTransport:
    path = address.path if isinstance(address, UnixAddress) else None
    return httpx.AsyncHTTPTransport(uds=path, verify=False, trust_env=False)


class Failover(httpx.AsyncBaseTransport):
    """Asks one address for as long as it answers, then the next.

    Args:
        connect: How one is reached.
    """

    def __init__(
        self,
        addresses: Sequence[Address],
        connect: Callable[[Address], httpx.AsyncBaseTransport] = _plain,
    ) -> None:
        self._ways = [(address, connect(address)) for address in addresses]
        self._first = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Return the first answer.

        Raises:
            httpx.TransportError: Nobody answered, or it must not be tried again.
        """
        count, first = len(self._ways), self._first
        for number in range(first, first + count):
            address, transport = self._ways[number % count]
            try:
                reply = await transport.handle_async_request(_to(address, request))
            except httpx.TransportError as error:
                self._first = (number + 1) % count
                again = isinstance(error, _NOT_SENT) or (
                    isinstance(error, _CUT_OFF) and not request.extensions.get(ONCE)
                )
                if not again or number == first + count - 1:
                    raise
                continue
            self._first = number % count
            return reply
        raise AssertionError("there is at least one address")

    async def aclose(self) -> None:
        for _, transport in self._ways:
            await transport.aclose()


def _to(address: Address, request: httpx.Request) -> httpx.Request:
    if isinstance(address, UnixAddress):
        return request
    url = request.url.copy_with(host=address.host, port=address.port)
    return httpx.Request(
        request.method, url, headers=request.headers, stream=request.stream,
        extensions=request.extensions,
    )  # fmt: skip
