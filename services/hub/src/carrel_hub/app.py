"""The hub's two applications: what the public reaches through proxies, and what services call."""

from fastapi import FastAPI, Request, Response
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from carrel_hub.api import api_router, health_router
from carrel_hub.context import Hub
from carrel_hub.failures import contract_error, install_failures, internal_error
from carrel_hub.hosts.gate import EDGES, OPEN_PATHS, FleetGate
from carrel_hub.internal.agents import fleet_router
from carrel_hub.internal.agents import router as agents_router
from carrel_hub.internal.console import router as console_router
from carrel_hub.internal.proxies import router as proxies_router
from carrel_hub.late_routes import add_routes
from carrel_hub.metrics.layer import Measured
from carrel_hub.metrics.rest import router as metrics_router
from carrel_hub.middleware import ApiHeaders, BodyLimit, ForwardedByProxy, RequestIdentity
from carrel_hub.oauth.internal import router as access_router
from carrel_hub.oauth.routes import router as oauth_router
from carrel_hub.oauth.token import router as token_router
from carrel_hub.settings import HubSettings
from carrel_hub.users.quick import Quick
from carrel_hub.web.errors import render_error
from carrel_hub.web.pages import outside_router
from carrel_hub.web.pages import router as pages_router
from carrel_hub.web.users_hosts import create_users_hosts
from carrel_shared.service_auth import ServiceGate

INTERNAL_HEALTH = "/internal/v1/health"


def create_public_app(hub: Hub) -> ASGIApp:
    """Return what the public sees: pages and the REST API. To be served to proxies only."""
    prefix = hub.settings.hub_prefix.rstrip("/")
    api_path = f"{prefix}/api"
    api, pages = _create_api(hub, api_path), _create_pages(hub, prefix)
    on_users_hosts, places = create_users_hosts(hub), hub.settings.places

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope.get("path", "")
        below_api = path == api_path or path.startswith(f"{api_path}/")
        host = Headers(scope=scope).get("host", "") if scope["type"] == "http" else ""
        if places.is_hub(host) or (below_api and places.is_api(host)):
            await (api if below_api else pages)(scope, receive, send)
        else:
            await on_users_hosts(scope, receive, send)

    servers = (f"{prefix}/user/", f"{hub.settings.base_url}user/")
    app: ASGIApp = BodyLimit(dispatch, unread=servers)
    for layer in (ForwardedByProxy, RequestIdentity):
        app = layer(app)
    return Measured(app, hub)


def create_internal_app(hub: Hub) -> ASGIApp:
    """Return what agents, proxies and the console call, behind their keys."""
    app = _new_app(hub)
    install_failures(app, internal_error)

    @app.get(INTERNAL_HEALTH)
    async def health() -> Response:
        return Response(status_code=200)

    for router in (agents_router, proxies_router, console_router, access_router):
        add_routes(app, router)
    return RequestIdentity(
        ServiceGate(
            app,
            keys=caller_keys(hub.settings),
            service="hub",
            open_paths=frozenset({INTERNAL_HEALTH}),
        )
    )


def create_fleet_app(hub: Hub) -> ASGIApp:
    """Return what hosts on other machines call, by their certificates and keys."""
    app = _new_app(hub)
    install_failures(app, internal_error)
    add_routes(app, fleet_router)
    add_routes(app, agents_router)
    small = BodyLimit(app)

    async def dispatch(scope: Scope, receive: Receive, send: Send) -> None:
        # Only hosts that have joined may send a lot.
        path = scope.get("path", "")
        few = path in OPEN_PATHS or path.startswith(EDGES)
        await (small if few else app)(scope, receive, send)

    return RequestIdentity(FleetGate(dispatch, hub))


def caller_keys(settings: HubSettings) -> dict[str, str]:
    """Return who may call the internal API, by the key each shows."""
    keys = {f"agent:{peer.name}": peer.caller_key for peer in settings.agents}
    keys |= {f"proxy:{peer.name}": peer.caller_key for peer in settings.proxies}
    if settings.console_key is not None:
        keys["console"] = settings.console_key
    return {name: key.get_secret_value() for name, key in keys.items()}


def _create_api(hub: Hub, api_path: str) -> ASGIApp:
    app = _new_app(hub)

    def answer(
        request: Request, status: int, _code: str, message: str, headers: dict[str, str]
    ) -> Response:
        if request.url.path == f"{api_path}/oauth2/authorize":  # people see this one
            return render_error(request, status, message or None, headers=headers)
        return contract_error(status, message, headers)

    install_failures(app, answer)
    add_routes(app, api_router, api_path)
    add_routes(app, oauth_router, api_path)
    add_routes(app, token_router, api_path)
    return ApiHeaders(Quick(app, api_path), hub.settings.hub_prefix)


def _create_pages(hub: Hub, prefix: str) -> FastAPI:
    app = _new_app(hub)

    def answer(
        request: Request, status: int, _code: str, message: str, headers: dict[str, str]
    ) -> Response:
        return render_error(request, status, message or None, headers=headers)

    install_failures(app, answer)
    add_routes(app, health_router, prefix)
    add_routes(app, metrics_router, prefix)
    add_routes(app, pages_router, prefix)
    add_routes(app, outside_router, hub.settings.base_url.rstrip("/"))
    return app


def _new_app(hub: Hub) -> FastAPI:
    # Nothing documents itself to the public, and `/servers/` is not `/servers`.
    # Whether OpenTelemetry is wanted is not looked up for each request: what is measured is ours.
    app = FastAPI(
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.state.hub = hub
    return app
