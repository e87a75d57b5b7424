"""The parent: holds the listeners, starts workers, passes messages between them, follows signals.

It reads no request and no setting, and keeps what its workers gave it to keep, so that they may
die. A reload is a new plan, made and checked by a child, and new workers for it; the old ones go
once these are ready.
"""

import contextlib
import json
import os
import signal
import time
from typing import Any

from carrel_proxy.process.children import READY, RETIRED, STARTING, Child, spawn
from carrel_proxy.process.frames import PARENT
from carrel_proxy.process.listening import admit_no_more
from carrel_proxy.process.loop import Loop
from carrel_proxy.process.plan import Plan
from carrel_proxy.process.reload import Reload, execute_anew
from carrel_proxy.process.say import Say
from carrel_proxy.process.standing import Standing

FIRST_WAIT, LONGEST_WAIT = 0.1, 10.0
"""Seconds before a worker that died is started again; they double while it keeps dying."""
STEADY_SECONDS = 10.0
"""Who lived so long is started again at once."""
START_SECONDS = 60.0
"""How long new workers may take to be ready."""
YIELD_SECONDS = 5.0
"""How long a leader may take to finish what it was asked before another one leads."""
END_SECONDS = 3.0
"""How long a worker may take to write down what it knows, after its last request."""
MOST_OLD = 3
"""Generations that may still have sockets open; those of more reloads are ended."""


class Coming:
    """A generation of workers that is being started."""

    def __init__(self, plan: Plan, generation: int) -> None:
        self.plan = plan
        self.generation = generation


