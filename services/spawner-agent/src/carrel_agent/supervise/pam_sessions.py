"""PAM sessions of servers, where the host's settings want them: opened before, closed after."""

import asyncio
import contextlib
import json
import signal
import socket
from dataclasses import replace
from typing import Any

from carrel_agent.keeper.channel import ChannelClosedError, RefusedError
from carrel_agent.keeper.client import KeeperClient
from carrel_agent.pam.server import descendants
from carrel_agent.process.launch_spec import RLIMIT_NAMES, LaunchSpec
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.process_tree import signal_process
from carrel_shared.identity import ProcessIdentity, identify

OPEN_SECONDS = 20.0
"""How long the modules may take: they may mount a home over the network, or hang."""
MOST_GAINED = 64 * 1024
_KEPT = frozenset({"HOME", "USER", "LOGNAME", "SHELL", "CARREL_SERVER_ID"})
"""Variables that no module changes: they say who the server is."""


class PamSession:
    """A session that is open, until its server ends. Call `hold` or `give_up`."""

    def __init__(self, channel: socket.socket, gained: dict[str, Any]) -> None:
        self._channel = channel
        self._gained = gained

    @classmethod
    async def open(cls, keeper: KeeperClient, service: str, account: str) -> "PamSession":
        """Open one.

        Raises:
            LaunchError: If PAM refuses, or does not answer.
        """
        try:
            pid, channel = await keeper.open_session(service, account)
        except (RefusedError, ChannelClosedError) as error:
            raise LaunchError(f"no PAM session can be opened: {error}") from error
        holder = identify(pid)
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                data = await asyncio.get_running_loop().sock_recv(channel, MOST_GAINED)
        except TimeoutError:
            channel.close()
            if holder is not None:
                _end(holder)
            raise LaunchError(f"PAM did not open a session within {OPEN_SECONDS:g} s") from None
        except OSError:
            data = b""
        try:
            gained = json.loads(data) if data else {"error": "its holder ended"}
        except ValueError:
            # Some modules read variables from a file of the user's own.
            gained = {"error": f"its variables need more than {MOST_GAINED} bytes"}
        if "error" in gained:
            channel.close()
            raise LaunchError(f"PAM opens no session for {account}: {gained['error']}")
        return cls(channel, gained)

    def applied_to(self, spec: LaunchSpec) -> LaunchSpec:
        """Return a launch spec with what the session gives. What the hub asked for counts more."""
        given = {n: v for n, v in self._gained["environment"].items() if _is_plain(n, v)}
        limits = {
            name: (int(soft), int(hard))
            for name, (soft, hard) in self._gained["limits"].items()
            if name in RLIMIT_NAMES and name != "CORE"
        }
        return replace(
            spec,
            environment={**spec.environment, **{n: given[n] for n in given.keys() - _KEPT}},
            rlimits={**limits, **spec.rlimits},
            umask=spec.umask if self._gained["umask"] is None else self._gained["umask"],
        )

    def hold(self, pid: int, start_ticks: int) -> None:
        """Have the session kept open until this process has ended, with the agent or without."""
        with contextlib.suppress(OSError):
            self._channel.send(json.dumps({"pid": pid, "start_ticks": start_ticks}).encode())
        self._channel.close()

    def give_up(self) -> None:
        """Have the session closed: there is no server."""
        self._channel.close()


def _end(holder: ProcessIdentity) -> None:
    """Kill a holder, and what its modules wait for: a script that mounts a home, say.

    It is stopped first: then it starts nothing more.
    """
    signal_process(holder.pid, holder.start_ticks, signal.SIGSTOP)
    started = [identify(pid) for pid in descendants(holder.pid)]
    for each in (*started, holder):
        if each is not None:
            signal_process(each.pid, each.start_ticks, signal.SIGKILL)


def _is_plain(name: str, value: str) -> bool:
    return name.isidentifier() and name.isascii() and not set("\0\n\r") & set(value)
