"""`{hub}admin`: the people somebody looks after, with all of their servers."""

from dataclasses import dataclass

from fastapi import Depends
from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth.browser import hub_of
from carrel_hub.db.models import Server
from carrel_hub.late_routes import LateRouter
from carrel_hub.rbac import Resource, Scope, authorise, extent, is_administrator, may
from carrel_hub.spawns.service import shares_accounts
from carrel_hub.users.listing import Listed, list_users
from carrel_hub.users.paging import read_page
from carrel_hub.web.page_route import READING, PageRoute, navigation_only, show, signed_in
from carrel_hub.web.server_cards import Card, card
from carrel_hub.web.servers import Place

router = LateRouter(route_class=PageRoute, dependencies=[Depends(navigation_only)])


@dataclass(frozen=True, slots=True)
class Person:
    """One person on the page.

    Attributes:
        servers: The default one first, running or not; those that the viewer may see.
        may_start, may_stop: What the viewer may do with them.
    """

    name: str
    admin: bool
    groups: list[str]
    servers: list[Card]
    may_start: bool
    may_stop: bool


@router.api_route("/admin", methods=READING)
async def admin(request: Request) -> Response:
    """Show the people whom the viewer may list."""
    hub = hub_of(request)
    subject, _ = await signed_in(request)
    authorise(subject, Scope.ADMIN_UI)
    seen = extent(subject, Scope.LIST_USERS, {"user", "group"})
    page = read_page(request)
    wanted = request.query_params.get("name_filter", "")
    async with hub.database.read() as session:
        listed, total = await list_users(
            session, seen, page, name_filter=wanted, sort="name", with_stopped=True
        )
        shared = await shares_accounts(session, hub)

    def person(one: Listed) -> Person:
        name, possible = one.user.name, shared or bool(one.user.account)
        rows: list[Server | None] = [
            row
            for row in sorted(one.servers, key=lambda row: row.name)
            if may(subject, Scope.READ_SERVERS, Resource(name, row.name))
        ]
        if not any(row is not None and row.name == "" for row in rows):
            rows.insert(0, None)
        return Person(
            name=name,
            admin=one.user.admin,
            groups=list(one.groups),
            servers=[
                card(hub, Place(one.user, row.name if row else "", row, possible)) for row in rows
            ],
            may_start=may(subject, Scope.START_SERVERS, Resource(name)),
            may_stop=may(subject, Scope.DELETE_SERVERS, Resource(name)),
        )

    following = page.offset + page.limit
    return show(
        request,
        subject,
        "admin.html",
        title="People",
        people=[person(one) for one in listed],
        total=total,
        may_audit=is_administrator(subject),
        name_filter=wanted,
        next_offset=following if following < total else None,
    )
