"""What an agent without root may do as another account, by sudo: start, signal and end its servers.

`sudo -n -H -u ACCOUNT python -I -S PATH/process/sudo_helper.py VERB [...]`, nothing else: the line
in sudoers (`carrel-agent sudoers`) names this file. It runs as the account whose servers are meant,
never as root, takes no path and no program from its arguments, and does to that account's processes
only what the account could do itself.

    start                              receive a server over standard input (see received.py)
    signal PID START_TICKS NUMBER      signal one process, if it is still that one
    end SERVER_ID START_TICKS          kill every process that is marked as that server's
"""

# pathlib would cost every call some milliseconds.
# ruff: noqa: PTH120, PTH123, PTH208

import contextlib
import os
import signal
import sys
import time

if __name__ == "__main__":
    # -I keeps this file's own directory off the path; the package lies two levels up.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(__file__))))

from carrel_agent.process import received

EX_USAGE = 64
MARK = "CARREL_SERVER_ID"
MOST_ENVIRONMENT = 1 << 20
END_SECONDS = 5.0
ALLOWED = frozenset({signal.SIGINT, signal.SIGTERM, signal.SIGCONT, signal.SIGKILL})


def main(arguments: list[str]) -> int:
    """Do what is asked; return an exit status."""
    if os.getuid() == 0 or os.geteuid() == 0:
        sys.stderr.write("sudo_helper: never as root\n")
        return EX_USAGE
    match arguments:
        case ["start"]:
            sys.argv[1:] = ["--leave"]
            return received.main()
        case ["signal", pid, ticks, number] if number.isdigit() and int(number) in ALLOWED:
            return 0 if send_signal(int(pid), int(ticks), int(number)) else 1
        case ["end", server_id, ticks] if server_id.isalnum():
            sys.stdout.write(f"{end_all(server_id, int(ticks))}\n")
            return 0
    sys.stderr.write("sudo_helper: start | signal PID TICKS NUMBER | end SERVER_ID TICKS\n")
    return EX_USAGE


def send_signal(pid: int, ticks: int, number: int) -> bool:
    """Signal a process, if it is that one; the descriptor is opened before the look."""
    try:
        descriptor = os.pidfd_open(pid)
    except OSError:
        return False
    try:
        if _stat(pid)[1] != ticks:
            return False
        signal.pidfd_send_signal(descriptor, number)
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return True


def end_all(server_id: str, ticks: int) -> int:
    """Kill what is marked as a server's, and what descends from that; return how many."""
    killed: set[tuple[int, int]] = set()
    deadline = time.monotonic() + END_SECONDS
    while time.monotonic() < deadline:
        found = members(server_id, ticks)
        if not found:
            break
        killed |= {key for key in found if send_signal(*key, signal.SIGKILL)}
        time.sleep(0.01)
    return len(killed)


def members(server_id: str, ticks: int) -> set[tuple[int, int]]:
    """Return pid and start of a server's processes, as far as this account can tell."""
    mark = f"{MARK}={server_id}".encode("ascii")
    rows: dict[int, tuple[int, int]] = {}
    marked = set()
    for name in os.listdir("/proc"):
        if not name.isdigit() or int(name) == os.getpid():
            continue
        with contextlib.suppress(OSError, ValueError):
            if os.stat(f"/proc/{name}").st_uid != os.getuid():  # noqa: PTH116
                continue
            parent, start, state = _stat(int(name))
            if start < ticks or state == b"Z":
                continue
            rows[int(name)] = (parent, start)
            with open(f"/proc/{name}/environ", "rb") as file:
                if mark in file.read(MOST_ENVIRONMENT).split(b"\0"):
                    marked.add(int(name))
    while more := {pid for pid, (parent, _) in rows.items() if parent in marked} - marked:
        marked |= more
    return {(pid, rows[pid][1]) for pid in marked}


def _stat(pid: int) -> tuple[int, int, bytes]:
    """Return a process's parent, its start in clock ticks since boot, and its state."""
    with open(f"/proc/{pid}/stat", "rb") as file:
        raw = file.read()
    fields = raw[raw.rindex(b")") + 2 :].split()
    return int(fields[1]), int(fields[19]), fields[0]


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
