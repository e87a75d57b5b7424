"""Calls to the agents. Where an agent is, and its key, come from the settings, never from it."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import TypeVar

import structlog
from pydantic import BaseModel, ValidationError

from carrel_hub.errors import AgentRefusedError, AgentUnreachableError
from carrel_hub.settings import PeerSettings
from carrel_shared.addresses import parse_address
from carrel_shared.calls import Answer, Client, PlainClient, http_errors
from carrel_shared.service_auth import service_headers
from carrel_shared.wire.errors import ErrorBody
from carrel_shared.wire.limits import LimitsChange, ServerUsage
from carrel_shared.wire.servers import LogTail, ServerReport, ServerSpec, StopRequest

log = structlog.get_logger(__name__)
M = TypeVar("M", bound=BaseModel)

CALL_SECONDS = 10.0
"""How long an agent may take to answer; it accepts starts and stops without awaiting them."""


def _connect(peer: PeerSettings) -> Client:
    return PlainClient(parse_address(peer.url), timeout_seconds=CALL_SECONDS)


@dataclass(frozen=True, slots=True)
class JoinedAgent:
    """An agent on another machine.

    Attributes:
        which: What changes when it has joined again, so that nothing old is used.
        key: What the hub shows it.
        connect: How it is reached.
    """

    which: tuple[str, int, str, int]
    key: str
    connect: Callable[[], Client]


async def _nobody_joined(_name: str) -> JoinedAgent | None:
    return None


class AgentClients:
    """One connection pool for each agent, opened when first used.

    Args:
        peers: The configured agents.
        connect: How a client is made; tests put an application in place of a network.
        joined: Looks up the agents that have joined.
    """

    def __init__(
        self,
        peers: Sequence[PeerSettings] = (),
        connect: Callable[[PeerSettings], Client] = _connect,
        joined: Callable[[str], Awaitable[JoinedAgent | None]] = _nobody_joined,
    ) -> None:
        self._peers = {peer.name: peer for peer in peers}
        self._connect = connect
        self._joined = joined
        self._clients: dict[str, tuple[object, Client]] = {}

    async def start_server(
        self, host: str, spec: ServerSpec, *, wait_seconds: float = 0
    ) -> ServerReport:
        """Ask for one generation of a server. Asking again is harmless and answers how it stands.

        Args:
            wait_seconds: How long the agent may wait for the server before it answers.

        Raises:
            AgentUnreachableError: Nothing is known of what became of the request.
            AgentRefusedError: The agent will not; `code` says why.
        """
        path = f"/agent/v1/servers/{spec.server_id}?wait={wait_seconds:g}"
        reply = await self._call("PUT", host, path, spec)
        return _read(ServerReport, host, reply)

    async def stop_server(
        self, host: str, server_id: str, request: StopRequest
    ) -> ServerReport | None:
        """Ask an agent to stop a server; None when it knows no such server."""
        reply = await self._call("POST", host, f"/agent/v1/servers/{server_id}/stop", request)
        return None if reply is None else _read(ServerReport, host, reply)

    async def server(self, host: str, server_id: str) -> ServerReport | None:
        """Return what an agent knows of a server; None when it knows no such server."""
        reply = await self._call("GET", host, f"/agent/v1/servers/{server_id}")
        return None if reply is None else _read(ServerReport, host, reply)

    async def log_tail(self, host: str, server_id: str, *, lines: int = 40) -> list[str]:
        """Return the last lines a server printed; none when the agent knows no such server."""
        reply = await self._call("GET", host, f"/agent/v1/servers/{server_id}/log?lines={lines}")
        return [] if reply is None else _read(LogTail, host, reply).lines

    async def usage(self, host: str, server_id: str) -> ServerUsage | None:
        """Return what a server uses; None when the agent runs no such server."""
        reply = await self._call("GET", host, f"/agent/v1/servers/{server_id}/usage")
        return None if reply is None else _read(ServerUsage, host, reply)

    async def change_limits(
        self, host: str, server_id: str, change: LimitsChange
    ) -> ServerUsage | None:
        """Have other limits put in force; None when the agent runs no such server."""
        reply = await self._call("PUT", host, f"/agent/v1/servers/{server_id}/limits", change)
        return None if reply is None else _read(ServerUsage, host, reply)

    async def follow_log(
        self, host: str, server_id: str, *, lines: int
    ) -> AsyncGenerator[bytes, None]:
        """Yield the last lines a server printed, and more as it prints, until it has ended.

        Something empty comes first, as soon as the agent has answered.

        Raises:
            AgentUnreachableError: The agent is away, or goes away meanwhile.
        """
        import httpx

        client, headers = await self._client(host)
        path = f"/agent/v1/servers/{server_id}/log/stream?lines={lines}"
        waits = httpx.Timeout(CALL_SECONDS, read=None)
        try:
            async with AsyncExitStack() as opened:
                async with asyncio.timeout(CALL_SECONDS):
                    reply = await opened.enter_async_context(
                        client.stream("GET", path, headers=headers, timeout=waits)
                    )
                yield b""
                if reply.status_code != 200:
                    return
                async for part in reply.aiter_bytes():
                    yield part
        except http_errors() as error:
            raise _away(host, error) from error
        except TimeoutError as error:
            raise _away(host, error) from error

    async def warm(self, names: Iterable[str]) -> None:
        """Hint to agents that a start is likely soon. Nothing depends on it."""
        for name in names:
            try:
                await self._call("POST", name, "/agent/v1/warm")
            except (AgentUnreachableError, AgentRefusedError) as error:
                log.debug("warm_hint_failed", agent=name, reason=error.message)

    async def close(self) -> None:
        """Close every connection."""
        for _, client in self._clients.values():
            await client.aclose()
        self._clients.clear()

    async def _client(self, host: str) -> tuple[Client, dict[str, str]]:
        """Return the connections to an agent, and what to show it."""
        if (peer := self._peers.get(host)) is not None:
            key = peer.key.get_secret_value()
            return await self._opened(host, None, lambda: self._connect(peer)), service_headers(key)
        found = await self._joined(host)
        if found is None:
            raise AgentUnreachableError(
                f"the host {host!r} is neither in the hub's settings nor has it joined"
            )
        client = await self._opened(host, found.which, found.connect)
        return client, service_headers(found.key)

    async def _opened(self, host: str, which: object, connect: Callable[[], Client]) -> Client:
        known = self._clients.get(host)
        if known is not None and known[0] == which:
            return known[1]
        client = connect()
        self._clients[host] = (which, client)
        if known is not None:
            await known[1].aclose()
        return client

    async def _call(
        self, method: str, host: str, path: str, body: BaseModel | None = None
    ) -> Answer | None:
        client, headers = await self._client(host)
        content = None
        if body is not None:
            content = body.model_dump_json().encode()
            headers["Content-Type"] = "application/json"
        try:
            reply = await client.request(method, path, content=content, headers=headers)
        except http_errors() as error:
            raise _away(host, error) from error
        if reply.status_code == 404:
            return None
        if reply.status_code >= 500:
            raise AgentUnreachableError(
                f"the agent of host {host!r} answered {reply.status_code}: {_reason(reply)[1]}"
            )
        if reply.status_code >= 300:
            code, message = _reason(reply)
            raise AgentRefusedError(message, status=reply.status_code, agent_code=code)
        return reply


def _away(host: str, error: Exception) -> AgentUnreachableError:
    return AgentUnreachableError(
        f"the agent of host {host!r} does not answer ({type(error).__name__})"
    )


def _read(model: type[M], host: str, reply: Answer | None) -> M:
    try:
        return model.model_validate_json(reply.content if reply is not None else b"")
    except ValidationError as error:
        raise AgentUnreachableError(
            f"the agent of host {host!r} answered something this hub cannot read;"
            " are both of one version?"
        ) from error


def _reason(reply: Answer) -> tuple[str, str]:
    try:
        body = ErrorBody.model_validate_json(reply.content)
    except ValidationError:
        return "unreadable", f"it gave no reason (status {reply.status_code})"
    return body.code, body.message
