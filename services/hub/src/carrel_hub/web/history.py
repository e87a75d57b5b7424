"""`{hub}history/NAME` and `{hub}audit`: what happened to a server, and who did what."""

from collections.abc import Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.db.models import Event
from carrel_hub.events.access import require_audit
from carrel_hub.events.reading import Wanted, find_events, read_wanted
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Scope
from carrel_hub.web.page_route import READING, PageRoute, navigation_only, show, signed_in
from carrel_hub.web.servers import find_place

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

_WORDS = {
    "server.created": "Made",
    "server.requested": "Start asked for",
    "server.waiting": "Waits for its turn",
    "server.placed": "Given to a host",
    "server.starting": "Starting",
    "server.answers": "Answers",
    "server.ready": "Ready",
    "server.stop_requested": "Stop asked for",
    "server.stopped": "Stopped",
    "server.failed": "Failed",
    "server.unknown": "Its host is silent",
    "server.returned": "Its host is back",
    "server.surprise": "Found running",
    "server.renamed": "Renamed",
    "server.changed": "Changed",
    "server.removed": "Removed",
    "access.granted": "Opened",
}
"""What happens to servers, in words; of what else happens the audit shows the kind itself."""

_ACTORS = {"service": "the service", "agent": "the host", "proxy": "the proxy"}


@dataclass(frozen=True, slots=True)
class Line:
    """One event on a page."""

    at: str
    what: str
    who: str
    subject: str
    why: str


@router.api_route("/history/{owner}", methods=READING)
async def history(request: Request, owner: str) -> Response:
    """Show what happened to somebody's server."""
    return await _history(request, owner, "")


@router.api_route("/history/{owner}/{name}", methods=READING)
async def history_named(request: Request, owner: str, name: str) -> Response:
    """Show what happened to a named server."""
    return await _history(request, owner, name)


@router.api_route("/audit", methods=READING)
async def audit(request: Request) -> Response:
    """Show an administrator who did what."""
    subject, _ = await signed_in(request)
    require_audit(subject)
    return await _page(request, subject, read_wanted(request.query_params), title="Who did what")


async def _history(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, _ = await signed_in(request)
    place = await find_place(hub, subject, Scope.READ_SERVERS, owner, name)
    whose = (
        "your server" if subject.name == place.owner.name else f"the server of {place.owner.name}"
    )
    return await _page(
        request,
        subject,
        read_wanted(request.query_params, server_id=place.row.id if place.row else ""),
        title=f"History of {whose}" + (f", {name}" if name else ""),
    )


async def _page(request: Request, subject: Subject, wanted: Wanted, *, title: str) -> Response:
    async with hub_of(request).database.read() as session:
        events, before = await find_events(session, wanted)
    older = None
    if before is not None:
        kept = [pair for pair in request.query_params.multi_items() if pair[0] != "before"]
        older = f"{request.url.path}?{urlencode([*kept, ('before', before)])}"
    return show(
        request,
        subject,
        "history.html",
        title=title,
        lines=lines(events),
        with_subject=wanted.server_id is None,
        actor=wanted.actor or "",
        older=older,
    )


def lines(events: Sequence[Event]) -> list[Line]:
    """Return events as people read them. Pure."""
    return [
        Line(
            at=event.at.strftime("%Y-%m-%d %H:%M:%S"),
            what=_WORDS.get(event.kind, event.kind),
            who=_who(event.actor),
            subject=event.subject,
            why=event.message or _detail(event),
        )
        for event in events
    ]


def _who(actor: str) -> str:
    kind, _, name = actor.partition(":")
    if not name:
        return f"the {kind}"
    return f"{_ACTORS[kind]} {name}" if kind in _ACTORS else name


def _detail(event: Event) -> str:
    return ", ".join(
        f"{key}: {value}"
        for key, value in event.data.items()
        if isinstance(value, str | int | float)
    )
