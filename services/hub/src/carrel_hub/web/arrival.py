"""Where a browser goes once somebody is signed in, and the steps that signing in takes."""

from starlette.requests import Request
from starlette.responses import Response

from carrel_hub.auth import xsrf
from carrel_hub.auth.browser import cookie_jar, hub_of, public_origin
from carrel_hub.auth.next_url import safe_next
from carrel_hub.auth.sessions import NewSession, end_session, remember
from carrel_hub.auth.subjects import Subject, hub_signer
from carrel_hub.context import Hub
from carrel_hub.db.models import User
from carrel_hub.hosts.standing import known_names
from carrel_hub.spawns.paths import escape_name
from carrel_hub.spawns.service import can_have_servers, find_server
from carrel_hub.spawns.states import ENDED, State
from carrel_hub.web.page_route import redirect


def wanted_next(request: Request, typed: str | None = None) -> str | None:
    """Return where the request wants to go on, if that is a place of ours.

    Args:
        typed: What the field `next` of its form says; the address counts first.
    """
    scheme, host = public_origin(request)
    places = hub_of(request).settings.places
    wanted = request.query_params.get("next", typed)
    if wanted is not None and places.hub_origin:
        origin, slash, rest = _split_origin(wanted)
        if places.is_users(origin):
            wanted = slash + rest
    found = safe_next(wanted, scheme=scheme, host=host)
    return None if found is None else places.located(found)


def _split_origin(address: str) -> tuple[str, str, str]:
    """Return an address's origin, and its path in two pieces."""
    scheme, separator, rest = address.partition("://")
    authority, slash, path = rest.partition("/")
    return f"{scheme}{separator}{authority}".lower(), slash, path


async def default_next(hub: Hub, user: User) -> str:
    """Return where somebody goes who did not say: as the settings say, else to their server."""
    if hub.settings.landing_url is not None:
        path = hub.settings.landing_url.replace("{username}", escape_name(user.name))
        return hub.settings.places.located(path)
    if not hub.settings.redirect_to_server:
        return f"{hub.settings.hub_prefix}home"
    async with hub.database.read() as db:
        row = await find_server(db, user)
        possible = await can_have_servers(db, hub, user)
    if row is not None and row.state not in (*ENDED, State.STOPPING):
        return hub.settings.places.url(user.name)
    return f"{hub.settings.hub_prefix}{'spawn' if possible else 'home'}"


async def arrive(request: Request, before: Subject, user: User, session: NewSession) -> Response:
    """Answer the request that signed somebody in: cookies, and on to where they wanted to be.

    Args:
        before: Who was signed in in this browser until now; that session, and whatever doors it
            had opened, end.
    """
    hub = hub_of(request)
    if before.session is not None and before.user is not None:
        async with hub.database.write() as db:
            await end_session(db, before.session, before.user, at=hub.clock.now())
        await hub.wakeups.notify()
    signer, jar = hub_signer(hub), cookie_jar(request)
    response = redirect(wanted_next(request) or await default_next(hub, user))
    remember(response, jar, signer, session, now=hub.clock.now())
    bound_to = xsrf.binding(request, session.row.secret_hash)
    jar.set_xsrf(response, xsrf.token_for(request, signer, bound_to).value, max_age=None)
    if user.account:
        hub.tasks.start(_warm(hub), name="warm-hint")
    return response


async def _warm(hub: Hub) -> None:
    async with hub.database.read() as session:
        names = await known_names(session, hub.settings)
    await hub.agents.warm(names)
