"""The agent's errors: each has a status for HTTP, a code for programs, a message for people."""


class SetupError(Exception):
    """This agent can never start like this on this host; the message says what to change."""


class AgentError(Exception):
    """Root of every error the agent answers with."""

    status_code: int = 500
    code: str = "internal_error"

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class InvalidRequestError(AgentError):
    """The request cannot be understood or makes no sense."""

    status_code = 400
    code = "invalid_request"


class AccountRefusedError(AgentError):
    """Nothing is run as this account here; the message says why."""

    status_code = 400
    code = "account_refused"


class UnknownServerError(AgentError):
    """The agent knows no such server."""

    status_code = 404
    code = "unknown_server"


class GenerationStaleError(AgentError):
    """The command is older than what the agent has seen."""

    status_code = 409
    code = "generation_stale"


class ServerRunningError(AgentError):
    """The server still lives, and the command needs it ended."""

    status_code = 409
    code = "server_running"


class LimitBelowUseError(AgentError):
    """A limit below what is in use would end the server."""

    status_code = 409
    code = "limit_below_use"


class LimitUnenforceableError(AgentError):
    """This host cannot enforce a limit; the message says why."""

    status_code = 400
    code = "limit_unenforceable"


class UnavailableError(AgentError):
    """Something the agent needs is away; trying again later is right."""

    status_code = 503
    code = "unavailable"
