"""What this host's relay is told: which path leads to which server's socket."""

import secrets
from collections.abc import Iterable
from typing import TYPE_CHECKING

import structlog

from carrel_shared.service_auth import new_request_id, service_headers
from carrel_shared.wire.routes import Route, RouteTable, TableStatus
from carrel_shared.wire.servers import ServerReport, ServerState

if TYPE_CHECKING:
    import httpx

log = structlog.get_logger(__name__)

WAITING = "It answers; waiting for this host's relay"


class RelayRoutes:
    """Keeps a relay's table like what runs here.

    Args:
        client: Of the relay's control API.
        key: What the agent shows it.
    """

    def __init__(self, client: "httpx.AsyncClient", key: str) -> None:
        self._client = client
        self._key = key
        self._epoch = secrets.token_hex(8)
        self._number = 0
        self._told: dict[str, Route] | None = None
        self._failing = False

    async def follow(
        self, reports: Iterable[ServerReport], prefixes: dict[str, str]
    ) -> list[ServerReport]:
        """Tell the relay what has changed, and return the reports as the hub may have them.

        A server is not ready before its relay leads to it.

        Args:
            prefixes: Each server's path, by its id.
        """
        reports = list(reports)
        wanted = {
            report.server_id: Route(
                prefix=prefixes[report.server_id],
                targets=[report.target],
                peer_uid=report.peer_uid,
                server=True,
            )
            for report in reports
            if report.state in (ServerState.READY, ServerState.UNKNOWN)
            and report.target is not None
            and report.server_id in prefixes
        }
        if wanted != self._told or not await self._has_it():
            await self._tell(wanted)
        told = self._told or {}
        return [
            report
            if report.state != ServerState.READY or report.server_id in told
            else report.model_copy(update={"state": ServerState.STARTING, "progress": WAITING})
            for report in reports
        ]

    async def _has_it(self) -> bool:
        """Whether the relay still has what it was told; it may have been set up anew."""
        status = await self._call("GET", "/control/v1/status")
        return status is not None and (status.epoch, status.number) == (self._epoch, self._number)

    async def _tell(self, wanted: dict[str, Route]) -> None:
        self._number += 1
        table = RouteTable(epoch=self._epoch, number=self._number, routes=list(wanted.values()))
        status = await self._call("PUT", "/control/v1/table", table.json())
        if status is not None:
            self._told = wanted

    async def _call(self, method: str, path: str, body: bytes | None = None) -> TableStatus | None:
        import httpx

        headers = {
            **service_headers(self._key, new_request_id()),
            "Content-Type": "application/json",
        }
        try:
            reply = await self._client.request(method, path, content=body, headers=headers)
            reply.raise_for_status()
            status = TableStatus.model_validate_json(reply.content)
        except (httpx.HTTPError, ValueError) as error:
            if not self._failing:
                log.warning("relay_away", reason=str(error) or type(error).__name__)
            self._failing = True
            return None
        if self._failing:
            log.info("relay_reached")
        self._failing = False
        return status
