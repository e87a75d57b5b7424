"""`{hub}share/OWNER`: what an owner gives of a server, by links and by name, and takes back."""

from dataclasses import dataclass, field
from datetime import timedelta
from urllib.parse import urlencode

from fastapi import Depends
from sqlmodel import col
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of, public_origin
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server
from carrel_hub.errors import ForbiddenError, InvalidRequestError, NotFoundError
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise, may
from carrel_hub.rbac.words import in_words_of_one_server
from carrel_hub.shares.asked import (
    find_recipient,
    grantable_names,
    may_name_somebody,
    require_to_name,
)
from carrel_hub.shares.bodies import Recipient, code_number
from carrel_hub.shares.codes import delete_codes, issue_code, list_codes
from carrel_hub.shares.models import Offered, Shared
from carrel_hub.shares.store import grant_share, list_shares, revoke_share
from carrel_hub.spawns.service import named_server
from carrel_hub.users.paging import MAX_LIMIT, Page
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_fields,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.servers import Place, find_place

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

OFFERED = (Scope.ACCESS_SERVERS, Scope.READ_SERVERS, Scope.START_SERVERS, Scope.DELETE_SERVERS)
"""What the page offers to share; the REST API takes more."""

LIFETIMES = {
    "3600": "an hour",
    "86400": "a day",
    "604800": "a week",
    "2592000": "30 days",
    "31536000": "a year",
}
"""How long a link may be good, in seconds."""

_ALL = Page(0, MAX_LIMIT, described=False)


@dataclass(frozen=True, slots=True)
class ShareForm:
    """What was sent.

    Attributes:
        do: `link`, `grant`, `revoke-link` or `revoke`.
        scopes: What is to be shared.
        lifetime: Of a link, in seconds.
        name, kind: With whom; `user` or `group`.
        number: Of the link to revoke.
        problem: What is wrong with it, or nothing.
    """

    do: str = ""
    scopes: tuple[str, ...] = (str(Scope.ACCESS_SERVERS),)
    lifetime: str = "86400"
    name: str = ""
    kind: str = "user"
    number: str = ""
    problem: str = ""
    link: str = field(default="", repr=False)


@router.api_route("/share/{owner}", methods=READING)
async def share(request: Request, owner: str) -> Response:
    """Show with whom a server is shared."""
    return await _visit(request, owner, "")


@router.api_route("/share/{owner}/{name}", methods=READING)
async def share_named(request: Request, owner: str, name: str) -> Response:
    """Show with whom a named server is shared."""
    return await _visit(request, owner, name)


@router.post("/share/{owner}")
async def change(request: Request, owner: str) -> Response:
    """Share a server, or take that back, by a button."""
    return await _change(request, owner, "")


@router.post("/share/{owner}/{name}")
async def change_named(request: Request, owner: str, name: str) -> Response:
    """Share a named server, or take that back, by a button."""
    return await _change(request, owner, name)


async def _visit(request: Request, owner: str, name: str) -> Response:
    subject, _ = await signed_in(request)
    place = await find_place(hub_of(request), subject, Scope.READ_SHARES, owner, name)
    return await _page(request, subject, place, ShareForm())


