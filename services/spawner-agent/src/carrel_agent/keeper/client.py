"""What the agent asks of its keeper."""

import asyncio
import os
import socket
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import structlog

from carrel_agent.errors import SetupError
from carrel_agent.keeper.channel import Channel
from carrel_agent.keeper.messages import KEEPER_FD_VARIABLE, Message
from carrel_shared.identity import boot_id

log = structlog.get_logger(__name__)


class NoKeeperError(SetupError):
    """This agent was not started by a keeper."""


@dataclass(frozen=True, slots=True)
class ProcessExit:
    """How a process ended: by an exit status, or by a signal. `at` is Unix time."""

    pid: int
    start_ticks: int
    code: int | None
    signal: int | None
    at: float


def inherited_socket(environ: Mapping[str, str]) -> socket.socket:
    """Return our end of the keeper's pair.

    Raises:
        NoKeeperError: If there is none.
    """
    text = environ.get(KEEPER_FD_VARIABLE, "")
    try:
        end = socket.socket(fileno=int(text))
    except (ValueError, OSError) as error:
        raise NoKeeperError(
            "the agent needs its keeper, which knows how servers end: start `carrel-agent keeper`,"
            " which starts the agent"
        ) from error
    end.setblocking(False)
    os.set_inheritable(end.fileno(), False)
    return end


class KeeperClient:
    """The agent's side of the conversation.

    Args:
        end: From `inherited_socket`.
        on_lost: Called when the keeper is gone. The agent cannot go on without it.
    """

    def __init__(self, end: socket.socket, *, on_lost: Callable[[], None]) -> None:
        self._exits: dict[tuple[int, int], ProcessExit] = {}
        self._arrivals: dict[tuple[int, int], asyncio.Event] = {}
        self._foreign: set[tuple[int, int]] = set()
        self._channel = Channel(end, on_event=self._take_event, on_close=on_lost)

    def close(self) -> None:
        """Close the connection; the keeper takes it that the agent ends."""
        self._channel.close()

    async def open_log(self, server_id: str, *, fresh: bool) -> int:
        """Return a descriptor for a server's output; `fresh` forgets what was printed before."""
        reply = await self._channel.request({"op": "log", "log": server_id, "fresh": fresh})
        return reply.descriptors[0]

    async def close_log(self, server_id: str) -> None:
        """Stop reading a server's output. What was read stays."""
        await self._channel.request({"op": "close-log", "log": server_id})

    async def execute(self, server_id: str, spec: int, listener: int) -> tuple[int, int]:
        """Have a server executed; return its pid and start in clock ticks."""
        reply = await self._channel.request({"op": "exec", "log": server_id}, (spec, listener))
        return int(reply.message["pid"]), int(reply.message["start_ticks"])

    async def start_zygote(
        self, python: str, preload: Sequence[str], trusted: Sequence[int]
    ) -> tuple[int, socket.socket]:
        """Have a zygote started in place of any older one; return its pid and our end.

        Args:
            preload: Modules that it imports beside its own.
            trusted: The uids whose files it may import.
        """
        message = {
            "op": "zygote",
            "python": python,
            "preload": list(preload),
            "trusted": list(trusted),
        }
        reply = await self._channel.request(message)
        end = socket.socket(fileno=reply.descriptors[0])
        end.setblocking(False)
        return int(reply.message["pid"]), end

    async def open_session(self, service: str, account: str) -> tuple[int, socket.socket]:
        """Have a holder of a PAM session started; return its pid and our end of its socket."""
        message = {"op": "session", "service": service, "account": account}
        reply = await self._channel.request(message)
        end = socket.socket(fileno=reply.descriptors[0])
        end.setblocking(False)
        return int(reply.message["pid"]), end

    async def watch(self, pid: int, start_ticks: int) -> bool:
        """Have the end of this process written down; return whether the keeper will see it."""
        reply = await self._channel.request({"op": "watch", "pid": pid, "start_ticks": start_ticks})
        if (exit_ := reply.message.get("exit")) is not None:
            self._take_exit(exit_)
        if not reply.message["child"]:
            self._foreign.add((pid, start_ticks))
        return bool(reply.message["child"])

    async def load_exits(self) -> None:
        """Read what was recorded while no agent listened. Exits of another boot are dropped."""
        after = ""
        here = boot_id()
        while True:
            reply = await self._channel.request({"op": "exits", "after": after})
            for exit_ in reply.message["exits"]:
                after = str(exit_["name"])
                if exit_.get("boot_id") == here:
                    self._take_exit(exit_)
                else:
                    await self.forget_exit(int(exit_["pid"]), int(exit_["start_ticks"]))
            if not reply.message["more"]:
                return

    async def exit_of(
        self, pid: int, start_ticks: int, *, timeout_seconds: float
    ) -> ProcessExit | None:
        """Return how a process ended, waiting for the keeper's word; None if it has none."""
        key = (pid, start_ticks)
        if key not in self._exits and key not in self._foreign:
            arrival = self._arrivals.setdefault(key, asyncio.Event())
            try:
                async with asyncio.timeout(timeout_seconds):
                    await arrival.wait()
            except TimeoutError:
                await self.load_exits()
            finally:
                self._arrivals.pop(key, None)
        return self._exits.get(key)

    def unclaimed(self) -> list[ProcessExit]:
        """Return the exits that nobody has forgotten yet."""
        return list(self._exits.values())

    async def forget_exit(self, pid: int, start_ticks: int) -> None:
        """Tell the keeper that an exit is stored, or that a process is not waited for any more."""
        self._exits.pop((pid, start_ticks), None)
        self._foreign.discard((pid, start_ticks))
        await self._channel.request({"op": "forget-exit", "pid": pid, "start_ticks": start_ticks})

    def _take_event(self, message: Message) -> None:
        if message["event"] == "exit":
            self._take_exit(message)

    def _take_exit(self, message: Message) -> None:
        exit_ = ProcessExit(
            pid=int(message["pid"]),
            start_ticks=int(message["start_ticks"]),
            code=message["code"],
            signal=message["signal"],
            at=float(message["at"]),
        )
        key = (exit_.pid, exit_.start_ticks)
        self._exits[key] = exit_
        if (arrival := self._arrivals.get(key)) is not None:
            arrival.set()
