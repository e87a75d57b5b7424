"""The body of a call that makes a service. Pure."""

import re
from dataclasses import dataclass, field
from typing import Any

from carrel_hub.errors import InvalidRequestError
from carrel_hub.rbac import RoleBook
from carrel_hub.services.fields import CLIENT_ID, check_client, check_name, check_secret, check_url


@dataclass(frozen=True, slots=True)
class WantedService:
    """What a service is to be."""

    name: str
    admin: bool = False
    url: str | None = None
    info: dict[str, Any] = field(default_factory=dict)
    display: bool = True
    api_token: str | None = field(default=None, repr=False)
    client_id: str | None = None
    redirect_uri: str | None = None
    allowed_scopes: list[str] = field(default_factory=list)
    no_confirm: bool = False
    command: list[str] = field(default_factory=list)
    host: str = ""


_KEYS: dict[str, tuple[type, str]] = {
    "admin": (bool, "true or false"),
    "url": (str, "text"),
    "info": (dict, "an object"),
    "display": (bool, "true or false"),
    "api_token": (str, "text"),
    "oauth_client_id": (str, "text"),
    "oauth_redirect_uri": (str, "text"),
    "oauth_client_allowed_scopes": (list, "a list"),
    "oauth_no_confirm": (bool, "true or false"),
}
_OF_MANAGED = ("command", "cwd", "environment", "user")


def wanted_service(name: str, body: Any, book: RoleBook) -> WantedService:
    """Return what the body of a creation asks for.

    Args:
        book: What scopes there are.

    Raises:
        InvalidRequestError: It is no object, or something in it cannot be.
    """
    if not isinstance(body, dict):
        raise InvalidRequestError("The body must be a JSON object")
    for key, value in body.items():
        if key in _OF_MANAGED:
            if value:
                raise InvalidRequestError(
                    f"{key}: services that are run from here are said in the settings alone"
                )
            continue
        if key not in _KEYS:
            raise InvalidRequestError(f"Unknown key in a service: {str(key)[:100]!r}")
        wanted, words = _KEYS[key]
        if value is not None and not isinstance(value, wanted):
            raise InvalidRequestError(f"{key} must be {words}")
    try:
        given = {key: value for key, value in body.items() if value is not None}
        return _checked(name, given, book)
    except ValueError as error:
        raise InvalidRequestError(str(error)) from error


def _checked(name: str, body: dict[str, Any], book: RoleBook) -> WantedService:
    url, token, scopes = (
        body.get(key) for key in ("url", "api_token", "oauth_client_allowed_scopes")
    )
    scopes = scopes or []
    if not all(isinstance(text, str) for text in scopes):
        raise ValueError("oauth_client_allowed_scopes must be a list of text")
    if unknown := [text for text in scopes if not book.knows(text)]:
        raise ValueError(f"there is no scope {min(unknown)!r}")
    client_id = body.get("oauth_client_id")
    if client_id is not None and not re.fullmatch(CLIENT_ID, client_id):
        raise ValueError("oauth_client_id must be service- and 1 to 247 printable ASCII characters")
    url = check_url(url) if url else None
    check_client(url=url, client_id=client_id, redirect_uri=body.get("oauth_redirect_uri"))
    return WantedService(
        name=check_name(name),
        admin=body.get("admin", False),
        url=url,
        info=body.get("info", {}),
        display=body.get("display", True),
        api_token=check_secret(token) if token is not None else None,
        client_id=client_id,
        redirect_uri=body.get("oauth_redirect_uri"),
        allowed_scopes=book.full(scopes),
        no_confirm=body.get("oauth_no_confirm", False),
    )
