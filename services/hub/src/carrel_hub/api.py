"""The root of the REST API, and health: what anybody may ask."""

from fastapi import Response
from fastapi.responses import JSONResponse

from carrel_hub import JUPYTERHUB_API_VERSION
from carrel_hub.events.rest import router as events_router
from carrel_hub.groups.rest import router as groups_router
from carrel_hub.hosts.rest import router as hosts_router
from carrel_hub.late_routes import LateRouter
from carrel_hub.metrics.rest import router as metrics_router
from carrel_hub.openapi.rest import router as openapi_router
from carrel_hub.services.rest import router as services_router
from carrel_hub.shares.received import router as shared_router
from carrel_hub.shares.rest import router as shares_router
from carrel_hub.tokens.rest import router as tokens_router
from carrel_hub.users.inspect import router as inspect_router
from carrel_hub.users.manage import router as people_router
from carrel_hub.users.old_ways import router as old_ways_router
from carrel_hub.users.operate import router as operate_router
from carrel_hub.users.rest import router as users_router
from carrel_hub.users.servers import router as servers_router

api_router = LateRouter()
"""Everything below `{hub}api`."""


@api_router.get("")
@api_router.get("/")
async def root() -> JSONResponse:
    """The version of JupyterHub whose API this is. Servers ask for it while they start."""
    return JSONResponse(
        {"version": JUPYTERHUB_API_VERSION}, headers={"Access-Control-Allow-Origin": "*"}
    )


health_router = LateRouter()
"""Below `{hub}`."""


@api_router.get("/health")
@api_router.head("/health", include_in_schema=False)
@health_router.get("/health")
@health_router.head("/health", include_in_schema=False)
async def health() -> Response:
    """Answers whenever the hub serves requests."""
    return Response(status_code=200)


for router in (
    users_router,
    people_router,
    servers_router,
    inspect_router,
    tokens_router,
    groups_router,
    services_router,
    shares_router,
    shared_router,
    hosts_router,
    old_ways_router,
    operate_router,
    events_router,
    metrics_router,
    openapi_router,
):
    api_router.take(router)
