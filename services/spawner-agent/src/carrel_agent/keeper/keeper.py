"""The keeper's one loop: signals, the agent's requests, the deaths of children, servers' output.

One thread, nothing that blocks: what it waits for it waits for in `poll`. It keeps no secret. The
launch spec of an executed server passes through as a descriptor and is read after the fork.
"""

# pathlib costs a megabyte, an eighth of what the keeper needs.
# ruff: noqa: PTH103

import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable

from carrel_agent.keeper.console import say
from carrel_agent.keeper.exits import Exits, Key
from carrel_agent.keeper.messages import (
    KEEPER_FD_VARIABLE,
    Message,
    MessageError,
    close_all,
    encode,
    new_pair,
    receive,
    send,
)
from carrel_agent.keeper.options import Options
from carrel_agent.keeper.output import Output, OutputError, check_id, left_over
from carrel_agent.keeper.process_table import boot_id, parent_and_start, start_ticks
from carrel_agent.keeper.services import Backoff, spawn, spawn_session, spawn_zygote

EX_CONFIG = 78
STOP_SECONDS = 5.0
MAX_WAITING_MESSAGES = 4096
REAPED_A_TURN = 64
"""How many dead children are reaped before the agent, and the output, get their turn: orphans of a
user who forks in a loop may come faster than they can be reaped."""
FAILPOINT_VARIABLE = "CARREL_FAILPOINT"

Reply = tuple[Message, list[int]]