class Parent:
    """All that is alive, and what happens to it."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        _keep_to_oneself(plan)
        self.loop = Loop()
        self.say = Say(json_lines=plan.json_lines)
        self.children: dict[int, Child] = {}
        self.generation = 1
        self.lead: int | None = None
        self.kept: dict[str, str] = {}
        self.next_id = 1
        self.status: int | None = None
        self._ending = False
        self._failures: dict[int, int] = {}
        self._final_status = 0
        self._coming: Coming | None = None
        self._yielding = False
        self._reload: Reload | None = None
        self._reload_again = False
        self._standing = Standing(plan.status_file)

    @classmethod
    def starting(cls, plan: Plan, forked: list[dict[str, Any]]) -> "Parent":
        """Return the parent of workers that the launcher has started."""
        parent = cls(plan)
        parent._coming = Coming(plan, parent.generation)
        for each in forked:
            child = Child.from_saved({**each, "generation": 1, "phase": STARTING})
            parent.children[child.id] = child
        parent.lead = min(parent.children)
        parent.next_id = max(parent.children) + 1
        return parent

    @classmethod
    def taking_up(cls, plan: Plan, saved: dict[str, Any]) -> "Parent":
        """Return a parent that goes on after an exec: all live, and a new generation is to come."""
        parent = cls(plan)
        parent._coming = Coming(plan, saved["newest"] + 1)
        parent.plan = Plan(saved["plan"])
        _keep_to_oneself(parent.plan)
        parent.generation = saved["generation"]
        parent.lead = saved["lead"]
        parent.kept = saved["kept"]
        parent.next_id = saved["next_id"]
        parent._reload_again = saved["again"]
        parent._standing.reloads = saved["reloads"]
        parent.children = {each["id"]: Child.from_saved(each) for each in saved["children"]}
        return parent

    # --- life ---

    def run(self) -> int:
        """Run to the end; return the exit status."""
        for number in (signal.SIGTERM, signal.SIGINT):
            self.loop.on_signal(number, self._stop)
        for number in (signal.SIGHUP, signal.SIGUSR2):
            self.loop.on_signal(number, self.reload)
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        there = list(self.children.values())
        for child in there:
            child.watch(self.loop, self._told, self._ended)
        if self._coming is not None and self._of(self._coming.generation):
            for child in there:
                self._begin(child, self.plan)
            self._tell_peers()
        else:
            self._start_coming()
        while self.status is None:
            self.loop.turn()
        self._remove_files()
        return self.status

    def _remove_files(self) -> None:
        for path in (self.plan.pid_file, self.plan.status_file):
            if path:
                with contextlib.suppress(OSError):
                    os.unlink(path)  # noqa: PTH108 - pathlib costs a megabyte

    # --- a generation comes ---

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
        if coming.plan is self.plan:
            self.say("proxy_not_started", "ERROR", reason=reason)
            self._ending, self._final_status = True, status
            self._end_if_alone()
            return
        self._fill_up()
        self._close_listeners_of(coming.plan, besides=self.plan)
        self._reloaded(f"the new workers failed: {reason}")

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
        if first:
            self._write_down()
            self._repeat_reload()
        else:
            self._reloaded(None)

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

    # --- reload ---

    def reload(self) -> None:
        """Begin a reload: a child reads the settings anew and makes the plan."""
        if self._ending:
            return
        if self._reload is not None or self._coming is not None:
            self._reload_again = True
            return
        self.say("reload_began")
        self._reload = Reload(self.plan, self.loop, self._planned)

    def _planned(self, plan: Plan | None, error: str | None) -> None:
        self._reload = None
        if plan is not None and not self._ending:
            channels = [child.channel.fileno() for child in self.children.values()]
            needed = {*plan.descriptors, *self.plan.descriptors, *channels}
            reason = execute_anew(plan, self._as_saved(), needed)
            self._close_listeners_of(plan, besides=self.plan)
            error = f"{plan.parent[0]}: {reason}"
        self._reloaded(error)

    def _as_saved(self) -> dict[str, Any]:
        children = list(self.children.values())
        return {
            "plan": self.plan.values,
            "generation": self.generation,
            "newest": max([self.generation, *(c.generation for c in children)]),
            "lead": self.lead,
            "kept": self.kept,
            "next_id": self.next_id,
            "again": self._reload_again,
            "reloads": self._standing.reloads,
            "children": [child.as_saved() for child in children],
        }

    def _reloaded(self, error: str | None) -> None:
        self._standing.reloads += 1
        self._standing.error = error
        if error is None:
            self.say("reloaded", generation=self.generation)
        else:
            self.say("reload_failed", "ERROR", reason=error)
        self._write_down()
        self._repeat_reload()

    def _repeat_reload(self) -> None:
        """Do what was asked for while it could not be done."""
        if self._reload_again:
            self._reload_again = False
            self.reload()

    def _write_down(self) -> None:
        if (error := self._standing.write(self.generation)) is not None:
            self.say("status_not_written", "WARNING", reason=error)

    # --- what workers say ---

    def _told(self, child: Child, address: int, payload: bytes) -> None:
        if address != PARENT:
            if (other := self.children.get(address)) is not None:
                other.send(child.id, payload)
            return
        message = json.loads(payload)
        said = message["say"]
        if said == "ready":
            self._ready(child)
        elif said == "leading":
            if self._coming is not None and child.id == self.lead and child.phase == READY:
                self._switch()
        elif said == "yielded":
            if self._yielding and child.id == self.lead:
                self._lead_next()
        elif said == "keep":
            self._keep(message["key"], message["value"])
            child.tell(do="kept", number=message["number"])
        elif said == "replace" and (other := self.children.get(message["id"])) is not None:
            self.say("worker_replaced", "WARNING", pid=other.pid, reason=message["reason"])
            other.kill()

    def _ready(self, child: Child) -> None:
        child.phase = READY
        coming = self._coming
        if coming is not None and child.generation == coming.generation:
            if all(other.phase == READY for other in self._of(coming.generation)):
                self._coming_ready(coming)
        else:
            self.say("worker_back", slot=child.slot, pid=child.pid)

    def _keep(self, key: str, value: str | None) -> None:
        if value is None:
            self.kept.pop(key, None)
        else:
            self.kept[key] = value

    def _tell_peers(self) -> None:
        """Tell everybody who there is, and who leads."""
        ids = list(self.children)
        for child in self.children.values():
            child.tell(do="peers", ids=ids, lead=self.lead)

    # --- ends ---

    def _ended(self, child: Child) -> None:
        status = child.reap()
        del self.children[child.id]
        led = child.id == self.lead
        if led:
            self.lead = None
        self._tell_peers()
        if self._ending:
            self._end_if_alone()
        elif child.phase == RETIRED:
            if status:
                self.say("old_worker_died", "ERROR", pid=child.pid, how=_in_words(status))
        elif self._coming is not None and child.generation == self._coming.generation:
            self._coming_failed(f"a worker {_in_words(status)}", status if status > 0 else 1)
        else:
            self._restart(child, status, led=led)

    def _restart(self, child: Child, status: int, *, led: bool) -> None:
        if led and self._yielding:
            self._lead_next()  # the new one was about to lead anyway
            return
        steady = time.monotonic() - child.began >= STEADY_SECONDS
        failures = 0 if steady else self._failures.get(child.slot, 0)
        self._failures[child.slot] = failures + 1
        wait = 0.0 if failures == 0 else min(FIRST_WAIT * 2.0**failures, LONGEST_WAIT)
        how = _in_words(status)
        self.say("worker_died", "ERROR", pid=child.pid, how=how, again_in=f"{wait:.1f}s")
        self.loop.later(wait, lambda: self._start_again(child.slot, child.generation))

    def _start_again(self, slot: int, generation: int) -> None:
        if self._ending or generation != self.generation:
            return
        if not self._start(self.plan, slot, generation):
            self.loop.later(LONGEST_WAIT, lambda: self._start_again(slot, generation))

    def _stop(self) -> None:
        """Let requests finish; when asked again, end now."""
        if self._ending:
            for child in self.children.values():
                child.tell(do="end")
            self.loop.later(1.0, self._kill_all)
            return
        self._ending = True
        self._final_status = self.plan.exit_status
        self.say("proxy_ending", seconds=self.plan.drain_seconds)
        if self._reload is not None:
            self._reload.abandon()
        listeners = set(self.plan.listeners.values())
        if self._coming is not None:
            listeners |= set(self._coming.plan.listeners.values())
        for descriptor in listeners:
            admit_no_more(descriptor)
        for child in self.children.values():
            child.tell(do="drain", seconds=self.plan.drain_seconds)
        self.loop.later(self.plan.drain_seconds + END_SECONDS, self._kill_all)
        self._end_if_alone()

    def _kill_all(self) -> None:
        for child in self.children.values():
            child.kill()

    def _end_if_alone(self) -> None:
        if not self.children:
            self.status = self._final_status


def _keep_to_oneself(plan: Plan) -> None:
    """Give descriptors to nobody but those who are meant to have them."""
    for descriptor in plan.descriptors:
        os.set_inheritable(descriptor, False)


def _in_words(status: int) -> str:
    if status < 0:
        return f"was ended by signal {-status}"
    return f"ended with status {status}"
