"""A service for tests: answers 200 on a unix socket. `fake_service.py SOCKET [BEHAVIOUR...]`.

Behaviours: `exit=N` ends at once; `deaf` never listens; `stubborn` ignores SIGTERM; `child` leaves
a process in its session and one in its own session, whose pids are written beside the socket;
`notebooks=A,B` makes it a hub with these notebooks, which stop when asked unless `clinging`.
"""

import contextlib
import json
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path


class FakeHub:
    """What the console asks of a hub."""

    def __init__(self, names: list[str], *, clinging: bool) -> None:
        self._notebooks = [name.partition("/")[::2] for name in names]
        self._clinging = clinging

    def answer(self, request: str) -> object:
        if "console/link" in request:
            return {"path": "/hub/sign-in/a-secret", "expires_at": "2026-01-01T00:00:00Z"}
        if "console/stop-all" in request and not self._clinging:
            self._notebooks = []
        servers = [{"user": user, "name": name, "state": "ready"} for user, name in self._notebooks]
        return {"servers": servers}


def main() -> None:
    path = Path(sys.argv[1])
    behaviours = sys.argv[2:]
    values = dict(b.split("=", 1) for b in behaviours if "=" in b)
    print(f"fake service {path.stem} begins", flush=True)
    if "exit" in values:
        print("the setting colour is wrong", flush=True)
        sys.exit(int(values["exit"]))
    if "stubborn" in behaviours:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if "child" in behaviours:
        path.with_suffix(".inside").write_text(str(leave_child(own_session=False)))
        path.with_suffix(".outside").write_text(str(leave_child(own_session=True)))
    if "deaf" in behaviours:
        time.sleep(600)
    names = [name for name in values.get("notebooks", "").split(",") if name]
    hub = FakeHub(names, clinging="clinging" in behaviours)
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen()
    environment = path.with_suffix(".environment")
    environment.write_text("\n".join(f"{k}={v}" for k, v in sorted(os.environ.items())))
    while True:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(ConnectionError):
            request = read_request(connection)
            body = json.dumps(hub.answer(request)).encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
            connection.sendall(head.encode() + body)


def read_request(connection: socket.socket) -> str:
    received = b""
    while chunk := connection.recv(65536):
        received += chunk
        head, end, body = received.partition(b"\r\n\r\n")
        length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
        if end and len(body) >= (int(length[1]) if length else 0):
            break
    return received.decode()


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
