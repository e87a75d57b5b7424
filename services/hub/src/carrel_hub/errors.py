"""The hub's errors: each has a status for HTTP, a code for programs, a message for people."""


class HubError(Exception):
    """Root of every error the hub answers with."""

    status_code: int = 500
    code: str = "internal_error"

    def __init__(self, message: str, *, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.headers = headers or {}


class InvalidRequestError(HubError):
    """The request cannot be understood or makes no sense."""

    status_code = 400
    code = "invalid_request"


class ForbiddenError(HubError):
    """Nobody, or nobody who may."""

    status_code = 403
    code = "forbidden"


class NotFoundError(HubError):
    """There is no such thing, or none the caller may know of."""

    status_code = 404
    code = "not_found"


class NotAllowedError(HubError):
    """The thing is there, and this cannot be done to it."""

    status_code = 405
    code = "not_allowed"


class ConflictError(HubError):
    """The thing is not in a state that allows this."""

    status_code = 409
    code = "conflict"


class TooLargeError(HubError):
    """There is more of the request than anybody needs to send."""

    status_code = 413
    code = "too_large"


class UnprocessableError(HubError):
    """The request is well formed and asks for something that cannot be."""

    status_code = 422
    code = "unprocessable"


class TooManyRequestsError(HubError):
    """Slow down."""

    status_code = 429
    code = "too_many_requests"


class UnavailableError(HubError):
    """Something the hub needs is away; trying again later is right."""

    status_code = 503
    code = "unavailable"


class AgentUnreachableError(UnavailableError):
    """An agent did not answer. What it runs is unknown, not dead."""

    code = "agent_unreachable"


class AgentRefusedError(HubError):
    """An agent answered that it will not.

    Attributes:
        status: The agent's status, such as 409.
        agent_code: The agent's word for it, such as `server_running`.
    """

    status_code = 500
    code = "agent_refused"

    def __init__(self, message: str, *, status: int, agent_code: str) -> None:
        super().__init__(message)
        self.status = status
        self.agent_code = agent_code


class StartFailedError(HubError):
    """A server was asked for and did not come up."""

    code = "start_failed"
