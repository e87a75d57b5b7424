"""The parent: holds the listeners, starts workers, passes messages between them, follows signals.

It reads no request and no setting, and keeps what its workers gave it to keep, so that they may
die. A reload is a new plan, made and checked by a child, and new workers for it; the old ones go
once these are ready.
"""

import contextlib
import json
import os
import signal
from typing import Any

from carrel_proxy.process.children import END_SECONDS, READY, RETIRED, STARTING, Child
from carrel_proxy.process.frames import PARENT
from carrel_proxy.process.generations import Coming, Generations, in_words, keep_to_oneself
from carrel_proxy.process.listening import admit_no_more
from carrel_proxy.process.plan import Plan
from carrel_proxy.process.reload import Reload, execute_anew
from carrel_proxy.process.standing import Standing

STARTED_SECONDS = 1.0
"""How long after the end has begun a worker may still say that it was ready before."""


class Parent(Generations):
    """All that is alive, and what happens to it."""

    def __init__(self, plan: Plan) -> None:
        super().__init__(plan)
        self.status: int | None = None
        self._final_status = 0
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
        keep_to_oneself(parent.plan)
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

    def _came(self, *, first: bool) -> None:
        if first:
            self.say("proxy_started", workers=self.plan.workers)
            self._write_down()
            self._repeat_reload()
        else:
            self._reloaded(None)

    def _did_not_come(self, reason: str, status: int, *, first: bool) -> None:
        """At the start that is the end; later nothing has changed."""
        if first:
            self.say("proxy_not_started", "ERROR", reason=reason)
            self._ending, self._final_status = True, status
            self._end_if_alone()
        else:
            self._reloaded(f"the new workers failed: {reason}")

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
                self.say("old_worker_died", "ERROR", pid=child.pid, how=in_words(status))
        elif self._coming is not None and child.generation == self._coming.generation:
            self._coming_failed(f"a worker {in_words(status)}", status if status > 0 else 1)
        else:
            self._restart(child, status, led=led)

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
        self.loop.later(STARTED_SECONDS, self._kill_starting)
        self.loop.later(self.plan.drain_seconds + END_SECONDS, self._kill_all)
        self._end_if_alone()

    def _kill_starting(self) -> None:
        """Who is not ready yet has let nobody in, and may wait for a leader that has ended."""
        for child in self.children.values():
            if child.phase == STARTING:
                child.kill()

    def _kill_all(self) -> None:
        for child in self.children.values():
            child.kill()

    def _end_if_alone(self) -> None:
        if not self.children:
            self.status = self._final_status
