"""Starting a server from a page, with what is chosen of it; and links that lead to one's own."""

from collections.abc import Sequence
from urllib.parse import quote, urlencode

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.errors import HubError, InvalidRequestError, NotFoundError, UnprocessableError
from carrel_hub.events import user_actor
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Scope
from carrel_hub.rbac.decisions import NOT_FOUND
from carrel_hub.spawns.choice import OptionsError, has_choice, open_profiles
from carrel_hub.spawns.naming import good_display_name, good_server_name
from carrel_hub.spawns.paths import escape_name, server_prefix
from carrel_hub.spawns.profiles import DEFAULT, PLAIN
from carrel_hub.spawns.service import profile_groups, request_start
from carrel_hub.spawns.states import State
from carrel_hub.web.arrival import wanted_next
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_fields,
    checked_form,
    is_ones_own_wish,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.pending import NO_OPTIONS, next_or, not_running, whose_of, with_next
from carrel_hub.web.server_view import view
from carrel_hub.web.servers import Place, find_place
from carrel_hub.web.spawn_form import FormView, form_options, form_view

SCRATCH = "scratch"
"""What the button sends that asks for a scratch home, beside the options there were."""

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

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
    hub = hub_of(request)
    if has_choice(hub.settings.profiles):
        place = await find_place(hub, subject, Scope.START_SERVERS, user.name, name)
        return redirect(place.page(hub, "spawn"), status=303)
    return await _pressed(request, subject, user, user.name, name, [])


@router.post("/spawn/{owner}")
async def press_start(request: Request, owner: str) -> Response:
    """Start somebody's server, by its button."""
    return await _press_start(request, owner, "")


@router.post("/spawn/{owner}/{name}")
async def press_start_named(request: Request, owner: str, name: str) -> Response:
    """Start a named server, by its button."""
    return await _press_start(request, owner, name)


@router.api_route("/user-redirect", methods=READING)
@router.api_route("/user-redirect/{path:path}", methods=READING)
async def user_redirect(request: Request, path: str = "") -> Response:
    """Send whoever opens a shared link to that place on their own server."""
    hub = hub_of(request)
    _, user = await signed_in(request)
    query = request.url.query
    settings = hub.settings
    name = settings.default_server_name if settings.allow_named_servers else ""
    target = server_prefix(settings.base_url, user.name, name)
    target += quote(path, safe="/@~:!$&'()*+,;=")
    target += f"?{query}" if query else ""
    place = f"{escape_name(user.name)}/{name}" if name else escape_name(user.name)
    return redirect(f"{settings.hub_prefix}spawn/{place}?{urlencode({'next': target})}")


def query_options(pairs: Sequence[tuple[str, str]]) -> dict[str, list[str]] | None:
    """Return the options of a start that the address of the spawn page names, or None (1.4). Pure.

    Each is a list. Where some begin with `opt-`, the others are none.

    Raises:
        UnprocessableError: One is called `opt-` and nothing more.
    """
    named = [(key, value) for key, value in pairs if key not in NO_OPTIONS]
    marked = [(key.removeprefix("opt-"), value) for key, value in named if key.startswith("opt-")]
    if any(not key for key, _ in marked):
        raise UnprocessableError("An option in the address has no name")
    found: dict[str, list[str]] = {}
    for key, value in marked or named:
        found.setdefault(key, []).append(value)
    return found or None


