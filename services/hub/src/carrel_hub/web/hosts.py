"""`{hub}hosts`: the machines that servers run on, for administrators."""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from fastapi import Depends
from sqlmodel import col, select
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of, public_origin
from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, User
from carrel_hub.errors import ConflictError, ForbiddenError, InvalidRequestError
from carrel_hub.hosts.joining import issue_join_token
from carrel_hub.hosts.keeping import accept_machine, evacuate, find_host, remove_host, set_draining
from carrel_hub.hosts.listing import host_model, list_host_models
from carrel_hub.hosts.standing import Standing
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import is_administrator
from carrel_hub.spawns.offers import offers
from carrel_hub.spawns.placement import Offer
from carrel_hub.spawns.states import ENDED
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
)
from carrel_hub.web.server_cards import Card, card
from carrel_hub.web.server_view import duration
from carrel_hub.web.servers import Place

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

MOST_SERVERS = 200

_WORDS = {
    Standing.JOINING: "Joining",
    Standing.READY: "Ready",
    Standing.DRAINING: "Draining",
    Standing.UNREACHABLE: "Silent",
    Standing.GONE: "Gone",
}
_LIKE_SERVERS = {
    Standing.JOINING: "starting",
    Standing.READY: "ready",
    Standing.DRAINING: "stopping",
    Standing.UNREACHABLE: "unknown",
    Standing.GONE: "stopped",
}
"""The colours of badges are those of servers."""
_SURE = {"evacuate": "Evacuate", "remove": "Remove", "accept": "Accept another machine as"}
"""What is asked about before it is done."""


@dataclass(frozen=True, slots=True)
class HostView:
    """A host as the pages show it.

    Attributes:
        badge, words: Its state, for style and for people.
        detail: What is wrong with it, or what it awaits.
        servers: How many run there; None where none ever could.
        use: What of it is in use and kept free, each as a line.
        may_drain, may_take_in, may_accept, may_evacuate, may_remove: Which buttons it has.
        heard: It has reported lately.
    """

    name: str
    badge: str
    words: str
    detail: str
    servers: int | None
    use: list[str]
    labels: list[str]
    facts: list[tuple[str, str]]
    may_drain: bool
    may_take_in: bool
    may_accept: bool
    may_evacuate: bool
    may_remove: bool
    heard: bool


@router.api_route("/hosts", methods=READING)
async def hosts(request: Request) -> Response:
    """Show every host."""
    return await _list(request, await _administrator(request))


@router.post("/hosts")
async def make_token(request: Request) -> Response:
    """Make a token with which one host may join, and show it this once."""
    hub = hub_of(request)
    subject = await _administrator(request)
    name = (await checked_form(request, subject)).get("name", "").strip()
    try:
        if hub.settings.fleet_listen is None:
            raise InvalidRequestError("The hub's setting fleet_listen is not set: see below.")
        async with hub.database.write() as session:
            new = await issue_join_token(session, hub, name, actor=subject.actor)
    except (InvalidRequestError, ConflictError) as error:
        values = {"problem": error.message, "typed": name[:100]}
        return await _list(request, subject, status=error.status_code, **values)
    return await _list(request, subject, token=new.text, made_for=name)


@router.api_route("/hosts/{name}", methods=READING)
async def host(request: Request, name: str) -> Response:
    """Show one host with its servers, or ask whether something is meant."""
    hub = hub_of(request)
    subject = await _administrator(request)
    asked = request.query_params.get("sure", "")
    async with hub.database.read() as session:
        row = await find_host(session, hub, name)
        there_are = {one.name: one for one in await offers(session, hub.settings, hub.clock.now())}
        there = select(Server, User).join(User, col(User.id) == col(Server.user_id))
        there = there.where(Server.host == name, col(Server.state).not_in(ENDED))
        ordered = there.order_by(col(User.name), col(Server.name)).limit(MOST_SERVERS)
        rows = (await session.exec(ordered)).all()
    offer = there_are.get(name)
    servers: list[Card] = [card(hub, Place(user, one.name, one, True)) for one, user in rows]
    there_is = _view(hub, host_model(hub, row, offer.servers if offer else 0), offer)
    if asked in _SURE:
        title = f"{_SURE[asked]} {name}?"
        return show(request, subject, "host_sure.html", title=title, host=there_is, do=asked)
    return show(request, subject, "host.html", title=f"Host {name}", host=there_is, servers=servers)


