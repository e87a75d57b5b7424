"""How faults are answered: JSON below the REST API, a page elsewhere, never a traceback."""

from collections.abc import Awaitable, Callable

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from carrel_hub.db.faults import reason_of
from carrel_hub.errors import HubError
from carrel_hub.middleware import TOO_LARGE
from carrel_shared.wire.errors import ErrorBody

log = structlog.get_logger(__name__)

Answer = Callable[[Request, int, str, str, dict[str, str]], Response]
"""Makes the response out of status, code, message and headers."""

_BUSY = "The hub's database does not answer right now; try again in a moment"
_CROSSED = "Somebody else changed the same thing in this moment; look at it and try again"
_UNSTORABLE = "Something in this request cannot be stored: a number too large, or a NUL in a text"
_INCOMPLETE = "The request ended before all of it was sent"
_BROKEN = "Internal Server Error"


def install_failures(app: FastAPI, answer: Answer) -> None:
    """Have every fault of `app` answered by `answer`."""

    async def hub_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HubError)  # noqa: S101 - registered for it
        return answer(request, error.status_code, error.code, error.message, error.headers)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)  # noqa: S101
        # The framework's own words ("Not Found") say no more than the status does.
        return answer(request, error.status_code, "http_error", "", dict(error.headers or {}))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)  # noqa: S101
        return answer(request, 400, "invalid_request", _first_problem(error), {})

    async def database(request: Request, error: Exception) -> Response:
        if isinstance(error, IntegrityError):
            log.info("database_conflict", reason=reason_of(error))
            return answer(request, 409, "conflict", _CROSSED, {})
        if isinstance(error, DataError):
            log.info("database_refuses_value", reason=reason_of(error))
            return answer(request, 400, "invalid_request", _UNSTORABLE, {})
        lost = isinstance(error, PoolTimeoutError | DBAPIError)
        reason = reason_of(error) if isinstance(error, DBAPIError) else type(error).__name__
        log.error("database_error", reason=reason, exc_info=None if lost else error)
        if lost:
            return answer(request, 503, "unavailable", _BUSY, {"Retry-After": "2"})
        return answer(request, 500, "internal_error", _BROKEN, {})

    async def cut_off(request: Request, _error: Exception) -> Response:
        if getattr(request.state, TOO_LARGE, False):
            return answer(request, 413, "too_large", "The request body is too large.", {})
        return answer(request, 400, "invalid_request", _INCOMPLETE, {})  # nobody hears it

    async def broken(request: Request, error: Exception) -> Response:
        log.error("request_failed", path=_safe_path(request), exc_info=error)
        return answer(request, 500, "internal_error", _BROKEN, {})

    handlers: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
        HubError: hub_error,
        HTTPException: http_error,
        RequestValidationError: invalid,
        SQLAlchemyError: database,
        ClientDisconnect: cut_off,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_exception_handler(Exception, broken)


def contract_error(status: int, message: str, headers: dict[str, str]) -> Response:
    """An error in the shape JupyterHub's clients read. Without words `message` is null."""
    return JSONResponse(
        {"status": status, "message": message or None}, status_code=status, headers=headers
    )


def internal_error(
    _request: Request, status: int, code: str, message: str, headers: dict[str, str]
) -> Response:
    """An error in the shape of the internal APIs."""
    body = ErrorBody(status=status, code=code, message=message or f"HTTP {status}")
    return JSONResponse(body.model_dump(), status_code=status, headers=headers)


def _first_problem(error: RequestValidationError) -> str:
    """The first thing that is wrong, with its place, and without the value, which may be secret."""
    for detail in error.errors():
        place = ".".join(str(part) for part in detail.get("loc", ())[1:])
        return f"{place}: {detail.get('msg', 'invalid')}" if place else str(detail.get("msg"))
    return "invalid request"


def _safe_path(request: Request) -> str:
    """The route rather than the path, which can hold a one-time secret."""
    route = request.scope.get("route")
    return str(getattr(route, "path", "")) or "(no route)"
