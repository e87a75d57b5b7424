"""What the hub said about tokens, kept for a while: bounded, revocable, and saved on disk.

A verdict that was asked for before a revocation came in, and answered after it, is not kept: the
hub may have looked before the revocation was there.
"""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import timedelta

from pydantic import BaseModel, ConfigDict

from carrel_proxy.core.access import Freshness, Standing, Via, identity_fields, standing
from carrel_shared.clock import Clock
from carrel_shared.wire.access import Verdict
from carrel_shared.wire.base import Timestamp
from carrel_shared.wire.routes import Revocation

Key = tuple[str, str]
"""Token hash and server id."""

MOST_REFUSED = 1000
"""How many noes are remembered. They count for two seconds, and anybody can make up more."""


@dataclass(frozen=True, slots=True)
class Grant:
    """Somebody's passage to a server. Connections that use one carry it, so that it can end them.

    Attributes:
        fields: The lines that tell the server who it is.
    """

    key: Key
    user: str
    session_hash: str | None
    fields: bytes = field(repr=False)

    def ends_with(self, revocation: Revocation) -> bool:
        """Whether a revocation is about this passage."""
        return (
            (revocation.token_hash is not None and revocation.token_hash == self.key[0])
            or (revocation.server_id is not None and revocation.server_id == self.key[1])
            or (revocation.user is not None and revocation.user == self.user)
            or (
                revocation.session_hash is not None and revocation.session_hash == self.session_hash
            )
        )


class SavedVerdict(BaseModel):
    """A verdict as it is kept on disk. There is no secret in it: the token is a hash."""

    model_config = ConfigDict(frozen=True)

    token_hash: str
    server_id: str
    verdict: Verdict
    confirmed_at: Timestamp


@dataclass(slots=True)
class _Entry:
    verdict: Verdict
    confirmed: float
    recheck: bool = False
    grants: dict[Via, Grant] = field(default_factory=dict)


