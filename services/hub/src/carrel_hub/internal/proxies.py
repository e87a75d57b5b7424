"""What proxies tell the hub: that their table does not fit, and which servers are in use."""

from fastapi import Request, Response

from carrel_hub.context import ROUTES
from carrel_hub.db.models import ProxyStatus
from carrel_hub.deps import HubDep
from carrel_hub.internal.callers import require_caller
from carrel_hub.late_routes import LateRouter
from carrel_hub.users.last_used import store_servers
from carrel_shared.wire.access import ActivityReport, ResyncRequest

router = LateRouter()


@router.post("/internal/v1/proxies/{name}/resync", status_code=202)
async def resync(name: str, body: ResyncRequest, request: Request, hub: HubDep) -> Response:
    """Believe a proxy where its table stands, and push from there. A gap needs the whole table."""
    require_caller(request, f"proxy:{name}")
    async with hub.database.write() as session:
        status = await session.get(ProxyStatus, name) or ProxyStatus(name=name)
        status.epoch = "" if body.reason == "gap" else body.epoch
        status.number = body.number
        status.away, status.seen_at = False, hub.clock.now()
        session.add(status)
    await hub.wakeups.notify(ROUTES)
    return Response(status_code=202)


@router.post("/internal/v1/proxies/{name}/activity", status_code=204)
async def activity(name: str, body: ActivityReport, request: Request, hub: HubDep) -> Response:
    """Note when servers, and so their users, were last used. Times only move forward."""
    require_caller(request, f"proxy:{name}")
    now = hub.clock.now()
    seen = {server_id: min(at, now) for server_id, at in body.servers.items()}
    await store_servers(hub.database, seen)
    return Response(status_code=204)
