"""The stream that tells a browser how a start goes on, as JupyterHub's clients read it."""

import html
import json
from collections.abc import AsyncGenerator
from dataclasses import asdict
from typing import Any

from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.errors import InvalidRequestError, NotFoundError
from carrel_hub.places import Places
from carrel_hub.spawns.states import State

KEEPALIVE_SECONDS = 8.0
"""How often two newlines are sent, so that nothing on the way takes the stream for dead."""

LOOK_SECONDS = 1.0

_UNDER_WAY = (State.QUEUED, State.STARTING)


def check_progress(user: User, row: Server | None) -> Server:
    """Return the server if there is something to tell of it.

    Raises:
        NotFoundError: It is stopped.
        InvalidRequestError: It is not starting.
    """
    if row is None or row.state == State.STOPPED:
        raise NotFoundError(f"{user.name} has no server that is starting")
    if row.state in (State.STOPPING, State.UNKNOWN):
        raise InvalidRequestError(f"the server of {user.name} is not starting: it is {row.state}")
    return row


async def progress_stream(hub: Hub, user: User, row: Server) -> AsyncGenerator[bytes, None]:
    """Yield the events of a start until it is ready or has failed."""
    yield b"\n\n"
    if row.state in _UNDER_WAY:
        yield frame({"progress": 0, "message": "Server requested"})
    told: dict[str, Any] = {"progress": 0, "message": "Server requested"}
    generation = row.generation
    spoke = hub.clock.monotonic()
    with hub.wakeups.watch(row.id) as watch:
        while True:
            async with hub.database.read() as session:
                current = await session.get(Server, row.id)
            if current is None or hub.wakeups.stopping:
                return
            if current.generation != generation or current.state not in _UNDER_WAY:
                yield frame(final_event(current, user, hub.settings.places, generation))
                return
            now = await _step(hub, current)
            if now != told:
                told = now
                yield frame(now)
                spoke = hub.clock.monotonic()
            elif hub.clock.monotonic() - spoke >= KEEPALIVE_SECONDS:
                yield b"\n\n"
                spoke = hub.clock.monotonic()
            await watch.wait(LOOK_SECONDS)


async def _step(hub: Hub, row: Server) -> dict[str, Any]:
    """Return the event of a start as it stands: where in the line it waits, or how far it is."""
    standing = await hub.line.standing(hub, row)
    if standing is not None:
        return {"progress": 0, "message": standing.words, "queue": asdict(standing)}
    return {"progress": min(row.progress, 99), "message": row.progress_message}


def final_event(row: Server, user: User, places: Places, generation: int) -> dict[str, Any]:
    """Return the event that ends a stream about one generation of a server. Pure."""
    if row.generation == generation and row.state in (State.READY, State.UNKNOWN):
        url = places.url(user.name, row.name)
        shown = html.escape(url)
        return {
            "progress": 100,
            "ready": True,
            "message": f"Server ready at {url}",
            "html_message": f'Server ready at <a href="{shown}">{shown}</a>',
            "url": url,
        }
    if row.generation == generation and row.state == State.FAILED:
        summary = (row.failure or {}).get("summary") or "nobody knows why"
        return {"progress": 100, "failed": True, "message": f"Spawn failed: {summary}"}
    return {"progress": 100, "failed": True, "message": "Spawn cancelled"}


def frame(event: dict[str, Any]) -> bytes:
    """Return one event of an event stream: a data line and nothing else."""
    return b"data: " + json.dumps(event).encode() + b"\n\n"
