"""The other workers, as one worker sees them. All of it goes through the parent.

One worker leads: it is told what changes, applies it, tells all others, and answers only when they
have applied it too. One that does not within a second would go by rules that are no longer in
force; it is replaced. Whoever starts joins first: it takes what is in force from the leader, and is
told of every change after that.
"""

import asyncio
import itertools
import json
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import structlog

from carrel_proxy.process.frames import PARENT, FrameReader, frame
from carrel_shared.tasks import TaskOwner

log = structlog.get_logger(__name__)

TELL_SECONDS = 1.0
"""How long others may take to apply a change."""
WHOLE_SECONDS = 5.0
"""The same for something large."""
ASK_SECONDS = 1.0
REPLACE_SECONDS = 5.0
"""How long the parent may take to end a worker."""

Handler = Callable[[int, bytes], bytes]

_TELL, _TOLD, _ASK, _ANSWER, _NOTE = range(5)
_HEADER = struct.Struct("!BIB")
_JOIN = "join"


class CrewError(Exception):
    """Not all workers could be told."""


@dataclass(slots=True)
class _Waiting:
    """Somebody waits until all of these have answered."""

    missing: set[int]
    done: asyncio.Event = field(default_factory=asyncio.Event)
    answers: list[bytes] = field(default_factory=list)

    def heard(self, worker: int) -> None:
        self.missing.discard(worker)
        if not self.missing:
            self.done.set()


