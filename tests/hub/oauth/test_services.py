"""Services and stock servers as OAuth clients: a code, a secret, a token (contract 5)."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import httpx
import pytest
from hub.oauth.test_authorize import CHALLENGE, VERIFIER
from hub.web.site import Browser, Site, has_element, open_site

from carrel_hub.app import create_public_app
from carrel_hub.auth.digest import digest
from carrel_hub.db.models import OAuthCode, Token
from carrel_hub.spawns.own_tokens import issue_own_token, own_token
from carrel_hub.startup import apply_settings

SECRET = "s" * 40
CALLBACK = "http://127.0.0.1:7/cb?fixed=1"
SETTINGS: dict[str, Any] = {
    "services": [
        {
            "name": "grader",
            "api_token": SECRET,
            "oauth_redirect_uri": CALLBACK,
            "oauth_client_allowed_scopes": ["read:users:activity!user", "list:groups"],
        },
        {
            "name": "quiet",
            "api_token": f"{SECRET}q",
            "url": "http://127.0.0.1:8",
            "oauth_no_confirm": True,
        },
        {"name": "closed", "api_token": f"{SECRET}c", "url": "http://127.0.0.1:8"},
        {"name": "mute", "url": "http://127.0.0.1:8"},
    ],
    "roles": [
        {
            "name": "user",
            "scopes": ["self"] + [f"access:services!service={s}" for s in ("grader", "quiet")],
        }
    ],
}
GOOD = {
    "client_id": "service-grader",
    "redirect_uri": CALLBACK,
    "response_type": "code",
    "state": "st4te/+=&",
}
QUIET = {"client_id": "service-quiet", "redirect_uri": "/services/quiet/oauth_callback"}


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    async with open_site(**SETTINGS) as made:
        await apply_settings(made.hub)
        yield made


def url(**changes: str | None) -> str:
    values = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return f"/hub/api/oauth2/authorize?{urlencode(values)}"


def code_in(reply: httpx.Response) -> str:
    assert reply.status_code == 302, reply.text
    [code] = parse_qs(urlsplit(reply.headers["location"]).query)["code"]
    return code


async def exchange(site: Site, **changes: str | None) -> httpx.Response:
    values = {
        "client_id": "service-quiet",
        "client_secret": f"{SECRET}q",
        "grant_type": "authorization_code",
        "redirect_uri": QUIET["redirect_uri"],
        **changes,
    }
    fields = {name: value for name, value in values.items() if value is not None}
    # What the real client sends beside the form, and what counts for nothing here.
    headers = {"Authorization": f"token {SECRET}q"}
    return await site.client().post("/hub/api/oauth2/token", data=fields, headers=headers)


async def who(site: Site, token: str) -> httpx.Response:
    transport = httpx.ASGITransport(create_public_app(site.hub))
    async with httpx.AsyncClient(transport=transport, base_url="http://hub") as client:
        headers = {"Authorization": f"token {token}"}
        return await client.get("/hub/api/user", headers=headers)


async def test_a_challenge_that_somebody_left_out_is_missed(site: Site) -> None:
    """RFC 9700 2.1.1: who sends a verifier sent a challenge; without it the code is another's."""
    browser = await site.signed_in("alice")
    code = code_in(await browser.get(url(**QUIET)))
    refused = await exchange(site, code=code, code_verifier=VERIFIER)
    assert (refused.status_code, refused.json()["error"]) == (400, "invalid_grant")
    assert not any(token.client_id for token in await site.tokens())
    assert (await exchange(site, code=code_in(await browser.get(url(**QUIET))))).status_code == 200


async def test_a_trusted_service_gets_code_and_token_without_a_question(site: Site) -> None:
    browser = await site.signed_in("alice")
    challenge = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    reply = await browser.get(url(**QUIET, **challenge))
    location = urlsplit(reply.headers["location"])
    assert location.path == "/services/quiet/oauth_callback"
    assert parse_qs(location.query)["state"] == [GOOD["state"]]
    token = await exchange(site, code=code_in(reply), code_verifier=VERIFIER)
    assert token.status_code == 200
    assert token.headers["cache-control"] == "no-store"
    assert token.headers["pragma"] == "no-cache"
    said = token.json()
    assert said["token_type"] == "Bearer"
    assert said["expires_in"] == 14 * 86400
    assert "access:services!service=quiet" in said["scope"].split()
    me = (await who(site, said["access_token"])).json()
    [session] = await site.sessions()
    assert (me["name"], me["session_id"]) == ("alice", session.session_hash)
    assert me["scopes"] == [
        "access:services!service=quiet",
        "read:users:groups!user=alice",
        "read:users:name!user=alice",
    ]
    [event] = await site.events("access.granted")
    assert (event.actor, event.subject) == ("user:alice", "service:quiet")


