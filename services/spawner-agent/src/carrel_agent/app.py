"""The agent's ASGI application."""

import structlog
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from carrel_agent import __version__
from carrel_agent.api.quick import Quick
from carrel_agent.api.routes import router
from carrel_agent.errors import AgentError
from carrel_agent.supervise.reporting import Reporter
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.fleet import HUB_IDENTITY
from carrel_shared.service_auth import Scope, ServiceGate
from carrel_shared.wire.errors import ErrorBody

log = structlog.get_logger(__name__)

HEALTH_PATH = "/agent/v1/health"


def create_app(
    supervisor: Supervisor, reporter: Reporter, *, hub_key: str, on_network: bool = False
) -> ServiceGate:
    """Return the API, closed to everybody but the hub.

    Args:
        hub_key: What the hub shows.
        on_network: It must show its certificate too.

    Raises:
        EmptyKeyError: If the key is no secret.
    """
    app = FastAPI(
        title="Carrel agent",
        version=__version__,
        openapi_url=None,
        redirect_slashes=False,
        # Whether OpenTelemetry is wanted is not looked up for each request.
        telemetry={"tracing": False, "metrics": False, "logs": False},
        exception_handlers={
            AgentError: _agent_error,
            RequestValidationError: _invalid,
            HTTPException: _http_error,
            Exception: _unexpected,
        },
    )
    app.state.supervisor = supervisor
    app.state.reporter = reporter
    app.include_router(router)
    gate = HubGate if on_network else ServiceGate
    quick = Quick(app)
    return gate(quick, keys={"hub": hub_key}, service="agent", open_paths=frozenset({HEALTH_PATH}))


class HubGate(ServiceGate):
    """On a network the hub shows its certificate too: a key that was stolen is not enough."""

    async def caller(self, scope: Scope, authorization: bytes) -> str | None:
        """Return `hub` for the hub alone."""
        if scope.get("state", {}).get("identity") != HUB_IDENTITY:
            return None
        return await super().caller(scope, authorization)


def _error(status: int, code: str, message: str) -> JSONResponse:
    return JSONResponse(
        ErrorBody(status=status, code=code, message=message).model_dump(), status_code=status
    )


async def _agent_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, AgentError)  # noqa: S101 - registered for it alone
    return _error(error.status_code, error.code, error.message)


async def _invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 - registered for it alone
    # Only where and what: the value may be a secret.
    problems = [f"{'.'.join(str(p) for p in e['loc'])}: {e['msg']}" for e in error.errors()]
    return _error(400, "invalid_request", "; ".join(problems))


async def _http_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 - registered for it alone
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "http_error")
    return _error(error.status_code, code, str(error.detail))


async def _unexpected(_request: Request, _error_: Exception) -> JSONResponse:
    return _error(500, "internal_error", "the agent made a mistake; its log has the details")
