"""What sends a browser back with a code, what shows a page, and what tells the client."""

import base64
import hashlib
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from hub.web.site import Browser, Site, has_element, open_site

from carrel_hub.auth.digest import digest
from carrel_hub.db.models import OAuthCode, Token
from carrel_hub.rbac import identify_scopes

VERIFIER = "v" * 43
CHALLENGE = base64.urlsafe_b64encode(hashlib.sha256(VERIFIER.encode()).digest()).decode()[:43]
GOOD = {
    "client_id": "jupyterhub-user-alice",
    "redirect_uri": "/user/alice/oauth_callback",
    "response_type": "code",
    "state": "st4te/+=&",
    "code_challenge": CHALLENGE,
    "code_challenge_method": "S256",
}


def url(**changes: str | None) -> str:
    values = {name: value for name, value in (GOOD | changes).items() if value is not None}
    return f"/hub/api/oauth2/authorize?{urlencode(values)}"


async def owner(site: Site) -> Browser:
    browser = await site.signed_in("alice")
    await site.add_server("alice")
    return browser


async def test_ones_own_server_is_opened_without_asking(site: Site) -> None:
    browser = await owner(site)
    reply = await browser.get(url())
    assert reply.status_code == 302
    location = urlsplit(reply.headers["location"])
    assert (location.scheme, location.netloc) == ("", "")
    assert location.path == "/user/alice/oauth_callback"
    values = parse_qs(location.query)
    assert values["state"] == [GOOD["state"]]
    [row] = await site.all(OAuthCode)
    [session] = await site.sessions()
    assert row.code_hash == digest(values["code"][0])
    assert (row.session_hash, row.client_id) == (session.session_hash, GOOD["client_id"])
    assert [event.actor for event in await site.events("access.granted")] == ["user:alice"]


async def test_who_is_not_signed_in_does_that_first(site: Site) -> None:
    await site.add_user("alice")
    await site.add_server("alice")
    reply = await site.browser().get(url())
    assert reply.status_code == 302
    location = urlsplit(reply.headers["location"])
    assert location.path == "/hub/login"
    assert parse_qs(location.query)["next"] == [url()]


@pytest.mark.parametrize(
    "changes",
    [
        {"client_id": None},
        {"client_id": ""},
        {"client_id": "jupyterhub-user-bob"},
        {"client_id": "jupyterhub-user-alice%00"},
        {"redirect_uri": "/user/alice/oauth_callback/"},
        {"redirect_uri": "/user/alice/oauth_callback?x=1"},
        {"redirect_uri": "/user/alice/oauth_callback#x"},
        {"redirect_uri": "/user/alice/lab/oauth_callback"},
        {"redirect_uri": "/user/mallory/oauth_callback"},
        {"redirect_uri": "http://evil.example/user/alice/oauth_callback"},
        {"redirect_uri": "//evil.example/user/alice/oauth_callback"},
        {"redirect_uri": ""},
    ],
)
async def test_what_may_come_from_anybody_is_never_redirected(
    site: Site, changes: dict[str, str | None]
) -> None:
    browser = await owner(site)
    reply = await browser.get(url(**changes))
    assert reply.status_code == 400
    assert reply.headers["content-type"].startswith("text/html")
    assert "location" not in reply.headers
    assert await site.all(OAuthCode) == []


@pytest.mark.parametrize("name", sorted(GOOD))
async def test_a_parameter_that_is_there_twice_is_an_error(site: Site, name: str) -> None:
    browser = await owner(site)
    reply = await browser.get(f"{url()}&{urlencode({name: GOOD[name]})}")
    assert reply.status_code == 400