async def test_others_ask_and_get_what_was_granted_and_held(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get(url())
    assert page.status_code == 200
    assert has_element(page, "allow")
    assert 'value="read:users:activity!user"' in page.text
    assert "list:groups" not in page.text, "alice has not that herself"
    assert "http://127.0.0.1:7" in page.headers["content-security-policy"].split("form-action")[1]
    assert await site.all(OAuthCode) == []
    reply = await browser.press(page, "allow")
    assert reply.headers["location"].startswith(f"{CALLBACK}&code=")
    token = await exchange(
        site,
        client_id="service-grader",
        client_secret=SECRET,
        redirect_uri=CALLBACK,
        code=code_in(reply),
    )
    me = (await who(site, token.json()["access_token"])).json()
    assert "read:users:activity!user=alice" in me["scopes"]
    assert (await browser.get(url())).status_code == 302, "agreed to before"
    boss = await site.signed_in("boss", admin=True)
    page = await boss.get(url())
    assert "list:groups" in page.text


async def test_less_can_be_asked_for_and_more_not(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get(url(scope="read:users:name!user identify"))
    assert page.status_code == 200
    assert "read:users:activity" not in page.text
    for scope in (
        "servers!user",
        "list:groups list:users",
        "no:such",
        "admin",
        "read:users!server",
    ):
        reply = await browser.get(url(scope=scope))
        values = parse_qs(urlsplit(reply.headers["location"]).query)
        assert values["error"] == ["invalid_scope"]
        assert values["state"] == [GOOD["state"]]


async def test_ticking_more_than_was_asked_for_is_refused(site: Site) -> None:
    browser = await site.signed_in("alice")
    page = await browser.get(url(scope="identify"))
    body = {"_xsrf": str(browser.client.cookies["_xsrf"]), "scopes": "list:groups"}
    reply = await browser.client.post(url(scope="identify"), data=body)
    assert parse_qs(urlsplit(reply.headers["location"]).query)["error"] == ["invalid_scope"]
    assert page.status_code == 200
    assert await site.all(OAuthCode) == []


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"client_id": "service-closed", "redirect_uri": None}, 403),
        ({"client_id": "service-mute", "redirect_uri": None}, 400),
        ({"client_id": "service-none", "redirect_uri": None}, 400),
        ({"redirect_uri": "http://127.0.0.1:7/cb"}, 400),
        ({"redirect_uri": "http://127.0.0.1:7/cb?fixed=1&x"}, 400),
        ({"redirect_uri": "HTTP://127.0.0.1:7/cb?fixed=1"}, 400),
    ],
)
async def test_what_is_not_the_clients_is_a_page(
    site: Site, changes: dict[str, str | None], status: int
) -> None:
    browser = await site.signed_in("alice")
    reply = await browser.get(url(**changes))
    assert reply.status_code == status
    assert "location" not in reply.headers


async def test_a_plain_challenge_counts_for_services(site: Site) -> None:
    browser = await site.signed_in("alice")
    reply = await browser.get(url(**QUIET, code_challenge=VERIFIER))
    wrong = await exchange(site, code=code_in(reply), code_verifier="w" * 43)
    assert (wrong.status_code, wrong.json()["error"]) == (400, "invalid_grant")
    reply = await browser.get(url(**QUIET, code_challenge=VERIFIER))
    assert (await exchange(site, code=code_in(reply))).status_code == 400, "a verifier is needed"
    reply = await browser.get(url(**QUIET, code_challenge=VERIFIER))
    good = await exchange(site, code=code_in(reply), code_verifier=VERIFIER)
    assert good.status_code == 200


@pytest.mark.parametrize(
    ("changes", "status", "error"),
    [
        ({"client_secret": "x" * 40}, 401, "invalid_client"),
        ({"client_secret": None}, 401, "invalid_client"),
        ({"client_id": "service-none"}, 401, "invalid_client"),
        ({"client_id": "service-mute", "client_secret": ""}, 401, "invalid_client"),
        ({"client_id": "jupyterhub-user-alice", "client_secret": ""}, 401, "invalid_client"),
        ({"grant_type": "password"}, 400, "unsupported_grant_type"),
        ({"grant_type": None}, 400, "unsupported_grant_type"),
        ({"grant_type": "refresh_token"}, 400, "unauthorized_client"),
        ({"code": None}, 400, "invalid_request"),
        ({"code": ""}, 400, "invalid_grant"),
        ({"code": "unknown"}, 400, "invalid_grant"),
        ({"redirect_uri": "/services/other/oauth_callback"}, 400, "invalid_request"),
        ({"client_id": "service-grader", "client_secret": SECRET}, 400, "invalid_grant"),
    ],
)
async def test_what_does_not_fit_gets_no_token(
    site: Site, changes: dict[str, str | None], status: int, error: str
) -> None:
    browser = await site.signed_in("alice")
    await site.add_server("alice")
    code = code_in(await browser.get(url(**QUIET)))
    reply = await exchange(site, **{"code": code, **changes})
    assert (reply.status_code, reply.json()["error"]) == (status, error)
    assert set(reply.json()) == {"error", "error_description"}
    assert ("www-authenticate" in reply.headers) == (status == 401)
    assert await issued(site) == []


async def issued(site: Site) -> list[Token]:
    """Return the tokens that clients were given."""
    return [row for row in await site.tokens() if row.client_id is not None]


