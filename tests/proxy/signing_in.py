"""A browser that signs in to a guarded route, step by step."""

from datetime import timedelta
from urllib.parse import parse_qs, urlsplit

from proxy.hub import FakeHub, allowed
from proxy.wire import Client, Message

from carrel_shared.clock import SystemClock
from carrel_shared.wire.access import RedeemedToken

NAVIGATION = ("Sec-Fetch-Mode: navigate", "Accept: text/html")
SESSION = "jupyterhub-session-id=5e55"


async def begin(client: Client, target: str, *fields: str) -> tuple[Message, dict[str, str]]:
    reply = await client.ask(target, *NAVIGATION, *fields)
    assert reply.status == 302, reply.body
    location = urlsplit(reply.one("location") or "")
    assert location.path == "/hub/api/oauth2/authorize"
    return reply, {name: values[0] for name, values in parse_qs(location.query).items()}


def cookie_pair(set_cookie: str) -> str:
    return set_cookie.split(";")[0]


async def finish(client: Client, hub: FakeHub, begun: Message, state: str) -> Message:
    hub.codes["the-code"] = RedeemedToken(
        token="fresh",
        expires_at=SystemClock().now() + timedelta(hours=1),
        verdict=allowed("alice"),
    )
    cookie = cookie_pair(begun.all("set-cookie")[0])
    return await client.ask(
        f"/user/alice/oauth_callback?code=the-code&state={state}",
        *NAVIGATION,
        f"Cookie: {SESSION}; {cookie}",
    )
