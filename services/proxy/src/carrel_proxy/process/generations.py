"""Workers by generations: each has one plan, and the next takes the place of the one before.

This decides who is started, who leads and who goes; `parent` is what asks for it.
"""

import os
import time
from abc import ABC, abstractmethod

from carrel_proxy.process.children import READY, RETIRED, STARTING, Child, spawn
from carrel_proxy.process.listening import admit_no_more
from carrel_proxy.process.loop import Loop
from carrel_proxy.process.plan import Plan
from carrel_proxy.process.say import Say

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds before a worker that died is started again; they double while it keeps dying."""
STEADY_SECONDS = 10.0
"""Who lived so long is started again at once."""
START_SECONDS = 60.0
"""How long new workers may take to be ready."""
YIELD_SECONDS = 5.0
"""How long a leader may take to finish what it was asked before another one leads."""
MOST_OLD = 3
"""Generations that may still have sockets open; those of more reloads are ended."""


class Coming:
    """A generation of workers that is being started."""

    def __init__(self, plan: Plan, generation: int) -> None:
        self.plan = plan
        self.generation = generation


class Generations(ABC):
    """All workers that live.

    Attributes:
        plan: That of the generation in force.
        lead: The leader's id; None while there is none.
        kept: What workers gave to keep for the next leader.
    """

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        keep_to_oneself(plan)
        self.loop = Loop()
        self.say = Say(json_lines=plan.json_lines, log_level=plan.log_level)
        self.children: dict[int, Child] = {}
        self.generation = 1
        self.lead: int | None = None
        self.kept: dict[str, str] = {}
        self.next_id = 1
        self._ending = False
        self._failures: dict[int, int] = {}
        self._coming: Coming | None = None
        self._yielding = False

    @abstractmethod
    def _told(self, child: Child, address: int, payload: bytes) -> None:
        """Take what a worker says."""

    @abstractmethod
    def _ended(self, child: Child) -> None:
        """A worker has ended."""

    @abstractmethod
    def _came(self, *, first: bool) -> None:
        """The generation that was coming is in force."""

    @abstractmethod
    def _did_not_come(self, reason: str, status: int, *, first: bool) -> None:
        """It is not, and never will be."""

    def _start_coming(self) -> None:
        coming = self._coming
        if coming is None:
            return
        for slot in range(coming.plan.workers):
            if not self._start(coming.plan, slot, coming.generation):
                self._coming_failed("a worker cannot be executed", 1)
                return
        self.loop.later(START_SECONDS, lambda: self._too_slow(coming))

    def _start(self, plan: Plan, slot: int, generation: int) -> bool:
        """Start a worker. Where nobody leads, the first one begins with what was kept."""
        leads = slot == 0 and self.lead is None
        try:
            child = spawn(self.next_id, slot, generation, plan, dict(os.environ))
        except OSError as error:
            self.say("worker_not_started", "ERROR", reason=error.strerror)
            return False
        self.next_id += 1
        self.children[child.id] = child
        if leads:
            self.lead = child.id
        child.watch(self.loop, self._told, self._ended)
        self._begin(child, plan)
        self._tell_peers()
        return True

    def _begin(self, child: Child, plan: Plan) -> None:
        child.began = time.monotonic()
        leads = child.id == self.lead
        child.tell(
            do="begin",
            id=child.id,
            lead=leads,
            listeners=plan.listeners,
            drain_seconds=plan.drain_seconds,
            kept=self.kept if leads else {},
        )

    def _of(self, generation: int) -> list[Child]:
        return [c for c in self.children.values() if c.generation == generation]

    def _too_slow(self, coming: Coming) -> None:
        if self._coming is coming and not self._yielding:
            self._coming_failed(f"workers were not ready within {START_SECONDS:.0f} s", 1)

    def _coming_failed(self, reason: str, status: int) -> None:
        """What was to come does not: at the start that is the end, later nothing has changed."""
        coming, self._coming = self._coming, None
        self._yielding = False
        if coming is None:
            return
        for child in self._of(coming.generation):
            child.phase = RETIRED
            child.kill()
        first = coming.plan is self.plan
        if not first:
            self._fill_up()
            self._close_listeners_of(coming.plan, besides=self.plan)
        self._did_not_come(reason, status, first=first)

    def _fill_up(self) -> None:
        """See that the generation in force is whole and led, after another one did not come."""
        there = {child.slot: child for child in self._of(self.generation)}
        leader = self.children.get(self.lead or 0)
        if leader is None or leader.generation != self.generation:
            first = there.get(0)
            self.lead = first.id if first is not None and first.phase == READY else None
            self._tell_peers()
            if self.lead is not None:
                self.children[self.lead].tell(do="lead")
            elif first is not None:
                first.kill()  # it waits for one who leads; the next in its place will lead itself
        for slot in range(self.plan.workers):
            if slot not in there:
                self._start_again(slot, self.generation)

    def _coming_ready(self, coming: Coming) -> None:
        """All of the new generation accept: now they lead, and the old ones go."""
        leader = self.children.get(self.lead or 0)
        if leader is None:
            self._lead_next()
        elif leader.generation == coming.generation:
            self._switch()
        else:
            self._yielding = True
            leader.tell(do="yield")
            self.loop.later(YIELD_SECONDS, lambda: self._not_yielded(leader))

    def _not_yielded(self, leader: Child) -> None:
        if self._yielding and self.lead == leader.id:
            leader.kill()

    def _lead_next(self) -> None:
        self._yielding = False
        if self._coming is None:
            return
        for child in self._of(self._coming.generation):
            if child.slot == 0:
                self.lead = child.id
                self._tell_peers()
                child.tell(do="lead")

    def _switch(self) -> None:
        """The new generation leads: the old one accepts no more."""
        if self._coming is None:
            return
        first = self._coming.plan is self.plan
        before, self.plan = self.plan, self._coming.plan
        self.generation, self._coming = self._coming.generation, None
        self._failures.clear()
        for child in self.children.values():
            if child.generation == self.generation or child.phase == RETIRED:
                continue
            if child.phase == STARTING:
                child.kill()
            else:
                child.tell(do="retire", seconds=self.plan.deadline_seconds)
            child.phase = RETIRED
        self._end_the_oldest()
        self._close_listeners_of(before, besides=self.plan)
        self._came(first=first)

    def _end_the_oldest(self) -> None:
        retired = sorted({c.generation for c in self.children.values() if c.phase == RETIRED})
        for child in self.children.values():
            if child.generation in retired[:-MOST_OLD]:
                child.tell(do="drain", seconds=self.plan.drain_seconds)

    def _close_listeners_of(self, plan: Plan, *, besides: Plan) -> None:
        for descriptor in plan.descriptors - besides.descriptors:
            if descriptor in plan.listeners.values():
                admit_no_more(descriptor)
            os.close(descriptor)

    def _restart(self, child: Child, status: int, *, led: bool) -> None:
        if led and self._yielding:
            self._lead_next()  # the new one was about to lead anyway
            return
        steady = time.monotonic() - child.began >= STEADY_SECONDS
        failures = 0 if steady else self._failures.get(child.slot, 0)
        self._failures[child.slot] = failures + 1
        wait = 0.0 if failures == 0 else min(FIRST_WAIT * 2.0**failures, LONGEST_WAIT)
        how = in_words(status)
        self.say("worker_died", "ERROR", pid=child.pid, how=how, again_in=f"{wait:.1f}s")
        self.loop.later(wait, lambda: self._start_again(child.slot, child.generation))

    def _start_again(self, slot: int, generation: int) -> None:
        if self._ending or generation != self.generation:
            return
        if not self._start(self.plan, slot, generation):
            self.loop.later(LONGEST_WAIT, lambda: self._start_again(slot, generation))

    def _tell_peers(self) -> None:
        """Tell everybody who there is, and who leads."""
        ids = list(self.children)
        for child in self.children.values():
            child.tell(do="peers", ids=ids, lead=self.lead)


def keep_to_oneself(plan: Plan) -> None:
    """Give descriptors to nobody but those who are meant to have them."""
    for descriptor in plan.descriptors:
        os.set_inheritable(descriptor, False)


def in_words(status: int) -> str:
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with status {status}"
