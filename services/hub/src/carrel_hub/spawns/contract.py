"""The variables of a server that is made for JupyterHub (contract 6.1). Pure."""

import json

from carrel_hub.db.models import Server, User
from carrel_hub.settings import HubSettings
from carrel_hub.spawns.paths import escape_name


def contract_environment(
    settings: HubSettings, row: Server, user: User, token: str
) -> dict[str, str]:
    """Return what such a server finds in its environment, but for the port, which its host chooses.

    Args:
        token: What it acts with.
    """
    places = settings.places
    prefix = places.prefix(user.name, row.name)
    api_url = settings.api_url or ""
    access = [f"access:servers!server={user.name}/{row.name}", f"access:servers!user={user.name}"]
    origin = (settings.public_url or "").rstrip("/")
    return {
        "JUPYTERHUB_API_TOKEN": token,
        "JPY_API_TOKEN": token,
        "JUPYTERHUB_CLIENT_ID": row.client_id,
        "JUPYTERHUB_API_URL": api_url,
        "JUPYTERHUB_ACTIVITY_URL": f"{api_url}/users/{escape_name(user.name)}/activity",
        "JUPYTERHUB_OAUTH_CALLBACK_URL": f"{places.url(user.name, row.name)}oauth_callback",
        "JUPYTERHUB_OAUTH_ACCESS_SCOPES": json.dumps(access),
        "JUPYTERHUB_OAUTH_SCOPES": json.dumps(access),
        "JUPYTERHUB_OAUTH_CLIENT_ALLOWED_SCOPES": "[]",
        "JUPYTERHUB_PUBLIC_URL": f"{places.origin(user.name) or origin}{prefix}" if origin else "",
        "JUPYTERHUB_PUBLIC_HUB_URL": f"{origin}{settings.hub_prefix}" if origin else "",
        "JUPYTERHUB_COOKIE_HOST_PREFIX_ENABLED": "0",
    }
