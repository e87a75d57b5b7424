"""What can go wrong in the proxy, by who is to blame."""


class ProxyError(Exception):
    """Root of the proxy's errors. `status` is what the client is answered."""

    status = 500


class BadRequestError(ProxyError):
    """The client's message is refused: nothing of it goes on, and its connection is closed."""

    def __init__(self, reason: str, status: int = 400) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class BadPathError(BadRequestError):
    """The path could be read as another one by somebody behind us."""


class BadResponseError(ProxyError):
    """What is behind the proxy answered something that is not HTTP as RFC 9112 has it."""

    status = 502


class TargetAwayError(ProxyError):
    """Nobody answers at a route's target: not started, stopped, or just now ended."""

    status = 503


class HostAwayError(TargetAwayError):
    """The host that a route leads to cannot be reached. What is on it may well be running."""


class BusyError(ProxyError):
    """There is no room for another connection to this target. No byte was sent to it."""

    status = 503


class WrongPeerError(ProxyError):
    """Another account than the route names is behind a socket, or it is not its host's relay that
    answers. No byte was sent."""

    status = 502


class HubAwayError(ProxyError):
    """The hub cannot be asked just now."""

    status = 503


class CodeRefusedError(ProxyError):
    """The hub does not redeem this authorization code."""

    status = 403


class TableMismatchError(ProxyError):
    """Changes do not continue the table that is in force."""

    status = 409


class BadTargetError(ProxyError):
    """A route's target or prefix cannot be used; the message says why."""

    status = 422