async def test_without_an_address_the_answer_goes_to_the_registered_one(site: Site) -> None:
    browser = await owner(site)
    reply = await browser.get(url(redirect_uri=None))
    assert reply.headers["location"].startswith("/user/alice/oauth_callback?")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"response_type": None}, "invalid_request"),
        ({"response_type": "token"}, "unsupported_response_type"),
        ({"code_challenge": None}, "invalid_request"),
        ({"code_challenge": "short"}, "invalid_request"),
        ({"code_challenge": "a" * 42 + "="}, "invalid_request"),
        ({"code_challenge_method": None}, "invalid_request"),
        ({"code_challenge_method": "plain"}, "invalid_request"),
        ({"state": "x" * 3000}, "invalid_request"),
    ],
)
async def test_the_client_is_told_what_it_did_wrong(
    site: Site, changes: dict[str, str | None], error: str
) -> None:
    browser = await owner(site)
    reply = await browser.get(url(**changes))
    assert reply.status_code == 302
    location = urlsplit(reply.headers["location"])
    assert location.path == "/user/alice/oauth_callback"
    values = parse_qs(location.query)
    assert values["error"] == [error]
    assert "code" not in values
    assert values["state"] == [changes.get("state", GOOD["state"])]
    assert await site.all(OAuthCode) == []


async def test_somebody_elses_server_is_403(site: Site) -> None:
    await owner(site)
    browser = await site.signed_in("bob")
    reply = await browser.get(url())
    assert reply.status_code == 403
    assert "location" not in reply.headers
    reply = await browser.post(url(), {"_xsrf": browser.client.cookies["_xsrf"] or ""})
    assert reply.status_code == 403
    assert await site.all(OAuthCode) == []


async def test_an_administrator_is_asked_before_opening_anothers_server(site: Site) -> None:
    await owner(site)
    admin = await site.signed_in("bob", admin=True)
    page = await admin.get(url())
    assert page.status_code == 200
    assert has_element(page, "allow")
    assert await site.all(OAuthCode) == []
    reply = await admin.press(page, "allow")
    assert reply.status_code == 302
    assert "code=" in reply.headers["location"]


async def test_an_administrator_is_asked_once(site: Site) -> None:
    await owner(site)
    admin = await site.signed_in("bob", admin=True)
    bob = await site.world.user("bob")
    async with site.hub.database.write() as db:
        db.add(
            Token(
                token_hash="0" * 64,
                user_id=bob.id or 0,
                client_id=GOOD["client_id"],
                scopes=["access:servers!server=alice/", *sorted(identify_scopes("bob"))],
                created=site.clock.now(),
            )
        )
    assert (await admin.get(url())).status_code == 302


async def test_agreeing_needs_the_pages_token(site: Site) -> None:
    await owner(site)
    admin = await site.signed_in("bob", admin=True)
    await admin.get(url())
    assert (await admin.post(url(), {})).status_code == 403
    assert (await admin.post(url(), {"_xsrf": "wrong"})).status_code == 403
    assert await site.all(OAuthCode) == []


async def test_a_script_of_a_neighbours_page_gets_no_code(site: Site) -> None:
    browser = await owner(site)
    reply = await browser.get(url(), sec_fetch_mode="cors", sec_fetch_site="same-origin")
    assert reply.status_code == 403
    assert await site.all(OAuthCode) == []


async def test_names_that_need_escaping_arrive_whole() -> None:
    async with open_site(auth={"allow_all": True}, base_url="/jup/") as site:
        name = "a@b c"
        await site.add_user(name)
        row = await site.add_server(name)
        assert row.client_id == "jupyterhub-user-a%40b%20c"
        user = await site.world.user(name)
        browser = site.browser()
        link = await site.new_link(user.name)
        await browser.press(await browser.get(link), "sign-in")
        values = GOOD | {
            "client_id": row.client_id,
            "redirect_uri": "/jup/user/a@b%20c/oauth_callback",
        }
        reply = await browser.get(f"/jup/hub/api/oauth2/authorize?{urlencode(values)}")
        assert reply.headers["location"].startswith("/jup/user/a@b%20c/oauth_callback?code=")
