"""A server's first moments where something else than the keeper starts its process.

`python -I -S PATH/process/received.py [--leave]`, with a SOCK_SEQPACKET socket to the agent as
standard input. It says who it is, gets the launch spec, the bound socket and the log over that
socket, and goes the way every server goes (`drop.exec_child_from`). So nothing secret is in an
argument, an environment or a unit's properties, and before the agent has sent it nothing of the
user's has run.

With `--leave` the server is a child, and this process ends: what started it has no need to wait.
"""

# pathlib would cost every server's start some milliseconds.
# ruff: noqa: PTH120

import json
import os
import socket
import sys

if __name__ == "__main__":
    # -I keeps this file's own directory off the path; the package lies two levels up.
    sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.dirname(__file__))))

from carrel_agent.process.drop import exec_child_from

WAIT_SECONDS = 30
DESCRIPTORS = 3
EX_UNAVAILABLE = 69


def main() -> int:
    """Run until the server takes this process's place; return a status if it does not."""
    channel = socket.socket(fileno=os.dup(0))
    channel.settimeout(WAIT_SECONDS)
    leave = sys.argv[1:] == ["--leave"]
    if not leave:
        _tell(channel, os.getpid())
    try:
        data, descriptors, _flags, _address = socket.recv_fds(channel, 64, DESCRIPTORS)
    except OSError:
        return EX_UNAVAILABLE
    if not data or len(descriptors) != DESCRIPTORS:
        return EX_UNAVAILABLE  # the agent thought better of it, or died
    if leave:
        gate, key = os.pipe()
        pid = os.fork()
        if pid:
            _tell(channel, pid)
            os.write(key, b"g")
            return 0
        os.close(key)
        if os.read(gate, 1) != b"g":
            os._exit(EX_UNAVAILABLE)  # whoever was to say that we exist is gone
    exec_child_from(*descriptors)
    return 0


def _tell(channel: socket.socket, pid: int) -> None:
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123
        raw = file.read()
    ticks = int(raw[raw.rindex(b")") + 2 :].split()[19])
    channel.send(json.dumps({"pid": pid, "start_ticks": ticks}).encode("ascii"))


if __name__ == "__main__":
    sys.exit(main())
