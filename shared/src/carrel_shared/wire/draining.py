"""Taking one of several proxies out of service, while those who use it go on to their end."""

from carrel_shared.wire.base import WireReply


class DrainStatus(WireReply):
    """How far a proxy is with it, all its workers together.

    Attributes:
        draining: Its health check fails, and each connection ends with the answer under way.
        requests: Under way.
        sockets: Open WebSockets; they stay until their ends leave, or the proxy is stopped.
    """

    draining: bool
    requests: int
    sockets: int
