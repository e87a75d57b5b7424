"""Who makes a request, and what a page of another site cannot make a browser do."""

from datetime import timedelta

import httpx
import pytest
from hub.web.site import Site

from carrel_hub.auth.credentials import authorization_token
from carrel_hub.auth.tokens import issue_token, revoke_token
from carrel_hub.db.models import Token

WHO = "/hub/api/who"


async def new_token(site: Site, name: str, *, expires_in: timedelta | None = None) -> str:
    user = await site.world.user(name)
    async with site.hub.database.write() as db:
        made = await issue_token(db, site.hub, user, actor="test", expires_in=expires_in)
    return made.secret


@pytest.mark.parametrize(
    ("header", "token"),
    [
        ("token abc", "abc"),
        ("Bearer abc", "abc"),
        ("BEARER abc", "abc"),
        ("Token   abc ", "abc"),
        ("token: abc", None),
        ("token", None),
        ("token ", None),
        ("token a b", None),
        ("tokenabc", None),
        ("Basic YTpi", None),
        ("x token abc", None),
        ("token " + "a" * 65, None),
        ("", None),
        (None, None),
    ],
)
def test_only_the_whole_header_is_a_token(header: str | None, token: str | None) -> None:
    assert authorization_token(header) == token


async def test_a_token_says_who_calls(site: Site) -> None:
    await site.add_user("alice")
    secret = await new_token(site, "alice")
    for scheme in ("token", "Bearer", "TOKEN"):
        reply = await site.client().post(WHO, headers={"Authorization": f"{scheme} {secret}"})
        assert reply.json() == {"name": "alice", "kind": "token"}
    [row] = await site.tokens()
    assert secret not in (row.token_hash, row.note)


async def test_a_token_in_the_query_is_none(site: Site) -> None:
    await site.add_user("alice")
    secret = await new_token(site, "alice")
    reply = await site.client().get(f"{WHO}?token={secret}")
    assert reply.json()["kind"] == "anonymous"


async def test_expired_revoked_and_disabled_tokens_are_nobodys(site: Site) -> None:
    await site.add_user("alice")
    await site.add_user("bob")
    short = await new_token(site, "alice", expires_in=timedelta(minutes=1))
    long, bobs = await new_token(site, "alice"), await new_token(site, "bob")

    async def kind(secret: str) -> str:
        reply = await site.client().get(WHO, headers={"Authorization": f"token {secret}"})
        return str(reply.json()["kind"])

    assert [await kind(t) for t in (short, long, bobs)] == ["token"] * 3
    site.clock.advance(60)
    assert await kind(short) == "anonymous"
    row = next(t for t in await site.tokens() if t.expires_at is None and t.user_id == 1)
    alice = await site.world.user("alice")
    async with site.hub.database.write() as db:
        await revoke_token(db, site.hub, row, actor="test", owner=alice, reason="test")
    assert await kind(long) == "anonymous"
    assert (await site.changes())[-1]["revocation"]["token_hash"] == row.token_hash
    await site.add_user("bob", disabled=True)
    assert await kind(bobs) == "anonymous"


async def test_an_unknown_token_falls_through_to_the_sign_in(site: Site) -> None:
    browser = await site.signed_in("alice")
    reply = await browser.client.get(WHO, headers={"Authorization": "token unknown"})
    assert reply.json() == {"name": "alice", "kind": "cookie"}


async def test_a_script_without_browser_headers_reads_with_the_cookie(site: Site) -> None:
    browser = await site.signed_in("alice")
    assert (await browser.client.get(WHO)).json()["name"] == "alice"


