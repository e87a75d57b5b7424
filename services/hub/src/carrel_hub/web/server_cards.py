"""A server as the pages with lists of them show it."""

from dataclasses import dataclass

from carrel_hub.context import Hub
from carrel_hub.web.server_view import ServerView, view
from carrel_hub.web.servers import Place


@dataclass(frozen=True, slots=True)
class Card:
    """One server on the page."""

    owner: str
    name: str
    possible: bool
    view: ServerView
    open_url: str
    start_url: str
    stop_url: str
    why_url: str
    history_url: str
    share_url: str


def card(hub: Hub, place: Place) -> Card:
    """Return what a page shows of a server."""
    return Card(
        owner=place.owner.name,
        name=place.row.display_name or place.name if place.row else place.name,
        possible=place.possible,
        view=view(place.row, now=hub.clock.now()),
        open_url=place.url(hub),
        start_url=place.page(hub, "spawn"),
        stop_url=place.page(hub, "stop"),
        why_url=place.page(hub, "spawn-pending"),
        share_url=place.page(hub, "share"),
        history_url=place.page(hub, "history") if place.row else "",
    )
