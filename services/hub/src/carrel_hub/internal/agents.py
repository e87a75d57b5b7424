"""What agents tell the hub, and what hosts ask of it that want to join."""

from fastapi import Request, Response

from carrel_hub.deps import HubDep
from carrel_hub.events import agent_actor, record
from carrel_hub.hosts.gate import AUTHORITY_PATH, EDGES, JOIN_PATH
from carrel_hub.hosts.joining import join_host, renew_certificate
from carrel_hub.hosts.keeping import find_host, remove_host
from carrel_hub.internal.callers import require_caller
from carrel_hub.late_routes import LateRouter
from carrel_hub.spawns.reports import receive_report
from carrel_shared.wire.agents import AgentReport, AgentReportReply
from carrel_shared.wire.hosts import JoinReply, JoinRequest, RenewReply, RenewRequest

router = LateRouter()

fleet_router = LateRouter()
"""At the listener for other machines alone, where `FleetGate` stands."""


@router.post("/internal/v1/agents/{name}/report")
async def report(name: str, body: AgentReport, request: Request, hub: HubDep) -> AgentReportReply:
    """Take an agent's report of all its servers."""
    require_caller(request, f"agent:{name}")
    return await receive_report(hub, name, body)


@fleet_router.post("/internal/v1/agents/{name}/certificate")
async def certificate(name: str, body: RenewRequest, request: Request, hub: HubDep) -> RenewReply:
    """Sign a host's next certificate."""
    require_caller(request, f"agent:{name}")
    async with hub.database.write() as session:
        await find_host(session, hub, name)
        reply = renew_certificate(hub, name, body.request)
        at, actor = hub.clock.now(), agent_actor(name)
        record(session, "host.certificate_renewed", actor, actor, at=at)
    return reply


@fleet_router.post("/internal/v1/agents/{name}/leave", status_code=204)
async def leave(name: str, request: Request, hub: HubDep) -> Response:
    """Take a host away that asks for it; not while servers run there."""
    require_caller(request, f"agent:{name}")
    async with hub.database.write() as session:
        host = await find_host(session, hub, name)
        await remove_host(session, hub, host, actor=agent_actor(name))
    return Response(status_code=204)


@fleet_router.post(f"{EDGES}{{name}}/certificate")
async def edge_certificate(
    name: str, body: RenewRequest, request: Request, hub: HubDep
) -> RenewReply:
    """Sign the certificate, the first or the next, of a proxy on another machine."""
    require_caller(request, f"proxy:{name}")
    authority = hub.fleet.authority
    async with hub.database.write() as session:
        at, actor = hub.clock.now(), f"proxy:{name}"
        signed = authority.sign_edge(body.request, name, at)
        record(session, "proxy.certificate_issued", actor, actor, at=at)
    return RenewReply(certificate=signed, authority=authority.certificate)


@fleet_router.get(AUTHORITY_PATH)
async def authority(hub: HubDep) -> Response:
    """Show the authority's certificate to anybody; who joins knows its fingerprint."""
    return Response(hub.fleet.authority.certificate, media_type="application/x-pem-file")


@fleet_router.post(JOIN_PATH)
async def join(body: JoinRequest, hub: HubDep) -> JoinReply:
    """Give a host its own credentials for a join token; it has no key yet."""
    async with hub.database.write() as session:
        reply = await join_host(session, hub, body)
    await hub.wakeups.notify()
    return reply
