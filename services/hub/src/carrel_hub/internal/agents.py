"""What agents tell the hub."""

from fastapi import APIRouter, Request

from carrel_hub.deps import HubDep
from carrel_hub.internal.callers import require_caller
from carrel_hub.spawns.reports import receive_report
from carrel_shared.wire.agents import AgentReport, AgentReportReply

router = APIRouter()


@router.post("/internal/v1/agents/{name}/report")
async def report(name: str, body: AgentReport, request: Request, hub: HubDep) -> AgentReportReply:
    """Take an agent's report of all its servers."""
    require_caller(request, f"agent:{name}")
    return await receive_report(hub, name, body)
