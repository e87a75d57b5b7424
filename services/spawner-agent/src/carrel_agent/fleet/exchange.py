"""The calls of a host that joins: look whether it is the right hub, then exchange the token."""

import ssl
from datetime import datetime
from urllib.parse import urlsplit

import httpx
from pydantic import ValidationError

from carrel_agent.fleet.credentials import fingerprint
from carrel_shared.fleet import HUB_NAME
from carrel_shared.identity import boot_id
from carrel_shared.service_auth import new_request_id
from carrel_shared.wire import REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.hosts import JoinReply, JoinRequest

AUTHORITY = "/internal/v1/fleet/authority"
JOIN = "/internal/v1/fleet/join"
SECONDS = 20.0


class JoinError(Exception):
    """The host cannot join or leave; the message says why and what to do."""


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


def learn_authority(base: str, expected: str) -> str:
    """Return the authority's certificate (PEM), which must be the one that the token names.

    Raises:
        JoinError: The hub cannot be reached, or somebody else answers there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said here, and what is heard is checked below
    with httpx.Client(base_url=base, verify=context, trust_env=False, timeout=SECONDS) as client:
        pem = _reply(client, "GET", AUTHORITY).text
    try:
        found = fingerprint(pem)
    except ValueError:
        found = ""
    if found != expected:
        raise JoinError(
            f"{base} is not the hub that made this token, or somebody stands between; nothing was"
            " sent to it"
        )
    return pem


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
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    with httpx.Client(base_url=base, verify=context, trust_env=False, timeout=SECONDS) as client:
        reply = _reply(client, "POST", JOIN, body.model_dump_json())
    try:
        return JoinReply.model_validate_json(reply.content)
    except ValidationError as error:
        raise JoinError("the hub's answer cannot be read; are both of one version?") from error


def _reply(client: httpx.Client, method: str, path: str, body: str | None = None) -> httpx.Response:
    headers = {WIRE_HEADER: str(WIRE_VERSION), REQUEST_ID_HEADER: new_request_id()}
    if body is not None:
        headers["Content-Type"] = "application/json"
    extensions = {"sni_hostname": HUB_NAME}
    try:
        reply = client.request(method, path, content=body, headers=headers, extensions=extensions)
    except httpx.HTTPError as error:
        reason = str(error) or type(error).__name__
        raise JoinError(f"the hub does not answer at {client.base_url}: {reason}") from error
    if reply.status_code != 200:
        raise JoinError(f"the hub refuses: {said(reply)}")
    return reply


def said(reply: httpx.Response) -> str:
    """Return what an error of the hub says."""
    try:
        return ErrorBody.model_validate_json(reply.content).message
    except ValidationError:
        return f"status {reply.status_code}"
