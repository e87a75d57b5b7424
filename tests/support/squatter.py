"""Somebody who tries to be where another account's servers listen, while those come and go."""

import contextlib
import os
import pwd
import random
import signal
import subprocess
from collections.abc import Iterator

from support.agent_host import AgentHost, has_ended

_PROGRAM = """
import os, socket, sys
place = os.path.dirname(sys.argv[1])
while os.getppid() != 1:
    for path in (sys.argv[1], place + ".x", place + "/x", os.path.dirname(place) + "/x"):
        taken = socket.socket(socket.AF_UNIX)
        try:
            taken.bind(path)
            print("bound", path, flush=True)
        except OSError:
            taken.close()
    for act, *names in ((os.unlink, sys.argv[1]), (os.rmdir, place), (os.mkdir, place)):
        try:
            act(*names)
            print(act.__name__, *names, flush=True)
        except OSError:
            pass
"""


@contextlib.contextmanager
def squatter(who: pwd.struct_passwd, path: str) -> Iterator["subprocess.Popen[str]"]:
    """Run it; it prints a line for each thing it got."""
    with subprocess.Popen(
        ["/usr/bin/python3", "-I", "-S", "-c", _PROGRAM, path],
        user=who.pw_uid,
        group=who.pw_gid,
        extra_groups=[],
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def come_and_go(
    host: AgentHost, who: pwd.struct_passwd, *, cycles: int, agent_deaths: int, seed: int
) -> str:
    """Start and kill one server again and again; return what the squatter got: nothing.

    Args:
        agent_deaths: In so many of the cycles, chosen by `seed`, the agent is killed as well, at
            some moment of the start.
    """
    chance = random.Random(seed)  # noqa: S311 - nothing is secret here
    deadly = set(chance.sample(range(1, cycles + 1), agent_deaths))
    spec = host.spec("good")
    with squatter(who, str(host.run / "s" / spec["server_id"] / "http.sock")) as process:
        for cycle in range(1, cycles + 1):
            host.put({**spec, "generation": cycle})
            if cycle in deadly:
                with contextlib.suppress(AssertionError):
                    host.wait_state(spec["server_id"], "ready", seconds=chance.uniform(0, 0.15))
                host.kill_agent()
            report = host.wait_state(spec["server_id"], "ready", "failed")
            if report["state"] == "ready":
                assert report["peer_uid"] == host.account.pw_uid
                with contextlib.suppress(ProcessLookupError):
                    os.kill(report["pid"], signal.SIGKILL)
                host.wait_state(spec["server_id"], "failed")
                assert has_ended(report["pid"])
        process.kill()
        assert process.stdout is not None
        return process.stdout.read()
