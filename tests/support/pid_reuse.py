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

LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


def sleeper() -> int:
    """Start a process that does nothing."""
    if (pid := os.fork()) == 0:
        signal.pause()
        os._exit(0)
    return pid


def same_pid(pid: int, start: ProcessIdentity) -> int:
    """Start a process with this pid, later than the one that had it."""
    while ticks_since_boot() <= start.start_ticks + 1:
        time.sleep(0.001)
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
    for _ in range(trials):
        victim = sleeper()
        identity = identify(victim)
        assert identity is not None
        end(victim)
        decoy = same_pid(victim, identity)
        assert not signal_process(victim, identity.start_ticks, signal.SIGKILL)
        assert not identity.is_alive()
        with contextlib.suppress(ProcessGoneError):
            ProcessWatch(identity, lambda: None)
            raise AssertionError("a decoy was taken for the process")
        hit += os.waitpid(decoy, os.WNOHANG) != (0, 0)
        end(decoy)
    print("decoys", trials, "hit", hit)


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