FETCHES = [
    {},
    {"Sec-Fetch-Mode": "navigate", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Mode": "same-origin", "Sec-Fetch-Site": "same-origin"},
    {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "none"},
]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_nothing_is_changed_without_the_pages_token(site: Site, method: str) -> None:
    """ADV-02, ADV-07: the sign-in alone is not enough, however the request came about."""
    browser = await site.signed_in("alice")
    other = await site.signed_in("bob")
    mine = browser.client.cookies["_xsrf"]
    others = other.client.cookies["_xsrf"]
    old = browser.client.cookies["_xsrf"] + "x"

    async def call(token: str | None, **headers: str) -> httpx.Response:
        if token:
            headers["X-XSRFToken"] = token
        return await browser.client.request(method, WHO, headers=headers)

    for headers in FETCHES:
        for token in (None, others, old):
            reply = await call(token, **headers)
            assert reply.status_code == 403, (headers, token)
            assert "xsrf" in reply.json()["message"].lower()
    assert (await call(mine, **FETCHES[4])).json()["name"] == "alice"


async def test_a_neighbours_cookie_does_not_make_its_token_good(site: Site) -> None:
    """ADV-04."""
    browser, other = await site.signed_in("alice"), await site.signed_in("bob")
    stolen = other.client.cookies["_xsrf"]
    browser.client.cookies.set("_xsrf", stolen, domain="hub.test", path="/hub/api")
    reply = await browser.client.post(WHO, headers={"X-XSRFToken": stolen})
    assert reply.status_code == 403
    mine = next(
        c.value for c in browser.client.cookies.jar if c.path == "/hub/" and c.name == "_xsrf"
    )
    reply = await browser.client.post(WHO, headers={"X-XSRFToken": str(mine)})
    assert reply.status_code == 200  # and it takes nothing away from what is ours


@pytest.mark.parametrize(
    ("destination", "status"),
    [("image", 200), ("empty", 403), (None, 200)],
    ids=["an image", "a script's fetch", "no browser"],
)
async def test_a_script_cannot_read_in_the_mode_of_images(
    destination: str | None, status: int, site: Site
) -> None:
    """`fetch(url, {mode: "no-cors"})` reads the answer where a neighbour's page has our origin."""
    browser = await site.signed_in("alice")
    headers = {"Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Site": "same-origin"}
    if destination is not None:
        headers["Sec-Fetch-Dest"] = destination
    assert (await browser.client.get(WHO, headers=headers)).status_code == status


async def test_scripts_of_pages_need_the_token_even_to_read(site: Site) -> None:
    browser = await site.signed_in("alice")
    headers = {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Site": "same-origin"}
    reply = await browser.client.get(WHO, headers=headers)
    assert reply.status_code == 403
    assert "'_xsrf' argument missing from GET" in reply.json()["message"]
    token = browser.client.cookies["_xsrf"]
    reply = await browser.client.get(f"{WHO}?_xsrf={token}", headers=headers)
    assert reply.json()["name"] == "alice"


async def test_a_form_of_another_site_is_nobodys(site: Site) -> None:
    browser = await site.signed_in("alice")
    token = browser.client.cookies["_xsrf"]
    for content_type in ("text/plain", "application/x-www-form-urlencoded"):
        reply = await browser.client.post(
            f"{WHO}?_xsrf={token}", content=b"{}", headers={"Content-Type": content_type}
        )
        assert reply.json()["kind"] == "anonymous"


async def test_two_login_cookies_count_as_none(site: Site) -> None:
    browser = await site.signed_in("alice")
    browser.client.cookies.set("jupyterhub-hub-login", "tossed", domain="hub.test", path="/hub/api")
    assert (await browser.client.get(WHO)).json()["kind"] == "anonymous"


async def test_a_cookie_that_the_hub_did_not_sign_is_nobodys(site: Site) -> None:
    browser = await site.signed_in("alice")
    value = str(browser.client.cookies["jupyterhub-hub-login"])
    changed = ("B" if value[0] == "A" else "A") + value[1:]
    for wrong in (value[:-1], changed, value.split(".", 1)[0], ".", "x" * 500):
        reply = await site.client().get(WHO, headers={"Cookie": f"jupyterhub-hub-login={wrong}"})
        assert reply.json()["kind"] == "anonymous"


async def test_an_api_call_sets_no_cookies(site: Site) -> None:
    browser = await site.signed_in("alice")
    assert "set-cookie" not in (await browser.client.get(WHO)).headers


async def test_using_a_token_is_noted_once_in_a_while(site: Site) -> None:
    await site.add_user("alice")
    headers = {"Authorization": f"token {await new_token(site, 'alice')}"}
    client = site.client()

    async def noted() -> Token:
        for _ in range(200):
            [row] = await site.tokens()
            if row.last_activity == site.clock.now():
                break
        return row

    await client.get(WHO, headers=headers)
    [row] = await site.tokens()
    first = row.last_activity
    assert first == site.clock.now(), "whoever handed the token out sees that it was used"
    site.clock.advance(10)
    await client.get(WHO, headers=headers)
    [row] = await site.tokens()
    assert row.last_activity == first
    site.clock.advance(30)
    await client.get(WHO, headers=headers)
    assert (await noted()).last_activity == site.clock.now()
    assert (await site.world.user("alice")).last_activity == site.clock.now()
