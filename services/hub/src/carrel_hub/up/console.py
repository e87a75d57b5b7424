"""What `carrel` asks of the services, over their unix sockets."""

import json
import os
import socket
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carrel_hub.up.errors import UpError
from carrel_hub.up.plan import Probe
from carrel_shared.wire import REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION

_MAX_REPLY = 1024 * 1024


def call(
    path: Path,
    method: str,
    target: str,
    *,
    headers: Mapping[str, str] | None = None,
    body: bytes | None = None,
    seconds: float = 5.0,
) -> tuple[int, bytes]:
    """Send one request to a service on a unix socket; return status and body.

    HTTP/1.0, so that the reply is one piece that ends with the connection: `http.client` would
    cost as much memory as all the rest of `carrel up` (RFC 9112, section 9.3).

    Raises:
        OSError: If it does not answer, or not in time.
    """
    lines = [f"{method} {target} HTTP/1.0", "Host: carrel.internal"]
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    if body is not None:
        lines.append(f"Content-Length: {len(body)}")
    request = "\r\n".join([*lines, "", ""]).encode("ascii") + (body or b"")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
        client.settimeout(seconds)
        client.connect(str(path))
        client.sendall(request)
        reply = b""
        while (chunk := client.recv(65536)) and len(reply) < _MAX_REPLY:
            reply += chunk
    head, _, content = reply.partition(b"\r\n\r\n")
    words = head.split(None, 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/1.") or not words[1].isdigit():
        raise OSError("no valid HTTP reply")
    return int(words[1]), content


def is_up(probe: Probe, *, seconds: float = 1.0) -> bool:
    """Whether a service answers."""
    try:
        if probe.path is not None:
            return call(probe.socket, "GET", probe.path, seconds=seconds)[0] == 200
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as client:
            client.settimeout(seconds)
            client.connect(str(probe.socket))
            return True
    except OSError:
        return False


@contextmanager
def _expected_shape() -> Iterator[None]:
    try:
        yield
    except (KeyError, TypeError):
        raise UpError("the hub answered something this carrel cannot read") from None


@dataclass(frozen=True, slots=True)
class Link:
    """A sign-in link.

    Attributes:
        origin: Where the hub is, if it answers nowhere else.
    """

    path: str = field(repr=False)
    origin: str = ""

    def at(self, origin: str) -> str:
        """Return the whole address, at `origin` unless the hub is elsewhere."""
        return f"{self.origin or origin}{self.path}"


@dataclass(frozen=True, slots=True)
class Notebook:
    """A notebook server that is not stopped."""

    user: str
    name: str
    state: str

    def __str__(self) -> str:
        return f"{self.user}/{self.name}" if self.name else self.user


class HubConsole:
    """The console's calls to the hub."""

    def __init__(self, socket_path: Path, key: str) -> None:
        self._socket = socket_path
        self._key = key

    def link(self, *, user: str, account: str | None) -> Link:
        """Have a one-time sign-in link made. It is a secret.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        body = {"user": user, "account": account, "admin": True}
        reply = self._ask("POST", "/internal/v1/console/link", body)
        with _expected_shape():
            return Link(str(reply["path"]), str(reply.get("origin", "")))

    def join_token(self, host: str) -> str:
        """Return what lets a host join, once. It is a secret.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        reply = self._ask("POST", "/internal/v1/console/join-token", {"host": host})
        with _expected_shape():
            return str(reply["token"])

    def notebooks(self) -> list[Notebook]:
        """Return the servers that are not stopped.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        reply = self._ask("GET", "/internal/v1/console/servers")
        with _expected_shape():
            return [Notebook(s["user"], s["name"], s["state"]) for s in reply["servers"]]

    def services(self) -> list[str]:
        """Return the managed services that are not stopped.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        reply = self._ask("GET", "/internal/v1/console/servers")
        with _expected_shape():
            return [str(name) for name in reply.get("services", [])]

    def stop_all(self, reason: str) -> None:
        """Ask for every server to stop; `notebooks` tells when they have.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        self._ask("POST", "/internal/v1/console/stop-all", {"reason": reason})

    def _ask(self, method: str, target: str, body: Mapping[str, Any] | None = None) -> Any:
        headers = {
            "Authorization": f"Bearer {self._key}",
            WIRE_HEADER: str(WIRE_VERSION),
            REQUEST_ID_HEADER: os.urandom(8).hex(),
        }
        if body is not None:
            headers["Content-Type"] = "application/json"
        sent = None if body is None else json.dumps(body).encode()
        try:
            status, raw = call(self._socket, method, target, headers=headers, body=sent)
        except OSError as error:
            raise UpError(f"the hub does not answer ({error.strerror or error})") from None
        try:
            reply = json.loads(raw) if raw else {}
        except ValueError:
            reply = {}
        if status >= 300:
            said = reply.get("message", "") if isinstance(reply, dict) else ""
            raise UpError(f"the hub refused ({status}): {said or 'no reason given'}")
        return reply
