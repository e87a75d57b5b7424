"""The shape of a service in the REST API, cut to what the caller may see. Pure."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from carrel_hub.db.models import Service
from carrel_hub.rbac import Actor, RoleBook, Scope, ServiceResource, may

SERVICE_KEYS: Mapping[Scope, tuple[str, ...]] = {
    Scope.READ_SERVICES: (
        "kind",
        "name",
        "admin",
        "url",
        "prefix",
        "command",
        "pid",
        "info",
        "display",
    ),
    Scope.READ_SERVICES_NAME: ("kind", "name", "admin"),
    Scope.READ_ROLES_SERVICES: ("kind", "name", "roles", "admin"),
}
"""Which keys of a service each scope shows."""


def service_prefix(base_url: str, name: str) -> str:
    """Return the path a service answers below: `{base}services/NAME/`."""
    return f"{base_url}services/{quote(name, safe='@~')}/"


def service_model(
    service: Service, actor: Actor, *, base_url: str, roles: RoleBook, pid: int = 0
) -> dict[str, Any]:
    """Return a service as `actor` may see it; empty when nothing may be seen.

    Args:
        pid: Its process, where it is run from here.
    """
    resource = ServiceResource(service.name)
    keys = {
        key for scope, shown in SERVICE_KEYS.items() if may(actor, scope, resource) for key in shown
    }
    whole = {
        "kind": "service",
        "name": service.name,
        "admin": service.admin,
        "roles": roles.of_service(service.name, admin=service.admin),
        "url": service.url or "",
        "prefix": service_prefix(base_url, service.name) if service.url else "",
        "command": service.command,
        "pid": pid,
        "info": service.info,
        "display": service.display,
    }
    return {key: value for key, value in whole.items() if key in keys}