async def test_a_secret_that_is_wrong_uses_no_code_up(site: Site) -> None:
    browser = await site.signed_in("alice")
    code = code_in(await browser.get(url(**QUIET)))
    assert (await exchange(site, code=code, client_secret="x" * 40)).status_code == 401
    assert (await exchange(site, code=code)).status_code == 200


async def test_of_a_hundred_exchanges_at_once_one_succeeds_and_its_token_ends(site: Site) -> None:
    browser = await site.signed_in("alice")
    code = code_in(await browser.get(url(**QUIET)))
    replies = await asyncio.gather(*(exchange(site, code=code) for _ in range(100)))
    assert sorted(reply.status_code for reply in replies) == [200] + [400] * 99
    [good] = [reply for reply in replies if reply.status_code == 200]
    assert (await who(site, good.json()["access_token"])).status_code == 403


@pytest.mark.parametrize(
    "sent",
    [
        {"json": {"client_id": "x"}},
        {"content": b"client_id=a", "headers": {"content-type": "text/plain"}},
    ],
)
async def test_the_body_is_a_form(site: Site, sent: dict[str, Any]) -> None:
    reply = await site.client().post("/hub/api/oauth2/token", **sent)
    assert (reply.status_code, reply.json()["error"]) == (400, "unsupported_grant_type")


async def test_scopes_are_ticked_and_told_as_the_client_wrote_them(site: Site) -> None:
    browser = await site.signed_in("alice")
    await browser.get(url())
    body = {"_xsrf": str(browser.client.cookies["_xsrf"]), "scopes": "read:users:activity!user"}
    reply = await browser.client.post(url(), data=body)
    told = (await exchange(site, code=code_in(reply), client_id="service-grader",
                           redirect_uri=None, client_secret=SECRET)).json()  # fmt: skip
    assert set(told["scope"].split()) == {
        "access:services!service=grader", "read:users:activity!user",
        "read:users:groups!user", "read:users:name!user",
    }  # fmt: skip
    assert told["expires_in"] == 14 * 24 * 3600


async def test_what_is_there_twice_or_in_the_address_is_refused(site: Site) -> None:
    headers = {"content-type": "application/x-www-form-urlencoded"}
    client = site.client()
    twice = await client.post("/hub/api/oauth2/token", content=b"code=a&code=b", headers=headers)
    asked = await client.post("/hub/api/oauth2/token?code=a", content=b"", headers=headers)
    for reply in (twice, asked):
        assert (reply.status_code, reply.json()["error"]) == (400, "invalid_request")


async def stock_server(site: Site, owner: str) -> str:
    """Have a server that is made for JupyterHub; return its secret."""
    row = await site.add_server(owner, contract="jupyterhub", secret="x" * 43)
    user = await site.world.user(owner)
    async with site.hub.database.write() as db:
        await issue_own_token(db, site.hub, row, user)
    return own_token(site.hub, row)


async def test_a_stock_server_signs_its_visitors_in_by_its_own_token(site: Site) -> None:
    browser: Browser = await site.signed_in("alice")
    secret = await stock_server(site, "alice")
    mine = {"client_id": "jupyterhub-user-alice", "redirect_uri": "/user/alice/oauth_callback"}
    code = code_in(await browser.get(url(**mine)))
    reply = await exchange(site, **mine, client_secret=secret, code=code)
    assert reply.status_code == 200
    me = (await who(site, reply.json()["access_token"])).json()
    assert "access:servers!server=alice/" in me["scopes"]
    [row] = await issued(site)
    assert row.token_hash == digest(reply.json()["access_token"])
    assert row.client_id == "jupyterhub-user-alice"
    assert row.server_id is not None


async def test_a_plain_server_has_no_secret_to_prove(site: Site) -> None:
    """Its codes are the proxy's to redeem, with a challenge and the browser's session."""
    browser = await site.signed_in("alice")
    await site.add_server("alice")
    mine = {"client_id": "jupyterhub-user-alice", "redirect_uri": "/user/alice/oauth_callback"}
    challenge = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    code = code_in(await browser.get(url(**mine, **challenge)))
    for secret in ("", "x" * 40):
        reply = await exchange(
            site, **mine, client_secret=secret, code=code, code_verifier=VERIFIER
        )
        assert (reply.status_code, reply.json()["error"]) == (401, "invalid_client")


async def test_a_challenge_is_needed_where_the_settings_say_so(site: Site) -> None:
    site.world.change_settings(oauth_require_pkce=True)
    browser = await site.signed_in("alice")
    without = parse_qs(urlsplit((await browser.get(url(**QUIET))).headers["location"]).query)
    assert without["error"] == ["invalid_request"]
    assert "code" not in without
    challenge = {"code_challenge": CHALLENGE, "code_challenge_method": "S256"}
    code = code_in(await browser.get(url(**QUIET, **challenge)))
    assert (await exchange(site, code=code)).status_code == 400
    code = code_in(await browser.get(url(**QUIET, **challenge)))
    assert (await exchange(site, code=code, code_verifier=VERIFIER)).status_code == 200
