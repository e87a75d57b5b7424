"""Starting a server from a page, watching it start, and being told why it did not."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from fastapi import APIRouter, Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.errors import UnprocessableError
from carrel_hub.events import user_actor
from carrel_hub.rbac import Scope
from carrel_hub.spawns.naming import good_display_name, good_server_name
from carrel_hub.spawns.paths import escape_name, progress_path, server_prefix
from carrel_hub.spawns.service import request_start
from carrel_hub.spawns.states import State
from carrel_hub.web.arrival import wanted_next
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.server_view import failure_view, view
from carrel_hub.web.servers import Place, find_place

_NO_OPTIONS = ("next", "display_name", "_xsrf")
"""What in the address of the spawn page is no option of the server."""

router = APIRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

REFRESH_SECONDS = 2

HUB_ONLY = (
    "You have no unix account on this machine, so there is no server of your own to start. On your"
    " home page you find everybody else's."
)


@router.api_route("/spawn", methods=READING)
async def spawn_own(request: Request) -> Response:
    """Start one's own server."""
    _, user = await signed_in(request)
    return await _visit(request, user.name, "")


@router.api_route("/spawn/{owner}", methods=READING)
async def spawn(request: Request, owner: str) -> Response:
    """Start somebody's server."""
    return await _visit(request, owner, "")


@router.api_route("/spawn/{owner}/{name}", methods=READING)
async def spawn_named(request: Request, owner: str, name: str) -> Response:
    """Start a named server."""
    return await _visit(request, owner, name)


@router.post("/spawn")
async def press_start_own(request: Request) -> Response:
    """Start one's own server, by its button."""
    _, user = await signed_in(request)
    return await _press_start(request, user.name, "")


@router.post("/spawn-named")
async def press_start_own_named(request: Request) -> Response:
    """Start another of one's own servers, by the name that was typed."""
    subject, user = await signed_in(request)
    fields = await checked_form(request, subject)
    name = good_server_name(fields.get("name", "").strip())
    return await _pressed(request, subject, user, user.name, name)


@router.post("/spawn/{owner}")
async def press_start(request: Request, owner: str) -> Response:
    """Start somebody's server, by its button."""
    return await _press_start(request, owner, "")


@router.post("/spawn/{owner}/{name}")
async def press_start_named(request: Request, owner: str, name: str) -> Response:
    """Start a named server, by its button."""
    return await _press_start(request, owner, name)


@router.api_route("/spawn-pending/{owner}", methods=READING)
async def pending(request: Request, owner: str) -> Response:
    """Show how a start goes."""
    return await _pending(request, owner, "")


@router.api_route("/spawn-pending/{owner}/{name}", methods=READING)
async def pending_named(request: Request, owner: str, name: str) -> Response:
    """Show how the start of a named server goes."""
    return await _pending(request, owner, name)


@router.api_route("/user-redirect", methods=READING)
@router.api_route("/user-redirect/{path:path}", methods=READING)
async def user_redirect(request: Request, path: str = "") -> Response:
    """Send whoever opens a shared link to that place on their own server."""
    hub = hub_of(request)
    _, user = await signed_in(request)
    query = request.url.query
    target = server_prefix(hub.settings.base_url, user.name) + quote(path, safe="/@~:!$&'()*+,;=")
    target += f"?{query}" if query else ""
    return redirect(
        f"{hub.settings.hub_prefix}spawn/{escape_name(user.name)}?{urlencode({'next': target})}"
    )


def query_options(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]] | None:
    """Return the options of a start that the address of the spawn page names, or None (1.4). Pure.

    Each is a list. Where some begin with `opt-`, the others are none.

    Raises:
        UnprocessableError: One is called `opt-` and nothing more.
    """
    named = [(key, value) for key, value in pairs if key not in _NO_OPTIONS]
    marked = [(key.removeprefix("opt-"), value) for key, value in named if key.startswith("opt-")]
    if any(not key for key, _ in marked):
        raise UnprocessableError("An option in the address has no name")
    found: dict[str, list[str]] = {}
    for key, value in marked or named:
        found.setdefault(key, []).append(value)
    return found or None


def may_start_at_once(request: Request) -> bool:
    """Whether visiting a page may start a server: not from another site, not as a guess."""
    if "prefetch" in request.headers.get("sec-purpose", request.headers.get("purpose", "")):
        return False
    return request.headers.get("sec-fetch-site", "none") in ("same-origin", "none")


