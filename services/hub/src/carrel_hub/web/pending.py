"""`{hub}spawn-pending`: watching a server start, and being told why it did not."""

from urllib.parse import urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Scope
from carrel_hub.spawns.choice import has_choice
from carrel_hub.spawns.paths import progress_path
from carrel_hub.spawns.states import State
from carrel_hub.web.arrival import wanted_next
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.server_view import failure_view, view
from carrel_hub.web.servers import Place, find_place

NO_OPTIONS = ("next", "display_name", "_xsrf", "home", "button")
"""What in the address of the spawn page, and in its form, is no option of the server."""

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

REFRESH_SECONDS = 2


@router.api_route("/spawn-pending/{owner}", methods=READING)
async def pending(request: Request, owner: str) -> Response:
    """Show how a start goes."""
    return await _pending(request, owner, "")


@router.api_route("/spawn-pending/{owner}/{name}", methods=READING)
async def pending_named(request: Request, owner: str, name: str) -> Response:
    """Show how the start of a named server goes."""
    return await _pending(request, owner, name)


async def _pending(request: Request, owner: str, name: str) -> Response:
    """Show how a server stands. Nothing is changed by looking."""
    hub = hub_of(request)
    subject, _ = await signed_in(request)
    place = await find_place(hub, subject, Scope.READ_SERVERS, owner, name)
    standing = await hub.line.standing(hub, place.row) if place.row is not None else None
    shown = view(place.row, now=hub.clock.now(), standing=standing)
    if shown.state == State.READY:
        return redirect(next_or(request, place.url(hub)))
    if shown.state == State.FAILED and place.row is not None:
        return show(
            request,
            subject,
            "failed.html",
            status=500,
            title="The server did not start" if not place.row.last_activity else "The server ended",
            failure=failure_view(place.row.failure),
            whose=whose_of(subject, place),
            asks=has_choice(hub.settings.profiles),
            start_url=with_next(request, place.page(hub, "spawn")),
            choose_url=with_next(request, place.page(hub, "spawn"), options=False),
        )
    if shown.state == State.STOPPED:
        return not_running(request, subject, hub, place)
    return show(
        request,
        subject,
        "pending.html",
        refresh_without_scripts=REFRESH_SECONDS if shown.changing else None,
        title=_pending_title(shown.state, waits=standing is not None),
        shown=shown,
        whose=whose_of(subject, place),
        stream=progress_path(hub.settings.base_url, place.owner.name, place.name),
        open_url=place.url(hub),
        stop_url=place.page(hub, "stop"),
    )


def _pending_title(state: str, *, waits: bool) -> str:
    if waits:
        return "The server waits for its turn"
    if state == State.STOPPING:
        return "The server is stopping"
    if state == State.UNKNOWN:
        return "The host does not answer"
    return "The server is starting"


def not_running(request: Request, subject: Subject, hub: Hub, place: Place) -> Response:
    """Offer the start of a server that does not run."""
    return show(
        request,
        subject,
        "not_running.html",
        title="The server is not running",
        whose=whose_of(subject, place),
        why=place.row.stop_reason if place.row is not None else "",
        asks=has_choice(hub.settings.profiles),
        start_url=with_next(request, place.page(hub, "spawn")),
    )


def whose_of(subject: Subject, place: Place) -> str:
    """Return the owner's name when that is somebody else."""
    return "" if subject.name == place.owner.name else place.owner.name


def next_or(request: Request, default: str) -> str:
    """Return where the browser wants to go on."""
    return wanted_next(request) or default


def with_next(request: Request, path: str, *, options: bool = True) -> str:
    """Return a path that carries on where the browser wants to go, and the options it came with."""
    query = [
        (key, value)
        for key, value in request.query_params.multi_items()
        if options and key not in NO_OPTIONS
    ]
    wanted = wanted_next(request)
    if wanted:
        query.append(("next", wanted))
    return f"{path}?{urlencode(query)}" if query else path
