"""What `carrel` asks of the services, over their unix sockets."""

import http.client
import json
import secrets
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from carrel_hub.up.errors import UpError
from carrel_hub.up.plan import Probe
from carrel_shared.wire import REQUEST_ID_HEADER, WIRE_HEADER, WIRE_VERSION

_MAX_REPLY = 1024 * 1024


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, seconds: float) -> None:
        super().__init__("carrel.internal", timeout=seconds)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


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

    Raises:
        OSError: If it does not answer, or not in time.
    """
    connection = _UnixConnection(path, seconds)
    try:
        connection.request(method, target, body=body, headers=dict(headers or {}))
        reply = connection.getresponse()
        return reply.status, reply.read(_MAX_REPLY)
    except http.client.HTTPException as error:
        raise OSError(f"no valid HTTP reply: {error!r}") from error
    finally:
        connection.close()


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

    def link(self, *, user: str, account: str | None) -> str:
        """Have a one-time sign-in link made; return its path below the origin. It is a secret.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        body = {"user": user, "account": account, "admin": True}
        return str(self._ask("POST", "/internal/v1/console/link", body)["path"])

    def notebooks(self) -> list[Notebook]:
        """Return the servers that are not stopped.

        Raises:
            UpError: If the hub refuses or does not answer.
        """
        found = self._ask("GET", "/internal/v1/console/servers")["servers"]
        return [Notebook(each["user"], each["name"], each["state"]) for each in found]

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
            REQUEST_ID_HEADER: secrets.token_hex(8),
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
