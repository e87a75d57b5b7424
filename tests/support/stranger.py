"""What another account with a shell on the host can get at. Run as that account; prints JSON.

`python -I -S stranger.py` with an object of `canaries`, `sockets`, `places`, `pids` and `uid` on
standard input. Canaries are looked for in everything that can be read.
"""

import contextlib
import ctypes
import json
import os
import socket
import sys
from pathlib import Path

MOST_BYTES = 4 << 20
PTRACE_ATTACH, PTRACE_DETACH = 16, 17


def found_in(place: Path, canaries: list[bytes]) -> list[str]:
    """Return the files below a place that can be read and hold a canary."""
    found = []
    for directory, _, names in os.walk(place, onerror=lambda _: None):
        for name in names:
            path = Path(directory, name)
            with contextlib.suppress(OSError):
                if not path.is_file():
                    continue
                with path.open("rb") as file:
                    text = file.read(MOST_BYTES)
                if any(canary in text for canary in canaries):
                    found.append(str(path))
    return found


def found_in_processes(canaries: list[bytes]) -> list[str]:
    """Return what of /proc can be read and holds a canary."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        for name in ("cmdline", "environ", "comm", "status", "maps", "cgroup"):
            with contextlib.suppress(OSError):
                if any(canary in (entry / name).read_bytes() for canary in canaries):
                    found.append(str(entry / name))
    return found


def opened(pid: int) -> list[str]:
    """Return what of a process's own can be looked at."""
    seen = []
    for name in ("environ", "mem", "maps", "fd", "cwd", "root", "io", "syscall"):
        path = Path(f"/proc/{pid}/{name}")
        with contextlib.suppress(OSError):
            if name == "fd":
                list(path.iterdir())
            elif name in ("cwd", "root"):
                path.readlink()
            else:
                with path.open("rb") as file:
                    file.read(1)
            seen.append(name)
    return seen + (["ptrace"] if attached(pid) else [])


def attached(pid: int) -> bool:
    """Whether a process can be taken hold of as a debugger does; it is let go again."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.ptrace(PTRACE_ATTACH, pid, None, None) != 0:
        return False
    os.waitpid(pid, 0)
    library.ptrace(PTRACE_DETACH, pid, None, None)
    return True


def connected(sockets: list[str]) -> list[str]:
    """Return the sockets that take a connection."""
    taken = []
    for path in sockets:
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(5)
            connection.connect(path)
            taken.append(path)
    return taken


def listening_ports(uid: int) -> list[int]:
    """Return the TCP ports that an account listens on."""
    ports = []
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and int(fields[7]) == uid:
                ports.append(int(fields[1].rpartition(":")[2], 16))
    return ports


def planted(sockets: list[str]) -> list[str]:
    """Return the sockets in whose place something of one's own can be put."""
    done = []
    for path in sockets:
        place = Path(path)
        with contextlib.suppress(OSError):
            place.rename(f"{path}.old")
            done.append(path)
        with contextlib.suppress(OSError):
            place.unlink()
            done.append(path)
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as squatter:
            squatter.bind(f"{path}3")
            done.append(path)
    return done


def main() -> None:
    asked = json.load(sys.stdin)
    canaries = [text.encode() for text in asked["canaries"]]
    places = [Path(place) for place in asked["places"]]
    print(
        json.dumps(
            {
                "uid": os.getuid(),
                "files": [path for place in places for path in found_in(place, canaries)],
                "processes": found_in_processes(canaries),
                "opened": {str(pid): opened(pid) for pid in asked["pids"]},
                "connected": connected(asked["sockets"]),
                "planted": planted(asked["sockets"]),
                "ports": listening_ports(asked["uid"]),
            }
        )
    )


if __name__ == "__main__":
    main()
