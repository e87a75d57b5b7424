"""Give the pid of a process that has ended to another one, in a pid namespace of its own.

`unshare --pid --fork --mount-proc python pid_reuse.py signals TRIALS` or `... adoption ACCOUNT`.
Prints what became of the decoys.
"""

import contextlib
import os
import pwd
import signal
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from carrel_agent.supervise.admission import ticks_since_boot
from carrel_agent.supervise.process_tree import signal_process
from carrel_agent.supervise.watch import ProcessGoneError, ProcessWatch
from carrel_shared.identity import ProcessIdentity, identify
from support.agent_host import AgentHost

AT_ONCE = 200
"""So many wait for a tick of the kernel's clock together."""
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def sleeper() -> int:
    """Start a process that does nothing."""
    if (pid := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    return pid


def wait_past(start_ticks: int) -> None:
    """Return when whatever starts from now on has started later, in the kernel's own unit."""
    while ticks_since_boot() <= start_ticks + 1:
        time.sleep(0.001)


def same_pid(pid: int, start: ProcessIdentity) -> int:
    """Start a process with this pid, later than the one that had it."""
    wait_past(start.start_ticks)
    for _ in range(1000):
        LAST_PID.write_text(str(pid - 1))
        decoy = sleeper()
        if decoy == pid:
            return decoy
        os.kill(decoy, signal.SIGKILL)
        os.waitpid(decoy, 0)
    raise AssertionError(f"pid {pid} could not be had")


def end(pid: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def signals(trials: int) -> None:
    """Signal, and watch, processes whose pid is a decoy's by then."""
    hit = 0
    for first in range(0, trials, AT_ONCE):
        victims = [identify(sleeper()) for _ in range(min(AT_ONCE, trials - first))]
        for victim in victims:
            assert victim is not None
            end(victim.pid)
        hit += sum(try_decoy(victim) for victim in victims if victim is not None)
    print("decoys", trials, "hit", hit)


def try_decoy(victim: ProcessIdentity) -> bool:
    """Do to a process that has ended what an agent does; return whether its decoy was hit."""
    decoy = same_pid(victim.pid, victim)
    assert not signal_process(victim.pid, victim.start_ticks, signal.SIGKILL)
    assert not victim.is_alive()
    with contextlib.suppress(ProcessGoneError):
        ProcessWatch(victim, lambda: None)
        raise AssertionError("a decoy was taken for the process")
    hit = os.waitpid(decoy, os.WNOHANG) != (0, 0)
    end(decoy)
    return hit


def adoption(account: pwd.struct_passwd) -> None:
    """Have an agent come back to a server whose pid is a decoy's by then."""
    with AgentHost(account) as host:
        host.start()
        report = host.started("good")
        identity = identify(report["pid"])
        assert identity is not None
        host.stop()
        os.kill(report["pid"], signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):  # as pid 1 of this namespace we inherit it
            os.waitpid(report["pid"], 0)
        decoy = same_pid(report["pid"], identity)
        host.start()
        ended = host.wait_state(report["server_id"], "failed")
        host.stop_server(report["server_id"])
        host.stop()
        alive = os.waitpid(decoy, os.WNOHANG) == (0, 0)
        print("cause", ended["exit"]["cause"], "decoy", "alive" if alive else "hit")
        end(decoy)


if __name__ == "__main__":
    if sys.argv[1] == "signals":
        signals(int(sys.argv[2]))
    else:
        adoption(pwd.getpwnam(sys.argv[2]))
