"""Lines in the log for programs too small for a logging library: stderr, in the usual format."""

import contextlib
import os
import time


def say(event: str, *, service: str = "keeper", level: str = "INFO", **fields: object) -> None:
    """Write one line. Never raises: a log that is away must not stop the program."""
    stamp = time.strftime("%H:%M:%S", time.gmtime())
    told = " ".join(f"{name}={_printable(str(value))}" for name, value in fields.items())
    line = f"{stamp} {service:<6} {level:<7} {event} {told}".rstrip()
    with contextlib.suppress(OSError):
        os.write(2, line.encode("utf-8", "replace") + b"\n")


def _printable(text: str) -> str:
    if text.isprintable() and " " not in text:
        return text
    escaped = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return f'"{escaped}"' if " " in escaped else escaped
