"""A hub that says what a test wants, over the calls that the real one has."""

import json
from datetime import timedelta
from typing import Any

import httpx

from carrel_proxy.access.hub import Hub
from carrel_proxy.core.access import token_hash
from carrel_shared.clock import SystemClock
from carrel_shared.wire.access import RedeemedToken, Verdict, Visitor

UNKNOWN = Verdict(known=False, allow=False)


def allowed(user: str = "alice", *, session: str = "", seconds: float = 3600) -> Verdict:
    return Verdict(
        known=True,
        allow=True,
        visitor=Visitor(name=user, display_name=f"{user} ü"),
        session_hash=session or None,
        expires_at=SystemClock().now() + timedelta(seconds=seconds),
    )


class FakeHub:
    """Verdicts by token and server, codes to redeem, and a record of every call."""

    def __init__(self) -> None:
        self.away = False
        self.verdicts: dict[tuple[str, str], Verdict] = {}
        self.codes: dict[str, RedeemedToken] = {}
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.request_ids: list[str] = []

    def know(self, token: str, server_id: str, verdict: Verdict) -> None:
        self.verdicts[token_hash(token.encode()), server_id] = verdict

    def called(self, ending: str) -> list[dict[str, Any]]:
        return [body for path, body in self.calls if path.endswith(ending)]

    def _handle(self, request: httpx.Request) -> httpx.Response:
        if self.away:
            raise httpx.ConnectError("nobody there", request=request)
        path = request.url.path
        if path == "/internal/v1/health":
            return httpx.Response(200)
        body = json.loads(request.content)
        self.calls.append((path, body))
        self.request_ids.append(request.headers["X-Request-Id"])
        assert request.headers["Carrel-Wire"] == "1"
        if path.endswith("/verdict"):
            verdict = self.verdicts.get((body["token_hash"], body["server_id"]), UNKNOWN)
            return _reply(200, verdict.model_dump_json())
        if path.endswith("/redeem"):
            redeemed = self.codes.pop(body["code"], None)
            if redeemed is None:
                return _reply(403, '{"status":403,"code":"refused","message":"no"}')
            return _reply(200, redeemed.model_dump_json())
        return httpx.Response(202 if path.endswith("/resync") else 204)

    def client(self) -> Hub:
        http = httpx.AsyncClient(
            transport=httpx.MockTransport(self._handle), base_url="http://hub.internal"
        )
        return Hub("unix:/nowhere", "k" * 40, "edge", client=http)


def _reply(status: int, body: str) -> httpx.Response:
    return httpx.Response(status, content=body, headers={"Content-Type": "application/json"})
