"""`{hub}metrics` and `{hub}api/metrics`, for Prometheus."""

from fastapi import Request, Response
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from carrel_hub.auth.subjects import current_subject
from carrel_hub.deps import HubDep
from carrel_hub.late_routes import LateRouter
from carrel_hub.metrics.counts import CountsCollector, read_counts
from carrel_hub.rbac import Scope, authorise

router = LateRouter()


@router.get("/metrics")
async def metrics(request: Request, hub: HubDep) -> Response:
    """What this hub measured, and what there is."""
    if hub.settings.authenticate_prometheus:
        authorise(await current_subject(request), Scope.READ_METRICS)
    now = CollectorRegistry()
    now.register(CountsCollector(await read_counts(hub), hub.measures.prefix))
    body = generate_latest(hub.measures.registry) + generate_latest(now)
    return Response(body, media_type=CONTENT_TYPE_PLAIN_0_0_4)
