"""What is shown when a request cannot be served: pages of a directory, of a server, or our own."""

from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import httpx
import structlog

from carrel_proxy.core.answers import Answer, Trouble, trouble_answer
from carrel_proxy.engine.deadlines import Deadlines
from carrel_proxy.engine.routes import LOG_SECONDS

log = structlog.get_logger(__name__)

TARGET_SECONDS = 5.0
"""How long the error target may take; whoever waits has waited already."""
MOST_PAGE_BYTES = 1024 * 1024


class ErrorPages:
    """Where the pages come from. At most one of both is set.

    Attributes:
        target: URL of a server that is asked for `/CODE?url=...`.
        asks: Pages take a call, so they cannot be had at once.
    """

    def __init__(
        self,
        deadlines: Deadlines,
        *,
        directory: Path | None = None,
        target: str | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        self.target = target.rstrip("/") if target is not None else None
        self._directory = directory
        self._client = client
        self._deadlines = deadlines
        self._logged = float("-inf")
        self.asks = target is not None and client is not None

    def at_once(self, trouble: Trouble, *, navigation: bool) -> Answer:
        """Return the page that takes no call.

        Args:
            navigation: A person waits for it. Where pages were set up and there is none, programs
                are told as the original tells everybody: in two words.
        """
        if self._directory is not None:
            for name in (f"{trouble.status}.html", "error.html"):
                try:
                    page = (self._directory / name).read_bytes()
                except OSError:
                    continue
                return Answer(trouble.status, ((b"Content-Type", b"text/html"),), page)
        if navigation or (self._directory is None and self.target is None):
            return trouble_answer(trouble, page=True)
        phrase = HTTPStatus(trouble.status).phrase.encode("ascii")
        kind = ((b"Content-Type", b"text/plain"),)
        return Answer(trouble.status, kind, phrase, trouble.reason)

    async def ask(self, trouble: Trouble, requested: bytes, *, navigation: bool) -> Answer:
        """Return the error target's page. It is told nothing of the client but what was asked for.

        Args:
            requested: Path and query as received.
            navigation: As for `at_once`, which is asked when the target has no page.
        """
        url = quote(requested, safe=_UNESCAPED).replace("~", "%7E")
        asked = f"{self.target}/{trouble.status}?url={url}"
        try:
            if self._client is None:
                return self.at_once(trouble, navigation=navigation)
            async with self._client.stream("GET", asked) as response:
                page = bytearray()
                async for piece in response.aiter_raw():
                    page += piece
                    if len(page) > MOST_PAGE_BYTES:
                        raise ValueError("the page is too large")
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            self._note_failure(str(error) or type(error).__name__)
            return self.at_once(trouble, navigation=navigation)
        kept = tuple(
            (name.title().encode("ascii"), value.encode("latin-1"))
            for name in ("content-type", "content-encoding")
            if (value := response.headers.get(name)) is not None
        )
        return Answer(trouble.status, kept, bytes(page))

    def _note_failure(self, reason: str) -> None:
        """Log it, unless that was done just now: each request that fails may come here."""
        now = self._deadlines.now
        if now - self._logged >= LOG_SECONDS:
            self._logged = now
            log.warning("error_target_failed", reason=reason)

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()


_UNESCAPED = "*-._"  # as forms leave them