class Crew(asyncio.Protocol):
    """One worker's end of the channel. Not connected, it is alone and leads.

    Attributes:
        id: Its own address.
        lead: The leader's address; None while there is none.
        others: Everybody else who lives.
        on_order: Called with what the parent says, but for what concerns the crew alone.
        on_orphaned: Called when the parent is gone.
        snapshot: Returns what is in force, for those who join.
        take: Takes what a leader returned.
    """

    def __init__(self) -> None:
        self.id = 0
        self.lead: int | None = 0
        self.others: set[int] = set()
        self.on_order: Callable[[dict[str, Any]], None] = lambda _message: None
        self.on_orphaned: Callable[[], None] = lambda: None
        self.snapshot: Callable[[], bytes] = bytes
        self.take: Callable[[bytes], None] = lambda _data: None
        self._handlers: dict[str, Handler] = {_JOIN: self._joins}
        self._joined: set[int] = set()
        self._numbers = itertools.count(1)
        self._waiting: dict[int, _Waiting] = {}
        self._changed = asyncio.Event()
        self._transport: asyncio.WriteTransport | None = None
        self._reader = FrameReader()
        self._tasks = TaskOwner()
        self._joining: asyncio.Task[None] | None = None
        self._followed: int | None = None
        self._settled = False
        self._early: list[tuple[int, int]] = []

    # --- what a service uses ---

    @property
    def leads(self) -> bool:
        return self.lead == self.id

    def on(self, name: str, handler: Handler) -> None:
        """Have messages of this name answered by `handler(worker, body)`.

        Of one that is told, the answer means nothing but that it was applied.
        """
        self._handlers[name] = handler

    async def tell(self, name: str, body: bytes, *, seconds: float = TELL_SECONDS) -> None:
        """Have all others apply this; who does not in time is replaced. Back when all have.

        Raises:
            CrewError: If one neither applied it nor could be ended.
        """
        listeners = self._joined & self.others
        if not listeners:
            return
        number, waiting = self._send(_TELL, listeners, name, body)
        try:
            if await self._all_heard(waiting, seconds):
                return
            for worker in waiting.missing:
                self.say("replace", id=worker, reason=f"{name} was not applied in time")
            if not await self._all_heard(waiting, REPLACE_SECONDS):
                raise CrewError(f"not all workers have applied {name}")
        finally:
            del self._waiting[number]

    async def ask(self, name: str, body: bytes = b"") -> list[bytes]:
        """Return what the others answer, of those who do within a second."""
        if not self.others:
            return []
        number, waiting = self._send(_ASK, set(self.others), name, body)
        try:
            await self._all_heard(waiting, ASK_SECONDS)
            return waiting.answers
        finally:
            del self._waiting[number]

    def note(self, name: str, body: bytes) -> None:
        """Tell the leader something that needs no answer, and may be lost with it."""
        if self.lead is not None and not self.leads:
            self._write(self.lead, _NOTE, 0, name, body)

    async def keep(self, key: str, value: str | None) -> None:
        """Have the parent keep a value for the leader after this one; None forgets it.

        Raises:
            CrewError: If the parent does not say that it has it.
        """
        if self._transport is None:
            return
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting({PARENT})
        self.say("keep", number=number, key=key, value=value)
        try:
            if not await self._all_heard(waiting, ASK_SECONDS):
                raise CrewError("the parent does not answer")
        finally:
            del self._waiting[number]

    # --- what the worker's own program uses ---

    def say(self, what: str, **more: Any) -> None:
        """Say something to the parent."""
        if self._transport is not None and not self._transport.is_closing():
            message = {"say": what, **more}
            self._transport.write(frame(PARENT, json.dumps(message).encode("ascii")))

    async def join(self) -> None:
        """Take from the leader what is in force; back when that is done."""
        while True:
            lead = self.lead
            if lead is not None and not self.leads:
                number, waiting = self._send(_ASK, {lead}, _JOIN, b"")
                try:
                    await waiting.done.wait()
                finally:
                    del self._waiting[number]
                if waiting.answers:  # taken as they came, before what came after them
                    self._followed = self._followed or lead
                    return
            else:
                self._changed.clear()
                await self._changed.wait()

    def settle(self) -> None:
        """Say that what is in force is known here, so that others may take it from here."""
        self._settled = True
        early, self._early = self._early, []
        for worker, number in early:
            self._write(worker, _ANSWER, number, _JOIN, self._joins(worker, b""))

    async def alone(self, seconds: float) -> None:
        """Wait until all others have ended, but not longer than this."""
        try:
            async with asyncio.timeout(seconds):
                while self.others:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass

    async def close(self) -> None:
        await self._tasks.close()
        if self._transport is not None:
            self._transport.close()

    # --- the channel ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.WriteTransport, transport)
        self.lead = None

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_orphaned()

    def data_received(self, data: bytes) -> None:
        for address, payload in self._reader.feed(data):
            if address == PARENT:
                self._ordered(json.loads(payload))
            else:
                self._heard(address, payload)

    def _ordered(self, message: dict[str, Any]) -> None:
        order = message["do"]
        if order == "peers":
            self._peers(set(message["ids"]), message["lead"])
        elif order == "kept":
            if (waiting := self._waiting.get(message["number"])) is not None:
                waiting.heard(PARENT)
        else:
            if order == "begin":
                self.id = message["id"]
                if message["lead"]:
                    self.lead = self._followed = self.id
            self.on_order(message)

    def _peers(self, ids: set[int], lead: int | None) -> None:
        self.lead = lead
        self.others = ids - {self.id}
        self._joined &= self.others
        self._changed.set()
        for waiting in list(self._waiting.values()):
            for worker in waiting.missing - ids - {PARENT}:
                waiting.heard(worker)
        if lead is not None and self._followed not in (None, lead):
            self._follow(lead)

    def _follow(self, lead: int) -> None:
        """Somebody else leads than did before."""
        self._followed = lead
        if self._joining is not None:
            self._joining.cancel()
        if not self.leads:
            self._joining = self._tasks.start(self.join(), name="join")

    def _heard(self, worker: int, payload: bytes) -> None:
        kind, number, length = _HEADER.unpack_from(payload)
        at = _HEADER.size + length
        name = payload[_HEADER.size : at].decode("ascii")
        try:
            if kind in (_TOLD, _ANSWER):
                self._answered(worker, kind, number, name, payload[at:])
                return
            if name == _JOIN and not self._settled:
                self._early.append((worker, number))
                return
            answer = self._handlers[name](worker, payload[at:])
        except Exception as error:
            # Whoever asked does not get an answer. Who cannot follow must not go on by old rules.
            log.exception("message_failed", name=name)
            if kind == _TELL or name == _JOIN:
                self.say("replace", id=self.id, reason=f"{name} cannot be applied: {error}")
            return
        if kind == _TELL:
            self._write(worker, _TOLD, number, name, b"")
        elif kind == _ASK:
            self._write(worker, _ANSWER, number, name, answer)

    def _answered(self, worker: int, kind: int, number: int, name: str, body: bytes) -> None:
        waiting = self._waiting.get(number)
        if waiting is None:
            return
        if kind == _ANSWER:
            if name == _JOIN:
                self.take(body)
            waiting.answers.append(body)
        waiting.heard(worker)

    def _joins(self, worker: int, _body: bytes) -> bytes:
        self._joined.add(worker)
        return self.snapshot()

    def _send(self, kind: int, workers: set[int], name: str, body: bytes) -> tuple[int, _Waiting]:
        number = next(self._numbers)
        waiting = self._waiting[number] = _Waiting(set(workers))
        for worker in workers:
            self._write(worker, kind, number, name, body)
        return number, waiting

    def _write(self, worker: int, kind: int, number: int, name: str, body: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            head = _HEADER.pack(kind, number, len(name)) + name.encode("ascii")
            self._transport.write(frame(worker, head + body))

    async def _all_heard(self, waiting: _Waiting, seconds: float) -> bool:
        try:
            async with asyncio.timeout(seconds):
                await waiting.done.wait()
        except TimeoutError:
            return False
        return True