class Verdicts:
    """The cache. Noes are kept apart: made-up tokens must not drive out who is signed in.

    Attributes:
        serial: Counts what may have made answers under way wrong.
        version: Counts what may have changed a yes out of the cache, time apart.
        on_change: Called when there is something new to save.
        on_kept: Called with the key of a verdict that other processes should know of too.
    """

    def __init__(self, clock: Clock, freshness: Freshness, most: int) -> None:
        self.serial = 0
        self.version = 0
        self.on_change: Callable[[], None] = lambda: None
        self.on_kept: Callable[[Key], None] = lambda _key: None
        self._clock = clock
        self._freshness = freshness
        self._most = most
        self._entries: OrderedDict[Key, _Entry] = OrderedDict()
        self._refused: OrderedDict[Key, _Entry] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def look_up(self, key: Key) -> tuple[Verdict | None, Standing]:
        """Return a verdict and what it is worth now; None with `ASK`."""
        entry = self._entries.get(key) or self._refused.get(key)
        if entry is None:
            return None, Standing.ASK
        age = self._clock.monotonic() - entry.confirmed
        worth = standing(
            entry.verdict, age, self._clock.now(), self._freshness, recheck=entry.recheck
        )
        if worth is Standing.ASK:
            return None, worth
        if entry.verdict.allow:
            self._entries.move_to_end(key)
        return entry.verdict, worth

    def grant(self, key: Key, via: Via) -> Grant | None:
        """Return the passage that a verdict in the cache gives."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        found = entry.grants.get(via)
        if found is None:
            found = entry.grants[via] = build_grant(key, via, entry.verdict)
        return found

    def good_until(self, key: Key) -> float:
        """Return until when, by the monotonic clock, a yes counts without another look."""
        entry = self._entries.get(key)
        if entry is None or entry.recheck:
            return float("-inf")
        until = entry.confirmed + self._freshness.refresh
        if entry.verdict.expires_at is None:
            return until
        left = (entry.verdict.expires_at - self._clock.now()).total_seconds()
        return min(until, self._clock.monotonic() + left)

    def put(self, key: Key, verdict: Verdict, serial: int) -> bool:
        """Keep what the hub said; False if it may be out of date already.

        Args:
            serial: What `serial` was before the hub was asked.
        """
        if serial != self.serial:
            return False
        if self._take(key, _Entry(verdict, self._clock.monotonic())):
            self.on_change()
            self.on_kept(key)
        return True

    def _take(self, key: Key, entry: _Entry) -> bool:
        """Take up a verdict; False for a no where there was no yes, which tells nobody anything."""
        before = self._entries.get(key)
        if not entry.verdict.allow:
            self._remember(self._refused, MOST_REFUSED, key, entry)
            if before is None:
                return False
            del self._entries[key]
            self.version += 1
            return True
        self._refused.pop(key, None)
        driven_out = self._remember(self._entries, self._most, key, entry)
        if before is not None and before.verdict == entry.verdict:
            entry.grants = before.grants
        else:
            self.version += 1
        self.version += driven_out
        return True

    @staticmethod
    def _remember(entries: OrderedDict[Key, _Entry], most: int, key: Key, entry: _Entry) -> bool:
        """Add an entry; True if that drove others out, those that were not used for longest."""
        entries[key] = entry
        entries.move_to_end(key)
        too_many = len(entries) > most
        while len(entries) > most:
            entries.popitem(last=False)
        return too_many

    def revoke(self, revocation: Revocation) -> None:
        """Forget every verdict a revocation is about."""
        self.serial += 1
        self.version += 1
        doomed = [
            key
            for key, entry in self._entries.items()
            if build_grant(key, "cookie", entry.verdict, bare=True).ends_with(revocation)
        ]
        for key in doomed:
            del self._entries[key]
        self._refused.clear()  # what was refused may be allowed now
        if doomed:
            self.on_change()

    def recheck_all(self) -> None:
        """Let no verdict count before the hub says it again: revocations may have been missed."""
        self.serial += 1
        self.version += 1
        self._refused.clear()
        for entry in self._entries.values():
            entry.recheck = True

    def snapshot(self) -> list[SavedVerdict]:
        """Return what is worth saving."""
        return [
            self._as_saved(key, entry) for key, entry in self._entries.items() if not entry.recheck
        ]

    def saved(self, key: Key) -> SavedVerdict | None:
        """Return one verdict as it would be saved."""
        entry = self._entries.get(key) or self._refused.get(key)
        return self._as_saved(key, entry) if entry is not None else None

    def _as_saved(self, key: Key, entry: _Entry) -> SavedVerdict:
        age = timedelta(seconds=self._clock.monotonic() - entry.confirmed)
        return SavedVerdict(
            token_hash=key[0],
            server_id=key[1],
            verdict=entry.verdict,
            confirmed_at=self._clock.now() - age,
        )

    def restore(self, saved: Iterable[SavedVerdict]) -> None:
        """Take up what was saved before a restart, or by another worker, as old as it is by now.

        What is known here already and was confirmed later stays.
        """
        now, monotonic = self._clock.now(), self._clock.monotonic()
        for one in saved:
            age = (now - one.confirmed_at).total_seconds()
            if age >= 0:  # one from the future says that the clock was moved, and proves nothing
                key = (one.token_hash, one.server_id)
                known = self._entries.get(key)
                if known is None or known.recheck or known.confirmed < monotonic - age:
                    self._take(key, _Entry(one.verdict, monotonic - age))


def build_grant(key: Key, via: Via, verdict: Verdict, *, bare: bool = False) -> Grant:
    """Return the passage a verdict gives; `bare` without the lines for the server."""
    visitor = verdict.visitor
    fields = identity_fields(visitor, via) if visitor is not None and not bare else b""
    return Grant(key, visitor.name if visitor is not None else "", verdict.session_hash, fields)