@router.post("/hosts/{name}")
async def change(request: Request, name: str) -> Response:
    """Do to a host what its buttons say."""
    hub = hub_of(request)
    subject = await _administrator(request)
    fields = await checked_form(request, subject)
    do, lost, actor, ids = fields.get("do"), fields.get("lost") == "1", subject.actor, list[str]()
    async with hub.database.write() as session:
        row = await find_host(session, hub, name)
        match do:
            case "drain" | "take-in":
                await set_draining(session, hub, row, do == "drain", actor=actor)
            case "accept":
                await accept_machine(session, hub, row, actor=actor)
            case "evacuate":
                ids = await evacuate(session, hub, row, actor=actor)
            case "remove":
                ids = await remove_host(session, hub, row, actor=actor, servers_are_lost=lost)
            case _:
                raise InvalidRequestError("There is no such button on this page.")
    await hub.wakeups.notify(*ids)
    return redirect(f"{hub.settings.hub_prefix}hosts", status=303)


async def _administrator(request: Request) -> Subject:
    subject, _ = await signed_in(request)
    if not is_administrator(subject):
        raise ForbiddenError("Hosts are for administrators.")
    return subject


async def _list(
    request: Request, subject: Subject, *, status: int = 200, **values: str
) -> Response:
    hub = hub_of(request)
    async with hub.database.read() as session:
        models = await list_host_models(session, hub)
        there_are = {one.name: one for one in await offers(session, hub.settings, hub.clock.now())}
    port = (hub.settings.fleet_listen or "").rpartition(":")[2]
    shown: dict[str, Any] = {"problem": "", "typed": "", "token": "", "made_for": "", **values}
    return show(
        request,
        subject,
        "hosts.html",
        status=status,
        title="Hosts",
        hosts=[_view(hub, model, there_are.get(model["name"])) for model in models],
        join_url=f"https://{_hostname(request)}:{port}" if port else "",
        **shown,
    )


def _hostname(request: Request) -> str:
    """Return the host of our address, without its port."""
    host = public_origin(request)[1]
    return host if host.endswith("]") else host.rpartition(":")[0] or host


def _view(hub: Hub, model: dict[str, Any], offer: Offer | None) -> HostView:
    standing = Standing(model["state"])
    detail = str(model.get("trouble", ""))
    if until := model.get("token_expires_at"):
        detail = f"Its token is good until {str(until)[:16].replace('T', ' ')}."
    here = standing is not Standing.GONE and "capacity" in model
    return HostView(
        name=model["name"],
        badge=_LIKE_SERVERS[standing],
        words=_WORDS[standing],
        detail=detail,
        servers=model.get("servers") if here else None,
        use=_use(model.get("capacity") or {}, offer) if here else [],
        labels=[f"{key}={value}" for key, value in sorted(model.get("labels", {}).items())],
        facts=_facts(hub, model),
        may_drain=here and not (offer and offer.draining),
        may_take_in=here and bool(offer and offer.draining),
        may_accept=here and bool(model.get("another_machine")),
        may_evacuate=here,
        may_remove=here and all(peer.name != model["name"] for peer in hub.settings.agents),
        heard=standing in (Standing.READY, Standing.DRAINING),
    )


def _use(capacity: dict[str, Any], offer: Offer | None) -> list[str]:
    lines = []
    if (cores := capacity.get("cores")) is not None:
        load = capacity.get("load_1m")
        kept = f", {offer.reserved_cores:g} kept" if offer and offer.reserved_cores else ""
        lines.append(
            f"{cores} cores, load {load:.1f}{kept}" if load is not None else f"{cores} cores"
        )
    if total := capacity.get("memory_total"):
        free = _gib(capacity.get("memory_available", 0))
        kept = f", {_gib(offer.reserved_memory)} kept" if offer and offer.reserved_memory else ""
        lines.append(f"{free} of {_gib(total)} free{kept}")
    if gpus := len(capacity.get("gpus", ())):
        lines.append(f"{offer.reserved_gpus if offer else 0} of {gpus} GPUs in use")
    return lines


def _facts(hub: Hub, model: dict[str, Any]) -> list[tuple[str, str]]:
    seen = model.get("last_seen")
    ago = "never"
    if seen:
        heard = datetime.fromisoformat(seen)
        ago = f"{duration(hub.clock.now() - heard)} ago"
    accounts = model.get("accounts")
    facts = [
        ("Last heard", ago),
        ("Version", model.get("version")),
        ("Address", model.get("address")),
        ("Accounts", "everybody's" if accounts == "any" else accounts),
        ("Homes", model.get("homes")),
    ]
    return [(name, str(value)) for name, value in facts if value]


def _gib(size: int) -> str:
    return f"{size / (1 << 30):.1f} GiB"
