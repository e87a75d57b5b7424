"""Lets requests pass to guarded routes, or not; asks the hub when it must, and never twice at once.

Also watches the connections that are open: what the hub no longer allows, or can no longer be asked
about for too long, is cut.
"""

import asyncio
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import structlog

from carrel_proxy.access.hub import Hub
from carrel_proxy.access.verdicts import Grant, Key, Verdicts, build_grant
from carrel_proxy.core.access import (
    Allowed,
    Ask,
    Credentials,
    Refused,
    Standing,
    Via,
    decide,
)
from carrel_proxy.engine.counters import Counters
from carrel_proxy.errors import HubAwayError
from carrel_shared.clock import Clock
from carrel_shared.tasks import TaskOwner
from carrel_shared.wire.access import Verdict
from carrel_shared.wire.routes import Revocation

log = structlog.get_logger(__name__)

MOST_TRIES = 3
"""How often a verdict is asked for again because a revocation came in meanwhile."""

AWAY_SECONDS = 5.0
"""How long nothing is asked in the background after the hub was found away."""

SWEEP_SECONDS = 2.0
"""How often everything that is open is looked at."""


@dataclass(frozen=True, slots=True)
class Passage:
    """What lets requests with the very same fields pass to one route, worked out once.

    Attributes:
        version: Of the verdicts it follows from; when they change it no longer counts.
        until: When, by the monotonic clock, the hub should be asked again.
        kept: What goes on of the fields, CRLF before each.
        added: What is added for the server.
    """

    version: int
    until: float
    grant: Grant
    kept: bytes = field(repr=False)
    added: bytes = field(repr=False)


