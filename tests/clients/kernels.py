"""A kernel's WebSocket, as a notebook uses it (Jupyter's messaging protocol 5, as JSON)."""

import json
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from websockets.sync.client import ClientConnection, connect, unix_connect

WAIT_SECONDS = 60


class Kernel:
    """An open connection to a running kernel."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket

    def run(self, code: str) -> str:
        """Run a cell; returns what it printed."""
        content = {"code": code, "silent": False, "store_history": False, "allow_stdin": False}
        header = {
            "msg_id": uuid.uuid4().hex,
            "msg_type": "execute_request",
            "username": "",
            "session": uuid.uuid4().hex,
            "version": "5.3",
        }
        message = {"header": header, "parent_header": {}, "metadata": {}, "content": content}
        self._socket.send(json.dumps({**message, "channel": "shell", "buffers": []}))
        printed, idle, replied = "", False, False
        while not (idle and replied):
            heard: dict[str, Any] = json.loads(self._socket.recv(timeout=WAIT_SECONDS))
            if heard["parent_header"].get("msg_id") != header["msg_id"]:
                continue
            kind, said = heard["header"]["msg_type"], heard["content"]
            replied = replied or kind == "execute_reply"
            idle = idle or (kind == "status" and said["execution_state"] == "idle")
            printed += said["text"] if kind == "stream" else ""
        return printed


@contextmanager
def open_kernel(url: str, headers: dict[str, str], path: str | None = None) -> Iterator[Kernel]:
    """Open the channels of a kernel; `url` is `ws://.../api/kernels/ID/channels`.

    Args:
        path: The unix socket at which that is, if it is at one.
    """
    common: dict[str, Any] = {
        "additional_headers": headers,
        "open_timeout": WAIT_SECONDS,
        "max_size": None,
    }
    opened = unix_connect(path, url, **common) if path else connect(url, proxy=None, **common)
    with opened as socket:
        yield Kernel(socket)
