"""Answers that go on for long: how many of them somebody may have open, and until when."""

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

from starlette.responses import StreamingResponse

from carrel_hub.errors import ForbiddenError, TooManyRequestsError
from carrel_shared.tasks import TaskOwner

if TYPE_CHECKING:
    from starlette.requests import Request

    from carrel_hub.auth.subjects import Subject
    from carrel_hub.context import Hub

LOOK_SECONDS = 1.0
"""How often it is looked at whether whoever reads a stream still may."""
MOST_LOGS, MOST_PROGRESS = 10, 100
"""How many of each a user may have open. Services watch the starts of many, and are not counted."""

Parts = AsyncGenerator[bytes, None]


class OpenStreams:
    """How many streams of each kind everybody has open in this process."""

    def __init__(self) -> None:
        self._open: Counter[tuple[str, str]] = Counter()

    def begin(self, kind: str, who: "Subject", most: int) -> tuple[str, str]:
        """Count one more, and return what `end` takes.

        Raises:
            TooManyRequestsError: There are as many as may be.
        """
        key = (kind, who.actor)
        if who.service is None and self._open[key] >= most:
            raise TooManyRequestsError(
                f"You have {most} streams of this kind open, which is as many as may be; close one"
            )
        self._open[key] += 1
        return key

    def end(self, key: tuple[str, str]) -> None:
        self._open[key] -= 1
        if self._open[key] <= 0:
            del self._open[key]


class GuardedStream(StreamingResponse):
    """A stream that is counted, and ends when whoever reads it may no longer.

    Args:
        parts: What is sent.
        request: Of whoever reads.
        may_go_on: Whether a subject, as it is then, may read it.
        kind: What is counted together, `most` of which a user may have.

    Raises:
        TooManyRequestsError: The user has as many.
    """

    def __init__(
        self,
        parts: Parts,
        hub: "Hub",
        request: "Request",
        subject: "Subject",
        *,
        may_go_on: "Callable[[Subject], bool]",
        kind: str,
        most: int,
        media_type: str,
    ) -> None:
        self._streams, self._key = hub.streams, hub.streams.begin(kind, subject, most)

        async def allowed() -> bool:
            return not hub.wakeups.stopping and may_go_on(await _who_it_is_now(request))

        super().__init__(
            as_long_as(allowed, parts),
            media_type=media_type,
            headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"},
        )

    async def __call__(self, *asgi: Any) -> None:
        try:
            await super().__call__(*asgi)
        finally:
            self._streams.end(self._key)


async def as_long_as(allowed: Callable[[], Awaitable[bool]], parts: Parts) -> AsyncIterator[bytes]:
    """Yield parts until there are no more, or `allowed` says no; then close what makes them."""
    loop = asyncio.get_running_loop()
    look_at = loop.time() + LOOK_SECONDS
    owner, coming = TaskOwner(), None
    try:
        while True:
            coming = coming or owner.start(_next(parts), name="next-part")
            await asyncio.wait({coming}, timeout=max(look_at - loop.time(), 0))
            if loop.time() >= look_at:
                if not await allowed():
                    return
                look_at = loop.time() + LOOK_SECONDS
            if coming.done():
                part, coming = coming.result(), None
                if part is None:
                    return
                yield part
    finally:
        await owner.close()
        await parts.aclose()


async def _next(parts: Parts) -> bytes | None:
    return await anext(parts, None)


async def _who_it_is_now(request: "Request") -> "Subject":
    from carrel_hub.auth.subjects import ANONYMOUS, subject_at_once

    request.state.api_subject = request.state.page_subject = None
    try:
        return await subject_at_once(request)
    except ForbiddenError:
        return ANONYMOUS
