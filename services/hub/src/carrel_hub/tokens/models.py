"""The shape of a token in the REST API. Pure."""

from collections.abc import Iterable
from typing import Any

from carrel_hub.db.models import Token, User
from carrel_hub.places import Places
from carrel_hub.users.models import timestamp


def token_model(
    token: Token,
    user: User,
    scopes: Iterable[str],
    *,
    places: Places,
    server: tuple[str, str] | None,
    service: str | None = None,
) -> dict[str, Any]:
    """Return a token without its secret.

    Args:
        scopes: What it may do now.
        server: The owner and the name of the server it was issued for.
        service: The name of the service it was issued for.
    """
    client = "JupyterHub"
    if server is not None and token.client_id is not None:
        client = f"Server at {places.prefix(*server)}"
    elif token.client_id is not None:
        client = f"JupyterHub service {service}" if service else token.client_id
    return {
        "user": user.name,
        "id": f"a{token.id}",
        "kind": "api_token",
        "roles": [],
        "scopes": sorted(scopes),
        "created": timestamp(token.created),
        "last_activity": timestamp(token.last_activity),
        "expires_at": timestamp(token.expires_at),
        "note": token.note,
        "session_id": token.session_hash,
        "oauth_client": client,
    }


def token_number(text: str) -> int | None:
    """Return the number in a token's id (`a12`), or None when there can be none of that id."""
    digits = text.removeprefix("a")
    if not text.startswith("a") or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) if len(digits) < 16 else None
