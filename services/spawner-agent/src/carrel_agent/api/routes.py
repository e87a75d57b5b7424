"""`/agent/v1`: start, stop, look at and forget servers."""

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import StreamingResponse

from carrel_agent.errors import InvalidRequestError
from carrel_agent.supervise.reporting import Reporter
from carrel_agent.supervise.supervisor import Supervisor
from carrel_shared.wire.agents import AgentSnapshot
from carrel_shared.wire.base import ServerId
from carrel_shared.wire.limits import LimitsChange, ServerUsage
from carrel_shared.wire.servers import LogTail, ServerReport, ServerSpec, StopRequest

MAX_LOG_LINES = 2000
MAX_WAIT_SECONDS = 5

router = APIRouter(prefix="/agent/v1")


def _supervisor(request: Request) -> Supervisor:
    supervisor: Supervisor = request.app.state.supervisor
    return supervisor


@router.get("/health")
async def health() -> dict[str, str]:
    """Say that the agent answers. Needs no key and tells nothing else."""
    return {"status": "ok"}


@router.get("/servers")
async def list_servers(request: Request) -> AgentSnapshot:
    """Return every server whose end the hub has not stored."""
    reporter: Reporter = request.app.state.reporter
    return reporter.snapshot()


@router.get("/servers/{server_id}")
async def show_server(request: Request, server_id: ServerId) -> ServerReport:
    """Return one server."""
    return _supervisor(request).report(server_id)


@router.put("/servers/{server_id}", status_code=202)
async def start_server(
    request: Request,
    server_id: ServerId,
    spec: ServerSpec,
    wait: Annotated[float, Query(ge=0, le=MAX_WAIT_SECONDS)] = 0,
) -> ServerReport:
    """Start one generation of a server, and wait so long for it. Asking again changes nothing."""
    if spec.server_id != server_id:
        raise InvalidRequestError(
            f"the path names server {server_id}, its body server {spec.server_id}"
        )
    reporter: Reporter = request.app.state.reporter
    # What is reached by a relay is not ready before that leads to it, which the reporter sees to.
    seconds = 0 if reporter.has_relay else wait
    report = await _supervisor(request).start(spec, wait_seconds=seconds)
    if seconds:
        reporter.note_told(report)
    return report


@router.post("/servers/{server_id}/stop", status_code=202)
async def stop_server(
    request: Request, response: Response, server_id: ServerId, stop: StopRequest
) -> ServerReport:
    """Have one generation of a server ended. 200 if it has ended already."""
    report, had_ended = await _supervisor(request).stop(server_id, stop)
    if had_ended:
        response.status_code = 200
    return report


@router.put("/servers/{server_id}/limits")
async def change_limits(request: Request, server_id: ServerId, change: LimitsChange) -> ServerUsage:
    """Put other limits in force on a running server."""
    return await _supervisor(request).change_limits(server_id, change)


@router.get("/servers/{server_id}/usage")
async def show_usage(request: Request, server_id: ServerId) -> ServerUsage:
    """Return what a running server uses, and its limits."""
    return _supervisor(request).usage(server_id)


@router.get("/servers/{server_id}/log")
async def show_log(
    request: Request,
    server_id: ServerId,
    lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 200,
) -> LogTail:
    """Return the last lines a server printed."""
    return LogTail(lines=await _supervisor(request).log_tail(server_id, lines))


@router.get("/servers/{server_id}/log/stream")
async def follow_log(
    request: Request,
    server_id: ServerId,
    lines: Annotated[int, Query(ge=1, le=MAX_LOG_LINES)] = 200,
) -> StreamingResponse:
    """Send the last lines a server printed as text, and more as it prints, until it has ended."""
    stream = _supervisor(request).follow_log(server_id, lines)
    return StreamingResponse(stream, media_type="text/plain; charset=utf-8")


@router.delete("/servers/{server_id}", status_code=204)
async def forget_server(request: Request, server_id: ServerId, generation: int) -> None:
    """Forget an ended server."""
    await _supervisor(request).forget(server_id, generation)


@router.post("/warm", status_code=202)
async def warm(request: Request) -> dict[str, str]:
    """Load JupyterLab ahead of a start that is likely to come."""
    _supervisor(request).warm()
    return {"status": "warming"}