async def _visit(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, user = await signed_in(request)
    place = await find_place(hub, subject, Scope.START_SERVERS, owner, name)
    if not place.possible:
        return _no_account(request, subject, place)
    shown = view(place.row, now=hub.clock.now())
    if shown.state == State.READY:
        return redirect(_next_or(request, place.url(hub)))
    if not shown.can_start:
        return redirect(_with_next(request, place.page(hub, "spawn-pending")))
    if request.method == "GET" and may_start_at_once(request):
        return await _start(request, hub, user, place, status=302)
    return _not_running(request, subject, hub, place)


async def _press_start(request: Request, owner: str, name: str) -> Response:
    subject, user = await signed_in(request)
    fields = await checked_form(request, subject)
    return await _pressed(request, subject, user, owner, name, home="home" in fields)


async def _pressed(
    request: Request, subject: Subject, user: User, owner: str, name: str, *, home: bool = False
) -> Response:
    hub = hub_of(request)
    place = await find_place(hub, subject, Scope.START_SERVERS, owner, name)
    if not place.possible:
        return _no_account(request, subject, place)
    shown = view(place.row, now=hub.clock.now())
    if not shown.can_start:  # pressed twice, or in two tabs
        return redirect(_with_next(request, place.page(hub, "spawn-pending")), status=303)
    return await _start(request, hub, user, place, status=303, home=home)


async def _start(
    request: Request,
    hub: Hub,
    user: User,
    place: Place,
    *,
    status: int,
    home: bool = False,
) -> Response:
    options = query_options(request.query_params.multi_items())
    called = request.query_params.get("display_name")
    async with hub.database.write() as db:
        owner = await db.get(User, place.owner.id)
        assert owner is not None  # noqa: S101 - users are never deleted while they are looked at
        row = await request_start(
            db,
            hub,
            owner,
            actor=user_actor(user.name),
            server_name=place.name,
            user_options=options,
            display_name=good_display_name(called) if called else None,
        )
    await hub.wakeups.notify(row.id)
    if home:
        return redirect(f"{hub.settings.hub_prefix}home", status=status)
    return redirect(_with_next(request, place.page(hub, "spawn-pending")), status=status)


async def _pending(request: Request, owner: str, name: str) -> Response:
    """Show how a server stands. Nothing is changed by looking."""
    hub = hub_of(request)
    subject, _ = await signed_in(request)
    place = await find_place(hub, subject, Scope.READ_SERVERS, owner, name)
    standing = await hub.line.standing(hub, place.row) if place.row is not None else None
    shown = view(place.row, now=hub.clock.now(), standing=standing)
    if shown.state == State.READY:
        return redirect(_next_or(request, place.url(hub)))
    if shown.state == State.FAILED and place.row is not None:
        return show(
            request,
            subject,
            "failed.html",
            status=500,
            title="The server did not start" if not place.row.last_activity else "The server ended",
            failure=failure_view(place.row.failure),
            whose=_whose(subject, place),
            start_url=_with_next(request, place.page(hub, "spawn")),
        )
    if shown.state == State.STOPPED:
        return _not_running(request, subject, hub, place)
    return show(
        request,
        subject,
        "pending.html",
        refresh_without_scripts=REFRESH_SECONDS if shown.changing else None,
        title=_pending_title(shown.state, waits=standing is not None),
        shown=shown,
        whose=_whose(subject, place),
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


def _not_running(request: Request, subject: Subject, hub: Hub, place: Place) -> Response:
    return show(
        request,
        subject,
        "not_running.html",
        title="The server is not running",
        whose=_whose(subject, place),
        why=place.row.stop_reason if place.row is not None else "",
        start_url=_with_next(request, place.page(hub, "spawn")),
    )


def _no_account(request: Request, subject: Subject, place: Place) -> Response:
    if subject.name == place.owner.name:
        message = HUB_ONLY
    else:
        message = f"{place.owner.name} has no unix account on this machine, so no server either."
    return show(
        request,
        subject,
        "error.html",
        status=400,
        title="No server here",
        message=message,
        code=400,
    )


def _whose(subject: Subject, place: Place) -> str:
    """Return the owner's name when that is somebody else."""
    return "" if subject.name == place.owner.name else place.owner.name


def _next_or(request: Request, default: str) -> str:
    return wanted_next(request) or default


def _with_next(request: Request, path: str) -> str:
    """Return a path that carries on where the browser wants to go, and the options it came with."""
    query = [
        (key, value) for key, value in request.query_params.multi_items() if key not in _NO_OPTIONS
    ]
    wanted = wanted_next(request)
    if wanted:
        query.append(("next", wanted))
    return f"{path}?{urlencode(query)}" if query else path