async def _change(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, _ = await signed_in(request)
    form = _sent(await checked_fields(request, subject))
    place = await find_place(hub, subject, Scope.READ_SHARES, owner, name)
    authorise(subject, Scope.SHARES, Resource(place.owner.name, place.name))
    try:
        secret = await _carry_out(hub, subject, place, form)
    except (InvalidRequestError, ForbiddenError, NotFoundError) as error:
        status, problem = error.status_code, error.message
        wrong = ShareForm(
            form.do, form.scopes, form.lifetime, form.name, form.kind, problem=problem
        )
        return await _page(request, subject, place, wrong, status=status)
    if not secret:
        return redirect(place.page(hub, "share"), status=303)
    scheme, host = public_origin(request)
    path = f"{hub.settings.hub_prefix}accept-share?{urlencode({'code': secret})}"
    made = ShareForm(link=f"{scheme}://{host}{path}")
    place = await find_place(hub, subject, Scope.READ_SHARES, owner, name)
    return await _page(request, subject, place, made)


def _sent(fields: list[tuple[str, str]]) -> ShareForm:
    first: dict[str, str] = {}
    for key, value in fields:
        first.setdefault(key, value)
    return ShareForm(
        do=first.get("do", ""),
        scopes=tuple(value for key, value in fields if key == "scope"),
        lifetime=first.get("lifetime", ""),
        name=first.get("name", "").strip(),
        kind=first.get("kind", "user"),
        number=first.get("number", ""),
    )


async def _carry_out(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> str:
    """Do what a button says; return the secret of a new link."""
    match form.do:
        case "link":
            return await _make_link(hub, subject, place, form)
        case "grant":
            await _grant(hub, subject, place, form)
        case "revoke-link":
            await _revoke_link(hub, subject, place, form)
        case "revoke":
            await _revoke(hub, subject, place, form)
        case _:
            raise InvalidRequestError("There is no such button on this page.")
    return ""


async def _make_link(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> str:
    if form.lifetime not in LIFETIMES:
        raise InvalidRequestError("There is no such choice of how long a link is good.")
    names, lifetime = _names(hub, subject, place, form), timedelta(seconds=int(form.lifetime))
    async with hub.database.write() as db:
        row = await named_server(db, hub, place.owner, place.name, actor=subject.actor)
        _, secret = await issue_code(db, hub, row, names, lifetime=lifetime, by=subject)
    return secret


async def _grant(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> None:
    names, recipient = _names(hub, subject, place, form), _recipient(form)
    require_to_name(subject, recipient)
    async with hub.database.write() as db:
        who = await find_recipient(db, recipient)
        if who is None:
            raise InvalidRequestError(f"There is no {form.kind} called {form.name[:255]}.")
        if not recipient.is_group and who.name == place.owner.name:
            raise InvalidRequestError("The server is theirs already.")
        row = await named_server(db, hub, place.owner, place.name, actor=subject.actor)
        await grant_share(db, row, who, names, at=hub.clock.now(), actor=subject.actor)


async def _revoke_link(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> None:
    number = code_number(form.number)
    async with hub.database.write() as db:
        if place.row is None or number is None:
            raise NotFoundError("There is no such link (any more).")
        await delete_codes(db, hub, place.row, actor=subject.actor, number=number)


async def _revoke(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> None:
    async with hub.database.write() as db:
        who = await find_recipient(db, _recipient(form))
        if place.row is not None and who is not None:
            at, actor = hub.clock.now(), subject.actor
            await revoke_share(db, place.row, who, None, at=at, actor=actor)


def _names(hub: Hub, subject: Subject, place: Place, form: ShareForm) -> list[str]:
    if not form.scopes:
        raise InvalidRequestError("Choose what they may do.")
    resource = Resource(place.owner.name, place.name)
    return grantable_names(hub, subject, resource, list(form.scopes))


def _recipient(form: ShareForm) -> Recipient:
    if form.kind not in ("user", "group") or not form.name:
        raise InvalidRequestError("Say with whom, by name.")
    return Recipient(form.name, is_group=form.kind == "group")


async def _page(
    request: Request, subject: Subject, place: Place, form: ShareForm, *, status: int = 200
) -> Response:
    hub = hub_of(request)
    resource = Resource(place.owner.name, place.name)
    shares: list[Shared] = []
    links: list[Offered] = []
    if place.row is not None:
        where = [col(Server.id) == place.row.id]
        async with hub.database.read() as db:
            shares, _ = await list_shares(db, where, _ALL)
            links, _ = await list_codes(db, hub, where, _ALL)
    own = subject.name == place.owner.name
    called = place.row.display_name or place.name if place.row else place.name
    title = "Share your server" if own else f"Share the server of {place.owner.name}"
    return show(
        request,
        subject,
        "share.html",
        status=status,
        title=f"{title}, {called}" if place.name else title,
        own=own,
        here=place.page(hub, "share"),
        form=form,
        shares=[(one, _words(hub, one.share.scopes)) for one in shares],
        links=[(one.code, _words(hub, one.code.scopes)) for one in links],
        may_share=may(subject, Scope.SHARES, resource),
        may_name=may_name_somebody(subject),
        offers=[
            (str(scope), in_words_of_one_server(scope, {}))
            for scope in OFFERED
            if may(subject, scope, resource)
        ],
        lifetimes=LIFETIMES,
    )


def _words(hub: Hub, names: list[str]) -> str:
    custom = hub.settings.role_book.custom
    return "; ".join(in_words_of_one_server(name, custom) for name in names)
