"""First calls to a hub by TLS: look whether it is the right one, then say something to it."""

import ssl
from collections.abc import Mapping

import httpx
from pydantic import ValidationError

from carrel_shared.fleet import HUB_NAME
from carrel_shared.fleet_keys import fingerprint
from carrel_shared.service_auth import new_request_id
from carrel_shared.wire import REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION
from carrel_shared.wire.errors import ErrorBody

AUTHORITY = "/internal/v1/fleet/authority"
SECONDS = 20.0


class JoinError(Exception):
    """Somebody cannot join or leave the fleet; the message says why and what to do."""


def learn_authority(base: str, expected: str) -> str:
    """Return the authority's certificate (PEM), which must be the one that is known beforehand.

    Args:
        expected: Its fingerprint.

    Raises:
        JoinError: The hub cannot be reached, or somebody else answers there.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # nothing is said here, and what is heard is checked below
    with httpx.Client(base_url=base, verify=context, trust_env=False, timeout=SECONDS) as client:
        pem = ask(client, "GET", AUTHORITY).text
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


def known_hub(base: str, authority: str) -> httpx.Client:
    """Return a client that speaks to nobody but a hub under this authority (PEM)."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(cadata=authority)
    return httpx.Client(base_url=base, verify=context, trust_env=False, timeout=SECONDS)


def ask(
    client: httpx.Client,
    method: str,
    path: str,
    body: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> httpx.Response:
    """Make a call that the hub grants.

    Raises:
        JoinError: It does not, or does not answer.
    """
    sent = {WIRE_HEADER: str(WIRE_VERSION), REQUEST_ID_HEADER: new_request_id(), **(headers or {})}
    if body is not None:
        sent["Content-Type"] = "application/json"
    extensions = {"sni_hostname": HUB_NAME}
    try:
        reply = client.request(method, path, content=body, headers=sent, extensions=extensions)
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