class Keeper:
    """Parent of everything that runs for the agent on this host.

    Args:
        options: Where state lies and how the agent is started.
        environ: Passed on to the agent.
        stop_seconds: How long agent and zygote may take to end before they are killed.
        monotonic, now: Clocks, in seconds; `now` is Unix time.
    """

    def __init__(
        self,
        options: Options,
        environ: dict[str, str],
        *,
        stop_seconds: float = STOP_SECONDS,
        monotonic: Callable[[], float] = time.monotonic,
        now: Callable[[], float] = lambda: time.clock_gettime(time.CLOCK_REALTIME),
    ) -> None:
        self._options = options
        self._environ = dict(environ)
        self._stop_seconds = stop_seconds
        self._monotonic = monotonic
        self._now = now
        self._logs = f"{options.state_dir}/logs"
        os.makedirs(self._logs, mode=0o700, exist_ok=True)
        self._exits = Exits(f"{options.state_dir}/exits", boot_id())
        self._outputs: dict[str, Output] = {}
        self._readable: dict[int, Output] = {}
        self._resting: dict[int, float] = {}
        self._poll = select.poll()
        self._agent_pid = 0
        self._agent_since = 0.0
        self._agent_due: float | None = 0.0
        self._agent: socket.socket | None = None
        self._waiting: deque[tuple[bytes, list[int]]] = deque()
        self._backoff = Backoff()
        self._zygotes: set[int] = set()
        self._stop_asked = False
        self._stop_deadline: float | None = None
        self._status = 0
        self._operations: dict[str, Callable[[Message, list[int]], Reply]] = {
            "exec": self._op_exec,
            "zygote": self._op_zygote,
            "log": self._op_log,
            "close-log": self._op_close_log,
            "session": self._op_session,
            "watch": self._op_watch,
            "exits": self._op_exits,
            "forget-exit": self._op_forget_exit,
        }

    def run(self) -> int:
        """Work until SIGTERM or SIGINT; return the exit status."""
        self._wake, wake_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        signal.set_wakeup_fd(wake_end, warn_on_full_buffer=False)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._on_stop)
        signal.signal(signal.SIGCHLD, lambda _number, _frame: None)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._poll.register(self._wake, select.POLLIN)
        for log_id in left_over(self._logs):
            try:
                self._open_output(log_id)
            except (OSError, OutputError) as error:
                say("output_not_reopened", level="ERROR", server_id=log_id, error=error)
        all_reaped = True
        while not self._is_done():
            self._start_agent_if_due()
            self._read_on()
            for descriptor, events in self._poll.poll(self._timeout_ms() if all_reaped else 0):
                self._handle(descriptor, events)
            all_reaped = self._reap()
            if self._stop_asked:
                self._begin_stop()
            self._kill_if_late()
        for output in self._outputs.values():
            output.close(remove=False)
        say("keeper_ended", status=self._status)
        return self._status

    # -- waiting

    def _is_done(self) -> bool:
        return self._stop_deadline is not None and not self._agent_pid and not self._zygotes

    def _timeout_ms(self) -> float | None:
        deadlines = [d for d in (self._agent_due, self._stop_deadline) if d is not None]
        if self._agent_due is not None and self._zygotes:
            deadlines = [self._agent_due + self._stop_seconds]  # SIGCHLD comes before that
        deadlines += self._resting.values()
        if not deadlines:
            return None
        return max(0.0, min(deadlines) - self._monotonic()) * 1000 + 1

    def _handle(self, descriptor: int, events: int) -> None:
        if descriptor == self._wake:
            os.read(self._wake, 4096)
        elif (output := self._readable.get(descriptor)) is not None:
            self._read_output(output)
        elif self._agent is not None and descriptor == self._agent.fileno():
            if events & select.POLLOUT:
                self._flush()
            if events & ~select.POLLOUT:
                self._read_agent()

    # -- servers' output

    def _read_output(self, output: Output) -> None:
        now = self._monotonic()
        if rest := output.pace.rest_after(output.read_some(), now):
            self._poll.modify(output.descriptor, 0)
            self._resting[output.descriptor] = now + rest

    def _read_on(self) -> None:
        """Read again what has rested for long enough."""
        if self._resting:
            now = self._monotonic()
            for descriptor in [d for d, until in self._resting.items() if until <= now]:
                del self._resting[descriptor]
                self._poll.modify(descriptor, select.POLLIN)

    # -- the agent

    def _start_agent_if_due(self) -> None:
        due = self._agent_due
        # A zygote of the agent that died may be forking this moment. The next agent looks for what
        # was started without its knowledge, so nothing may start after it has looked.
        if due is None or self._zygotes or self._monotonic() < due:
            return
        self._agent_due = None
        ours, theirs = new_pair()
        environment = {**self._environ, KEEPER_FD_VARIABLE: str(theirs.fileno())}
        # A failpoint ends the first agent only; the next one is there to show what was lost.
        self._environ.pop(FAILPOINT_VARIABLE, None)
        self._agent_since = self._monotonic()
        try:
            self._agent_pid = spawn(self._options.agent_argv, environment, theirs)
        except OSError as error:
            ours.close()
            self._plan_agent(f"cannot be started: {error.strerror}")
            return
        finally:
            theirs.close()
        self._agent = ours
        self._poll.register(ours, select.POLLIN)
        say("agent_started", pid=self._agent_pid)

    def _plan_agent(self, reason: str) -> None:
        wait = self._backoff.next_wait(self._monotonic() - self._agent_since)
        self._agent_due = self._monotonic() + wait
        say("agent_ended", level="WARNING", reason=reason, again_in_seconds=wait)

    def _drop_channel(self) -> None:
        """Forget the agent's requests: what it asked for and did not hear of, it must not get."""
        if self._agent is not None:
            self._poll.unregister(self._agent)
            self._agent.close()
            self._agent = None
        while self._waiting:
            close_all(self._waiting.popleft()[1])

    def _read_agent(self) -> None:
        while self._agent is not None:
            try:
                received = receive(self._agent)
            except BlockingIOError:
                return
            except MessageError as error:
                say("message_unreadable", level="ERROR", error=error)
                continue
            except OSError:
                received = None
            if received is None:
                # It has closed its end and is about to die: until then it gets nothing more.
                self._drop_channel()
                return
            message, descriptors = received
            try:
                self._answer(message, descriptors)
            finally:
                close_all(descriptors)

    def _answer(self, message: Message, descriptors: list[int]) -> None:
        operation = self._operations.get(str(message.get("op")))
        fds: list[int] = []
        try:
            if operation is None:
                raise ValueError(f"this keeper does not know the request {message.get('op')!r}")
            reply, fds = operation(message, descriptors)
        except OSError as error:
            reply = {"error": f"{error.strerror} (errno {error.errno})"}
        except (OutputError, ValueError, KeyError, TypeError) as error:
            reply = {"error": str(error) or type(error).__name__}
        self._send({"id": message.get("id"), **reply}, fds)

    def _send(self, message: Message, descriptors: list[int] | None = None) -> None:
        """Queue a message; its descriptors are closed when it is gone."""
        fds = descriptors or []
        if self._agent is None or len(self._waiting) >= MAX_WAITING_MESSAGES:
            close_all(fds)  # exits are on record, and the agent asks for those it did not hear of
            return
        self._waiting.append((encode(message), fds))
        self._flush()

    def _flush(self) -> None:
        while self._agent is not None and self._waiting:
            data, descriptors = self._waiting[0]
            try:
                send(self._agent, data, descriptors)
            except BlockingIOError:
                break
            except OSError:
                self._drop_channel()
                return
            self._waiting.popleft()
            close_all(descriptors)
        if self._agent is not None:
            events = select.POLLIN | (select.POLLOUT if self._waiting else 0)
            self._poll.modify(self._agent, events)

    # -- what the agent can ask for

    def _op_exec(self, message: Message, descriptors: list[int]) -> Reply:
        spec_fd, listen_fd = descriptors
        # Imported at the first use: most keepers never execute a server, and it needs megabytes.
        from carrel_agent.process.drop import exec_child_from

        log_fd = self._open_output(check_id(message["log"])).open_for_server()
        try:
            pid = os.fork()
            if pid == 0:
                exec_child_from(spec_fd, listen_fd, log_fd)
        finally:
            os.close(log_fd)
        ticks = start_ticks(pid)
        self._exits.watch((pid, ticks))
        return {"pid": pid, "start_ticks": ticks}, []

    def _op_zygote(self, message: Message, _descriptors: list[int]) -> Reply:
        for pid in self._zygotes:
            os.kill(pid, signal.SIGKILL)  # our child, not yet reaped: the pid is still its own
        preload = ",".join(map(str, message.get("preload", ())))
        python = str(message.get("python") or sys.executable)
        trusted = message.get("trusted")
        trust = None if trusted is None else ",".join(map(str, trusted))
        pid, end = spawn_zygote(python, self._environ, preload, trust)
        self._zygotes.add(pid)
        say("zygote_started", pid=pid)
        return {"pid": pid}, [end.detach()]

    def _op_log(self, message: Message, _descriptors: list[int]) -> Reply:
        output = self._open_output(check_id(message["log"]))
        if message.get("fresh"):
            output.clear()
        return {}, [output.open_for_server()]

    def _op_close_log(self, message: Message, _descriptors: list[int]) -> Reply:
        output = self._outputs.pop(check_id(message["log"]), None)
        if output is not None:
            self._poll.unregister(output.descriptor)
            self._resting.pop(output.descriptor, None)
            del self._readable[output.descriptor]
            output.close(remove=True)
        return {}, []

    def _op_session(self, message: Message, _descriptors: list[int]) -> Reply:
        pid, end = spawn_session(str(message["service"]), str(message["account"]))
        return {"pid": pid}, [end.detach()]

    def _op_watch(self, message: Message, _descriptors: list[int]) -> Reply:
        key = _key(message)
        if (exit_ := self._exits.watch(key)) is not None:
            return {"child": True, "exit": exit_}, []
        # A server of an earlier keeper lives on under another parent: its status will be lost.
        found = parent_and_start(key[0])
        is_child = found == (os.getpid(), key[1])
        if not is_child:
            self._exits.forget(key)
        return {"child": is_child}, []

    def _op_exits(self, message: Message, _descriptors: list[int]) -> Reply:
        page, more = self._exits.after(str(message.get("after", "")))
        return {"exits": page, "more": more}, []

    def _op_forget_exit(self, message: Message, _descriptors: list[int]) -> Reply:
        self._exits.forget(_key(message))
        return {}, []

    def _open_output(self, log_id: str) -> Output:
        output = self._outputs.get(log_id)
        if output is None:
            output = self._outputs[log_id] = Output(self._logs, log_id, self._monotonic())
            self._readable[output.descriptor] = output
            self._poll.register(output.descriptor, select.POLLIN)
        return output

    # -- children that ended

    def _reap(self) -> bool:
        """Reap what has ended, within reason; return whether that is all."""
        for _ in range(REAPED_A_TURN):
            try:
                ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                return True
            if ended is None:
                return True
            exited = ended.si_code == os.CLD_EXITED
            code, number = (ended.si_status, None) if exited else (None, ended.si_status)
            # Who it was is read while it is a zombie: once reaped the pid may be anybody's.
            self._on_exit((ended.si_pid, start_ticks(ended.si_pid)), code, number)
            os.waitpid(ended.si_pid, 0)
        return False

    def _on_exit(self, key: Key, code: int | None, number: int | None) -> None:
        pid = key[0]
        if pid == self._agent_pid:
            self._on_agent_exit(code, number)
        elif pid in self._zygotes:
            self._zygotes.discard(pid)
            say("zygote_ended", pid=pid, code=code, signal=number)
        else:
            if self._exits.is_watched(key):
                for output in self._outputs.values():
                    output.drain()  # its last words come before the news of its death
            exit_ = self._exits.record(key, code, number, self._now())
            if exit_ is not None:
                self._send({"event": "exit", **exit_})

    def _on_agent_exit(self, code: int | None, number: int | None) -> None:
        self._agent_pid = 0
        self._drop_channel()
        for pid in self._zygotes:
            os.kill(pid, signal.SIGKILL)  # our child, not yet reaped: the pid is still its own
        if self._stop_deadline is not None:
            return
        if code == EX_CONFIG:
            say("agent_settings_wrong", level="ERROR", advice="see what the agent said above")
            self._status = EX_CONFIG
            self._begin_stop()
            return
        self._plan_agent(f"signal {number}" if number else f"exit status {code}")

    # -- the end

    def _on_stop(self, _number: int, _frame: object) -> None:
        self._stop_asked = True

    def _begin_stop(self) -> None:
        """End agent and zygote. Servers are left alone: they outlive us by design."""
        if self._stop_deadline is not None:
            return
        self._stop_deadline = self._monotonic() + self._stop_seconds
        self._agent_due = None
        for pid in self._helpers():
            os.kill(pid, signal.SIGTERM)

    def _kill_if_late(self) -> None:
        if self._stop_deadline is not None and self._monotonic() >= self._stop_deadline:
            self._stop_deadline = self._monotonic() + self._stop_seconds
            for pid in self._helpers():
                say("helper_killed", level="WARNING", pid=pid)
                os.kill(pid, signal.SIGKILL)

    def _helpers(self) -> set[int]:
        return self._zygotes | ({self._agent_pid} if self._agent_pid else set())


def _key(message: Message) -> Key:
    return int(message["pid"]), int(message["start_ticks"])