class Guard:
    """Decides for the data plane.

    Attributes:
        open_grants: Set by the data plane: the passages of all open connections.
        cut: Set by the data plane: ends every connection whose passage fits.
    """

    def __init__(
        self,
        verdicts: Verdicts,
        hub: Hub,
        tasks: TaskOwner,
        clock: Clock,
        counters: Counters,
    ) -> None:
        self.open_grants: Callable[[], Iterable[Grant]] = tuple
        self.cut: Callable[[Callable[[Grant], bool]], None] = lambda _fits: None
        self._verdicts = verdicts
        self._hub = hub
        self._tasks = tasks
        self._clock = clock
        self._counters = counters
        self._asking: dict[Key, asyncio.Future[Verdict | HubAwayError]] = {}
        self._refresh_from = float("-inf")
        self._sweep_from = float("-inf")

    def check(self, shown: Credentials, server_id: str) -> Grant | Refused | None:
        """Decide with what is known; None means that the hub must be asked: see `resolve`."""

        def known(token_hash: str) -> Verdict | None:
            verdict, worth = self._verdicts.look_up((token_hash, server_id))
            if worth is Standing.REFRESH:
                self._refresh((token_hash, server_id))
            return verdict

        decision = decide(shown, known)
        if isinstance(decision, Allowed):
            self._counters.verdict_hits += 1
            return self._verdicts.grant((decision.token_hash, server_id), decision.via)
        if isinstance(decision, Ask):
            self._counters.verdict_misses += 1
            return None
        return decision

    def still_counts(self, passage: Passage) -> bool:
        """Whether a passage lets a request pass without another look."""
        if passage.version != self._verdicts.version or self._clock.monotonic() >= passage.until:
            return False
        self._counters.verdict_hits += 1
        return True

    def passage(self, grant: Grant, kept: bytes, added: bytes) -> Passage:
        """Return what lets the next request like this one pass; see `Passage`."""
        until = self._verdicts.good_until(grant.key)
        return Passage(self._verdicts.version, until, grant, kept, added)

    async def resolve(self, shown: Credentials, server_id: str) -> Grant | Refused:
        """Decide, asking the hub as far as needed.

        Raises:
            HubAwayError: If it must be asked and cannot be.
        """
        for _ in range(MOST_TRIES):
            answers: dict[str, Verdict] = {}
            serial = self._verdicts.serial
            decision = await self._decide(shown, server_id, answers)
            if isinstance(decision, Refused):
                return decision
            if serial == self._verdicts.serial:
                return self._grant((decision.token_hash, server_id), decision.via, answers)
            # A revocation came while the answer was on its way: it may be about this one.
        raise HubAwayError("access keeps changing while it is checked")

    async def _decide(
        self, shown: Credentials, server_id: str, answers: dict[str, Verdict]
    ) -> Allowed | Refused:
        def known(token_hash: str) -> Verdict | None:
            answer = answers.get(token_hash)
            return answer or self._verdicts.look_up((token_hash, server_id))[0]

        while isinstance(decision := decide(shown, known), Ask):
            answers[decision.token_hash] = await self._ask((decision.token_hash, server_id))
        return decision

    def _grant(self, key: Key, via: Via, answers: dict[str, Verdict]) -> Grant:
        found = self._verdicts.grant(key, via)
        return found or build_grant(key, via, answers[key[0]])

    async def _ask(self, key: Key) -> Verdict:
        answer = await asyncio.shield(self._ask_soon(key))
        if isinstance(answer, HubAwayError):
            raise answer
        return answer

    def _refresh(self, key: Key) -> None:
        """Ask in the background, unless the hub was away just now."""
        if self._clock.monotonic() >= self._refresh_from:
            self._ask_soon(key)

    def _ask_soon(self, key: Key) -> "asyncio.Future[Verdict | HubAwayError]":
        """Ask unless that is under way already. The answer may be that there is none."""
        future = self._asking.get(key)
        if future is None:
            future = self._asking[key] = asyncio.get_running_loop().create_future()
            self._tasks.start(self._fetch(key, future), name="verdict")
        return future

    async def _fetch(self, key: Key, future: "asyncio.Future[Verdict | HubAwayError]") -> None:
        answer: Verdict | HubAwayError = HubAwayError("the proxy is stopping")
        try:
            answer = await self._fetch_current(key)
        except HubAwayError as error:
            answer = error
            self._refresh_from = self._clock.monotonic() + AWAY_SECONDS
        finally:
            self._asking.pop(key, None)
            if not future.done():
                future.set_result(answer)
        if isinstance(answer, Verdict) and not answer.allow:
            self.cut(lambda grant: grant.key == key)

    async def _fetch_current(self, key: Key) -> Verdict:
        for _ in range(MOST_TRIES):
            serial = self._verdicts.serial
            self._counters.verdict_asks += 1
            verdict = await self._hub.verdict(*key)
            if self._verdicts.put(key, verdict, serial):
                return verdict
        raise HubAwayError("access keeps changing while it is checked")

    def revoke(self, revocation: Revocation) -> None:
        """Apply a revocation at once: to verdicts, and to what is open.

        Where access is decided anew, connections are asked about first, since most of them may
        stay; where something ended, they are cut.
        """
        self._counters.revocations += 1
        self._verdicts.revoke(revocation)
        if revocation.server_id is None and not revocation.ask_first:
            self.cut(lambda grant: grant.ends_with(revocation))
        keys = {grant.key for grant in self.open_grants() if grant.ends_with(revocation)}
        for key in keys:
            self._tasks.start(self._confirm(key), name="confirm-access")

    def recheck_all(self) -> None:
        """After a gap in what the hub said: nothing counts, and nothing stays open, unconfirmed."""
        self._verdicts.recheck_all()
        for key in {grant.key for grant in self.open_grants()}:
            self._tasks.start(self._confirm(key), name="confirm-access")

    async def _confirm(self, key: Key) -> None:
        try:
            await self._ask(key)
        except HubAwayError:
            self.cut(lambda grant: grant.key == key)

    def sweep(self) -> None:
        """Look at what is open: ask for what has grown old, cut what has ended."""
        now = self._clock.monotonic()
        if now < self._sweep_from:
            return
        self._sweep_from = now + SWEEP_SECONDS
        for key in {grant.key for grant in self.open_grants()}:
            _, worth = self._verdicts.look_up(key)
            if worth is Standing.REFRESH:
                self._refresh(key)
            elif worth is Standing.ASK and key not in self._asking:
                # Its token has ended, or nobody could be asked for too long. Or it only fell out of
                # the cache: one more question tells.
                self._tasks.start(self._confirm(key), name="confirm-access")
