"""A hub of two pages: it believes who you say you are, and sends you back to the server you want.

The calls between proxy and hub are the real ones.
"""

import base64
import hashlib
import secrets
import threading
from dataclasses import dataclass
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self
from urllib.parse import parse_qs, urlencode, urlsplit

from carrel_proxy.core.access import token_hash
from carrel_proxy.core.cookies import single_cookie
from carrel_shared.clock import SystemClock
from carrel_shared.wire.access import (
    CodeRedemption,
    RedeemedToken,
    Verdict,
    VerdictRequest,
    Visitor,
)

LOGIN = "jupyterhub-hub-login"
SESSION = "jupyterhub-session-id"


@dataclass
class Code:
    """An authorization code that waits to be redeemed."""

    client_id: str
    session_id: str
    challenge: str
    user: str


class StandInHub:
    """Listens on two ports. Use it as a context manager."""

    def __init__(self) -> None:
        self.codes: dict[str, Code] = {}
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self._servers = [ThreadingHTTPServer(("127.0.0.1", 0), self._handler()) for _ in range(2)]
        self.public, self.internal = (f"127.0.0.1:{s.server_port}" for s in self._servers)

    def __enter__(self) -> Self:
        for server in self._servers:
            threading.Thread(target=server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def authorize(self, query: dict[str, str], user: str, session_id: str) -> str:
        """Return where a browser goes with its code."""
        code = secrets.token_urlsafe(8)
        self.codes[code] = Code(query["client_id"], session_id, query["code_challenge"], user)
        return f"{query['redirect_uri']}?{urlencode({'code': code, 'state': query['state']})}"

    def redeem(self, asked: CodeRedemption) -> RedeemedToken | None:
        code = self.codes.pop(asked.code, None)
        digest = hashlib.sha256(asked.code_verifier.encode()).digest()
        challenge = base64.urlsafe_b64encode(digest).decode().rstrip("=")
        if code is None or (code.client_id, code.challenge) != (asked.client_id, challenge):
            return None
        if not asked.session_id or code.session_id != asked.session_id:
            return None
        token = secrets.token_urlsafe(16)
        verdict = Verdict(known=True, allow=True, visitor=Visitor(name=code.user))
        self.verdicts[token_hash(token.encode()), asked.server_id] = verdict
        expires = SystemClock().now() + timedelta(hours=1)
        return RedeemedToken(token=token, expires_at=expires, verdict=verdict)

    def verdict(self, asked: VerdictRequest) -> Verdict:
        unknown = Verdict(known=False, allow=False)
        return self.verdicts.get((asked.token_hash, asked.server_id), unknown)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(_Handler):
            def do_GET(self) -> None:
                where = urlsplit(self.path)
                if where.path.startswith("/hub/as/"):
                    user = where.path.removeprefix("/hub/as/")
                    self.answer(
                        200,
                        user.encode(),
                        ("Set-Cookie", f"{LOGIN}={user}; Path=/hub/; HttpOnly"),
                        ("Set-Cookie", f"{SESSION}={secrets.token_hex(16)}; Path=/; HttpOnly"),
                    )
                elif where.path == "/hub/api/oauth2/authorize":
                    query = {name: values[0] for name, values in parse_qs(where.query).items()}
                    there = hub.authorize(query, self.cookie(LOGIN), self.cookie(SESSION))
                    self.answer(302, b"", ("Location", there))
                elif where.path == "/internal/v1/health":
                    self.answer(200, b"{}")
                else:
                    self.answer(404, b"nothing here")

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.path.endswith("/verdict"):
                    asked = VerdictRequest.model_validate_json(body)
                    self.answer(200, hub.verdict(asked).model_dump_json().encode())
                elif self.path.endswith("/redeem"):
                    redeemed = hub.redeem(CodeRedemption.model_validate_json(body))
                    text = redeemed.model_dump_json() if redeemed is not None else "{}"
                    self.answer(200 if redeemed is not None else 403, text.encode())
                else:
                    self.answer(202 if self.path.endswith("/resync") else 204, b"")

        return Handler


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def cookie(self, name: str) -> str:
        values = [value.encode() for value in self.headers.get_all("Cookie", [])]
        return (single_cookie(values, name.encode()) or b"").decode()

    def answer(self, status: int, body: bytes, *fields: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in fields:
            self.send_header(name, value)
        if status != 204:
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Say nothing."""
