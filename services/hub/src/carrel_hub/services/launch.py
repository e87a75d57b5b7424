"""What a managed service is started with (contract 8.2). Pure but for the hub's signing key."""

import hashlib
import json
from urllib.parse import quote, urlsplit

from carrel_hub.auth.signing import signer_for
from carrel_hub.db.models import ServiceRun
from carrel_hub.services.models import service_prefix
from carrel_hub.services.settings import ServiceSettings
from carrel_hub.settings import HubSettings
from carrel_shared.wire.servers import ServerSpec

_TOKEN, _SECRET = "service-token", "service-run"


def service_token(settings: HubSettings, entry: ServiceSettings) -> str:
    """Return what a service acts with: the token of its settings, else one made for it.

    Made of the hub's signing key, so nothing is stored in clear and every start has the same.
    """
    if entry.api_token is not None:
        return entry.api_token.get_secret_value()
    return signer_for(settings.state_dir).mac(_TOKEN, entry.name)


def fingerprint(settings: HubSettings, entry: ServiceSettings) -> str:
    """Return what changes when a service has to be started anew."""
    spec = launch_spec(settings, entry, ServiceRun(id="0" * 12, service="", host="", generation=1))
    return hashlib.sha256(spec.model_dump_json().encode()).hexdigest()


def launch_spec(settings: HubSettings, entry: ServiceSettings, run: ServiceRun) -> ServerSpec:
    """Return what the agent is asked to run."""
    prefix = service_prefix(settings.base_url, entry.name)
    port = None
    if entry.url is not None:
        port = urlsplit(entry.url).port or 80
    return ServerSpec(
        kind="service",
        server_id=run.id,
        generation=run.generation,
        user=entry.name,
        account=entry.user or "",
        cwd=entry.cwd or "",
        runner="exec",
        command=list(entry.command or ()),
        listen="nowhere" if port is None else "port",
        port=port,
        base_url=prefix,
        hub_prefix=settings.hub_prefix,
        secret=signer_for(settings.state_dir).mac(_SECRET, run.id),
        environment=service_environment(settings, entry),
        start_timeout_seconds=entry.timeout,
    )


def service_environment(settings: HubSettings, entry: ServiceSettings) -> dict[str, str]:
    """Return the variables of a managed service; those of its settings win."""
    places, token = settings.places, service_token(settings, entry)
    prefix = service_prefix(settings.base_url, entry.name)
    access = json.dumps(["access:services", f"access:services!service={entry.name}"])
    origin = (settings.public_url or "").rstrip("/")
    public = places.service_origin(entry.name) or origin
    found = {
        "JUPYTERHUB_SERVICE_NAME": entry.name,
        "JUPYTERHUB_API_TOKEN": token,
        "JUPYTERHUB_API_URL": settings.api_url or "",
        "JUPYTERHUB_BASE_URL": settings.base_url,
        "JUPYTERHUB_HOST": places.hub_origin,
        "JUPYTERHUB_USER": entry.user or "",
        "JUPYTERHUB_SERVER_NAME": "",
        "JUPYTERHUB_CLIENT_ID": entry.oauth_client_id or f"service-{quote(entry.name, safe='')}",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": access,
        "JUPYTERHUB_OAUTH_SCOPES": access,
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": json.dumps(entry.oauth_client_allowed_scopes),
        "JUPYTERHUB_PUBLIC_HUB_URL": f"{origin}{settings.hub_prefix}" if origin else "",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
    }
    callback = f"{places.service_origin(entry.name)}{prefix}oauth_callback"
    if entry.url is not None:
        found["JUPYTERHUB_SERVICE_URL"] = entry.url
        found["JUPYTERHUB_SERVICE_PREFIX"] = prefix
        found["JUPYTERHUB_PUBLIC_URL"] = f"{public}{prefix}" if public else ""
    if entry.url is not None or entry.oauth_redirect_uri is not None:
        found["JUPYTERHUB_OAUTH_CALLBACK_URL"] = entry.oauth_redirect_uri or callback
    return {**found, **entry.environment}
