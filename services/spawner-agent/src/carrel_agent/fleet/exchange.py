"""The call of a host that joins: its token for credentials."""

from datetime import datetime
from urllib.parse import urlsplit

from pydantic import ValidationError

from carrel_shared.fleet_joining import JoinError, ask, known_hub
from carrel_shared.identity import boot_id
from carrel_shared.wire.hosts import JoinReply, JoinRequest

JOIN = "/internal/v1/fleet/join"


def hub_address(url: str) -> tuple[str, int]:
    """Return host and port of the hub's `fleet_listen` out of what the operator typed.

    Raises:
        JoinError: It is no such address.
    """
    parts = urlsplit(url if "://" in url else f"https://{url}")
    try:
        port = parts.port
    except ValueError:
        port = None
    if parts.scheme != "https" or not parts.hostname or not port or parts.path not in ("", "/"):
        raise JoinError(f"{url!r}: expected the hub's fleet address, such as https://hub:8444")
    return parts.hostname, port


def split_token(text: str) -> tuple[str, str]:
    """Return a join token's secret and the fingerprint of the hub's authority.

    Raises:
        JoinError: It is no join token.
    """
    secret, dot, print_ = text.strip().partition(".")
    if not dot or not secret or len(print_) != 64:
        raise JoinError("this is no join token; make one with `carrel-hub token agent NAME`")
    return secret, print_


def exchange_token(
    base: str,
    authority: str,
    *,
    token: str,
    request: str,
    at: datetime,
    address: str,
    ports: tuple[int, int],
) -> JoinReply:
    """Exchange the token for credentials.

    Raises:
        JoinError: The hub refuses, and says why.
    """
    body = JoinRequest(
        token=token,
        request=request,
        boot_id=boot_id(),
        at=at,
        address=address,
        agent_port=ports[0],
        relay_port=ports[1],
    )
    with known_hub(base, authority) as client:
        reply = ask(client, "POST", JOIN, body.model_dump_json())
    try:
        return JoinReply.model_validate_json(reply.content)
    except ValidationError as error:
        raise JoinError("the hub's answer cannot be read; are both of one version?") from error