async def _visit(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, user = await signed_in(request)
    place = await find_place(hub, subject, Scope.START_SERVERS, owner, name)
    if not place.possible:
        return _no_account(request, subject, place)
    shown = view(place.row, now=hub.clock.now())
    if shown.state == State.READY:
        return redirect(next_or(request, place.url(hub)))
    if not shown.can_start:
        return redirect(with_next(request, place.page(hub, "spawn-pending")))
    options = query_options(request.query_params.multi_items())
    form = await _form(hub, place, options)
    if request.method == "GET" and is_ones_own_wish(request) and (form is None or options):
        return await _start(request, subject, user, place, options)
    if form is not None:
        return _show_form(request, subject, place, form)
    return not_running(request, subject, hub, place)


async def _press_start(request: Request, owner: str, name: str) -> Response:
    subject, user = await signed_in(request)
    fields = await checked_fields(request, subject)
    return await _pressed(request, subject, user, owner, name, fields)


async def _pressed(
    request: Request,
    subject: Subject,
    user: User,
    owner: str,
    name: str,
    fields: Sequence[tuple[str, str]],
) -> Response:
    hub = hub_of(request)
    place = await find_place(hub, subject, Scope.START_SERVERS, owner, name)
    if not place.possible:
        return _no_account(request, subject, place)
    shown = view(place.row, now=hub.clock.now())
    home, ours = (any(key == name for key, _ in fields) for name in ("home", "button"))
    if not shown.can_start and ours:  # pressed twice, or in two tabs
        return redirect(with_next(request, place.page(hub, "spawn-pending")))
    if not shown.can_start:
        raise InvalidRequestError("This server runs already or is on its way: see your home page.")
    sent = [(key, value) for key, value in fields if key not in (*NO_OPTIONS, SCRATCH)]
    options = form_options(sent, {DEFAULT: PLAIN, **hub.settings.profiles})
    if options is None:
        options = query_options(request.query_params.multi_items())
    scratch = any(key == SCRATCH for key, _ in fields)
    return await _start(request, subject, user, place, options, home=home, scratch=scratch)


async def _start(
    request: Request,
    subject: Subject,
    user: User,
    place: Place,
    options: dict[str, list[str]] | None,
    *,
    home: bool = False,
    scratch: bool = False,
) -> Response:
    hub = hub_of(request)
    called = request.query_params.get("display_name")
    display_name = good_display_name(called) if called else None
    try:
        async with hub.database.write() as db:
            owner = await db.get(User, place.owner.id)
            # Gone meanwhile, and the number perhaps given anew.
            if owner is None or owner.name != place.owner.name:
                raise NotFoundError(NOT_FOUND)
            row = await request_start(
                db,
                hub,
                owner,
                actor=user_actor(user.name),
                server_name=place.name,
                user_options=options,
                display_name=display_name,
                scratch_home=scratch,
            )
    except HubError as error:
        form = await _form(hub, place, options, error)
        if form is None:
            raise
        return _show_form(request, subject, place, form, error)
    await hub.wakeups.notify(row.id)
    if home:
        return redirect(f"{hub.settings.hub_prefix}home")
    return redirect(with_next(request, place.page(hub, "spawn-pending")))


async def _form(
    hub: Hub,
    place: Place,
    options: dict[str, list[str]] | None,
    error: HubError | None = None,
) -> FormView | None:
    """Return the form for a server, with what was chosen; None where there is nothing to choose."""
    if not has_choice(hub.settings.profiles):
        return None
    async with hub.database.read() as db:
        groups = await profile_groups(db, hub, place.owner)
    kept = place.row.user_options if place.row is not None else {}
    return form_view(
        open_profiles(hub.settings.profiles, groups),
        kept if options is None else options,
        problem="" if error is None else error.message,
        problems=error.problems if isinstance(error, OptionsError) else None,
    )


def _show_form(
    request: Request,
    subject: Subject,
    place: Place,
    form: FormView,
    error: HubError | None = None,
) -> Response:
    hub, query = hub_of(request), {}
    for key, value in (
        ("display_name", request.query_params.get("display_name")),
        ("next", wanted_next(request)),
    ):
        if value:
            query[key] = value
    path = place.page(hub, "spawn")
    return show(
        request,
        subject,
        "spawn.html",
        status=error.status_code if error is not None else 200,
        headers=error.headers if error is not None else None,
        title=_form_title(subject, place),
        form=form,
        start_url=f"{path}?{urlencode(query)}" if query else path,
    )


def _form_title(subject: Subject, place: Place) -> str:
    whose = whose_of(subject, place)
    title = f"Start the server of {whose}" if whose else "Start your server"
    called = place.row.display_name or place.name if place.row is not None else place.name
    return f"{title}, {called}" if place.name else title


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
