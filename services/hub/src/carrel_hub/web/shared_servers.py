"""The servers of others that are shared with somebody, as the home page shows them."""

from dataclasses import dataclass

from sqlmodel import col, select
from sqlmodel.ext.asyncio.session import AsyncSession

from carrel_hub.auth.subjects import Subject
from carrel_hub.context import Hub
from carrel_hub.db.models import Server, Share, User
from carrel_hub.rbac import Resource, Scope, may
from carrel_hub.shares.store import of_user
from carrel_hub.spawns.paths import escape_name
from carrel_hub.spawns.service import shares_accounts
from carrel_hub.web.server_cards import Card, card
from carrel_hub.web.servers import Place

MOST = 200


@dataclass(frozen=True, slots=True)
class SharedCard:
    """One of them.

    Attributes:
        may_open, may_start, may_stop: What somebody may do with it.
        leave_url: Where it is given back; empty when it came by a group alone.
    """

    shown: Card
    may_open: bool
    may_start: bool
    may_stop: bool
    leave_url: str


async def shared_cards(db: AsyncSession, hub: Hub, subject: Subject, me: User) -> list[SharedCard]:
    """Return the servers that are shared with somebody, by owner and name."""
    statement = (
        select(Server, User, Share.user_id)
        .join(Share, col(Share.server_id) == col(Server.id))
        .join(User, col(User.id) == col(Server.user_id))
        .where(*of_user(me), col(Server.user_id) != me.id)
        .order_by(col(User.name), col(Server.name))
        .limit(MOST)
    )
    rows = (await db.exec(statement)).all()
    if not rows:
        return []
    mine = {server.id for server, _owner, user_id in rows if user_id is not None}
    shared = await shares_accounts(db, hub)
    found: dict[str, SharedCard] = {}
    for server, owner, _user_id in rows:
        place = Place(owner, server.name, server, shared or bool(owner.account))
        resource = Resource(owner.name, server.name)
        leave = f"{hub.settings.hub_prefix}leave-share/{escape_name(owner.name)}"
        leave += f"/{escape_name(server.name)}" if server.name else ""
        found[server.id] = SharedCard(
            card(hub, place),
            may_open=may(subject, Scope.ACCESS_SERVERS, resource),
            may_start=may(subject, Scope.START_SERVERS, resource),
            may_stop=may(subject, Scope.DELETE_SERVERS, resource),
            leave_url=leave if server.id in mine else "",
        )
    return list(found.values())
