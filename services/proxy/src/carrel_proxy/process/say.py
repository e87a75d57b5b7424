"""Lines in the log from the parent, which has no logging library: stderr, in the usual format."""

import contextlib
import json
import os
import select
import time

_NAMES = {"INFO": "info", "WARNING": "warning", "ERROR": "error"}
_SILENT = {"warning": ("INFO",), "error": ("INFO", "WARNING")}
"""What is not written at each level that is set."""


_MOST_BYTES = 4000
"""Less than PIPE_BUF: a pipe that can be written takes so much at once (pipe(7))."""


class Say:
    """Writes lines. Neither raises nor waits: a log that is full or gone must stop nothing."""

    def __init__(self, *, json_lines: bool = False, log_level: str = "info") -> None:
        self._json = json_lines
        self._silent = _SILENT.get(log_level, ())

    def __call__(self, event: str, level: str = "INFO", **fields: object) -> None:
        if level in self._silent:
            return
        now = time.time()  # noqa: TID251 - carrel_shared is not here
        line = self._as_json(now, event, level, fields) if self._json else ""
        line = line or _as_text(now, event, level, fields)
        data = line.encode("utf-8", "replace")[:_MOST_BYTES] + b"\n"
        with contextlib.suppress(OSError):
            if _can_be_written(2):
                os.write(2, data)

    def _as_json(self, now: float, event: str, level: str, fields: dict[str, object]) -> str:
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{now % 1:.6f}"[2:8] + "Z"
        whole = {**fields, "event": event, "service": "proxy", "level": _NAMES[level]}
        return json.dumps({**whole, "timestamp": stamp}, default=str)


def _can_be_written(descriptor: int) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return any(events & select.POLLOUT for _, events in poll.poll(0))


def _as_text(now: float, event: str, level: str, fields: dict[str, object]) -> str:
    stamp = time.strftime("%H:%M:%S", time.gmtime(now))
    told = " ".join(f"{name}={_printable(str(value))}" for name, value in fields.items())
    return f"{stamp} proxy  {level:<7} {event} {told}".rstrip()


def _printable(text: str) -> str:
    escaped = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f'"{escaped}"' if " " in escaped else escaped
