"""Logs are events: a constant name and fields, one line each, the same id across all services."""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any

import structlog

from carrel_shared.clock import SystemClock
from carrel_shared.flood import FloodGate
from carrel_shared.lines import LineWriter

_SECRET_WORDS = ("token", "secret", "password", "authorization", "cookie", "code_verifier", "key")
_SAFE_SUFFIXES = ("_hash", "_id", "_count", "_seconds", "_type")
MAX_FIELD = 2000


def redact(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """Hide fields that are named like secrets, and cut fields that could flood the log."""
    for name, value in event.items():
        lowered = name.lower()
        if any(w in lowered for w in _SECRET_WORDS) and not lowered.endswith(_SAFE_SUFFIXES):
            event[name] = "[hidden]"
        elif isinstance(value, str) and len(value) > MAX_FIELD and name != "exception":
            event[name] = value[:MAX_FIELD] + "…"
    return event


def configure_logging(
    service: str,
    *,
    level: str = "info",
    json_lines: bool | None = None,
    to: LineWriter | None = None,
    most_a_second: int | None = None,
) -> None:
    """Send structlog and the standard library's records to stderr in one format.

    Args:
        service: Named in each line, since the embedded default merges three services' logs.
        level: `debug`, `info`, `warning` or `error`.
        json_lines: JSON for machines or text for people; None takes text.
        to: Takes the lines in the place of stderr, where nobody may wait for that.
        most_a_second: How often each event is logged at most, where outsiders can cause them.
    """

    def name_service(
        _logger: Any, _method: str, event: MutableMapping[str, Any]
    ) -> MutableMapping[str, Any]:
        event["service"] = service
        return event

    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        name_service,
        structlog.stdlib.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.stdlib.ExtraAdder(),
        redact,
        structlog.processors.format_exc_info,
    ]
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer() if json_lines else _render_text
    )
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *([FloodGate(SystemClock(), most_a_second)] if most_a_second else []),
            *shared,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    handler: logging.StreamHandler[Any] = logging.StreamHandler(sys.stderr if to is None else to)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for noisy in ("httpx", "httpcore", "uvicorn.access", "uvicorn.error"):
        logging.getLogger(noisy).setLevel(logging.WARNING)


def _render_text(_logger: Any, _method: str, event: MutableMapping[str, Any]) -> str:
    """One line for people: time, service, level, event, fields. Control characters are escaped."""
    stamp = str(event.pop("timestamp", ""))[11:19]
    service = event.pop("service", "")
    level = str(event.pop("level", "")).upper()
    name = event.pop("event", "")
    exception = event.pop("exception", None)
    event.pop("logger", None)
    fields = " ".join(f"{key}={_printable(value)}" for key, value in event.items())
    line = f"{stamp} {service:<6} {level:<7} {_printable(name)} {fields}".rstrip()
    return f"{line}\n{exception}" if exception else line


def _printable(value: Any) -> str:
    text = str(value)
    if text.isprintable() and " " not in text:
        return text
    escaped = "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)
    return escaped if " " not in escaped or not escaped else f'"{escaped}"'
