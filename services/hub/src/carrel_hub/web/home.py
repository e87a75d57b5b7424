"""The home page: one's own server with its buttons, and for administrators everybody's."""

from fastapi import Depends
from sqlmodel import col, func, select
from sqlmodel.ext.asyncio.session import AsyncSession
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.auth.rules import people_named
from carrel_hub.auth.subjects import Subject, page_subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, Service, User
from carrel_hub.events import user_actor
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, ServiceResource, may
from carrel_hub.services.models import service_prefix
from carrel_hub.spawns.choice import has_choice
from carrel_hub.spawns.service import find_server, request_stop, shares_accounts
from carrel_hub.web.arrival import default_next, wanted_next
from carrel_hub.web.page_route import (
    READING,
    PageRoute,
    checked_form,
    navigation_only,
    redirect,
    show,
    signed_in,
    to_sign_in,
)
from carrel_hub.web.server_cards import Card, card
from carrel_hub.web.servers import Place, find_place
from carrel_hub.web.shared_servers import shared_cards

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])

MOST_PEOPLE = 200
REFRESH_SECONDS = 2


@router.api_route("/", methods=READING)
async def root(request: Request) -> Response:
    """Send somebody to where they wanted to be, or to sign in first."""
    hub = hub_of(request)
    subject = await page_subject(request)
    landing = hub.settings.landing_url
    if subject.user is None:
        if landing is None or "{username}" in landing:
            return to_sign_in(request)
        return redirect(hub.settings.places.located(landing))
    return redirect(wanted_next(request) or await default_next(hub, subject.user))


@router.api_route("/home", methods=READING)
async def home(request: Request) -> Response:
    """Show somebody's server, and to administrators everybody's."""
    hub = hub_of(request)
    subject, user = await signed_in(request)
    people: list[Card] = []
    unseen: list[str] = []
    total = 0
    async with hub.database.read() as db:
        shared = await shares_accounts(db, hub)
        row = await find_server(db, user)
        own = card(hub, Place(user, "", row, shared or bool(user.account)))
        named = await _named(db, hub, user, shared=shared)
        services = await _services(db, hub, subject)
        given = await shared_cards(db, hub, subject, user)
        if may(subject, Scope.LIST_USERS) and may(subject, Scope.SERVERS):
            total, people = await _people(db, hub, user, shared=shared)
            unseen = await _not_seen_yet(db, hub)
    shown = (own, *named, *people, *(one.shown for one in given))
    changing = any(one.view.changing for one in shown)
    return show(
        request,
        subject,
        "home.html",
        refresh=REFRESH_SECONDS if changing else None,
        own=own,
        asks=has_choice(hub.settings.profiles),
        named=named,
        may_share=may(subject, Scope.SHARES, Resource(user.name)),
        given=given,
        services=services,
        may_name=hub.settings.allow_named_servers and own.possible,
        name_url=f"{hub.settings.hub_prefix}spawn-named",
        insecure=shared and user.admin,
        admin=user.admin,
        people=people,
        more=max(total - len(people), 0),
        unseen=unseen,
    )


@router.post("/stop/{owner}")
async def stop(request: Request, owner: str) -> Response:
    """Ask for a server to stop, and show how it does."""
    return await _stop(request, owner, "")


@router.post("/stop/{owner}/{name}")
async def stop_named(request: Request, owner: str, name: str) -> Response:
    """Ask for a named server to stop."""
    return await _stop(request, owner, name)


async def _stop(request: Request, owner: str, name: str) -> Response:
    hub = hub_of(request)
    subject, user = await signed_in(request)
    await checked_form(request, subject)
    place = await find_place(hub, subject, Scope.DELETE_SERVERS, owner, name)
    if place.row is not None:
        async with hub.database.write() as db:
            row = await db.get(Server, place.row.id)
            if row is not None:
                await request_stop(
                    db,
                    hub,
                    row,
                    actor=user_actor(user.name),
                    reason=f"{user.name} pressed Stop.",
                )
        await hub.wakeups.notify(place.row.id)
    return redirect(f"{hub.settings.hub_prefix}home", status=303)


async def _services(db: AsyncSession, hub: Hub, subject: Subject) -> list[tuple[str, str]]:
    """Return name and address of each service that wants to be shown and opens to somebody."""
    shown = select(Service).where(col(Service.display), col(Service.url).is_not(None))
    rows = (await db.exec(shown.order_by(col(Service.name)))).all()
    places = hub.settings.places
    return [
        (row.name, places.service_origin(row.name) + service_prefix(places.base_url, row.name))
        for row in rows
        if may(subject, Scope.ACCESS_SERVICES, ServiceResource(row.name))
    ]


async def _named(db: AsyncSession, hub: Hub, user: User, *, shared: bool) -> list[Card]:
    """Return somebody's servers beside the default one, by name."""
    mine = select(Server).where(Server.user_id == user.id, col(Server.name) != "")
    rows = (await db.exec(mine.order_by(col(Server.name)))).all()
    return [card(hub, Place(user, row.name, row, shared or bool(user.account))) for row in rows]


async def _people(db: AsyncSession, hub: Hub, me: User, *, shared: bool) -> tuple[int, list[Card]]:
    """Return how many others there are, and the first of them with their servers.

    Those whose server does something come first.
    """
    others = User.id != me.id
    total = (await db.exec(select(func.count()).select_from(User).where(others))).one()
    rows = (
        await db.exec(
            select(User, Server)
            .join(
                Server,
                (col(Server.user_id) == col(User.id)) & (col(Server.name) == ""),
                isouter=True,
            )
            .where(others)
            .order_by(
                func.coalesce(col(Server.state), "stopped").in_(["stopped", "failed"]),
                col(User.name),
            )
            .limit(MOST_PEOPLE)
        )
    ).all()
    return total, [
        card(hub, Place(user, "", row, shared or bool(user.account))) for user, row in rows
    ]


async def _not_seen_yet(db: AsyncSession, hub: Hub) -> list[str]:
    """Return the names that the settings let in and nobody has signed in by."""
    names = people_named(hub.settings.auth)[:500]
    seen = select(User.name).where(col(User.name).in_(names), col(User.last_activity).is_not(None))
    known = set((await db.exec(seen)).all())
    return [name for name in names if name not in known]
