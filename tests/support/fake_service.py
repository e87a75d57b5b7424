"""A service for tests: answers 200 on a unix socket. `fake_service.py SOCKET [BEHAVIOUR...]`.

Behaviours: `exit=N` ends at once; `deaf` never listens; `stubborn` ignores SIGTERM; `child` leaves
a process in its session and one in its own session, whose pids are written beside the socket.
"""

import os
import signal
import socket
import sys
import time
from pathlib import Path


def main() -> None:
    path = Path(sys.argv[1])
    behaviours = sys.argv[2:]
    print(f"fake service {path.stem} begins", flush=True)
    for behaviour in behaviours:
        if behaviour.startswith("exit="):
            print("the setting colour is wrong", flush=True)
            sys.exit(int(behaviour.removeprefix("exit=")))
    if "stubborn" in behaviours:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in behaviours:
        path.with_suffix(".inside").write_text(str(leave_child(own_session=False)))
        path.with_suffix(".outside").write_text(str(leave_child(own_session=True)))
    if "deaf" in behaviours:
        time.sleep(600)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    environment = path.with_suffix(".environment")
    environment.write_text("\n".join(f"{k}={v}" for k, v in sorted(os.environ.items())))
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.recv(4096)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def leave_child(*, own_session: bool) -> int:
    pid = os.fork()
    if pid == 0:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        if own_session:
            os.setsid()
        time.sleep(600)
        os._exit(0)
    return pid


if __name__ == "__main__":
    main()
