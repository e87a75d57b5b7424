"""Passwords that the settings know: one for everybody, another for administrators, by group."""

from typing import Any

import pytest
from hub.web.site import Site, open_site
from pydantic import ValidationError

from carrel_hub.app import create_public_app
from carrel_hub.auth.settings import AuthSettings
from carrel_hub.startup import apply_settings, doubts

ADMINS = "a" * 32
SHARED: dict[str, Any] = {
    "authenticator": "shared-password",
    "user_password": "everybody's",
    "admin_password": ADMINS,
    "group_passwords": {"blue-team": "the blue one"},
    "admin_users": ["Boss"],
    "allow_all": True,
}


async def sign_in(site: Site, username: str, password: str) -> int:
    browser = site.browser()
    page = await browser.get("/hub/login")
    reply = await browser.press(page, "sign-in", username=username, password=password)
    return reply.status_code


async def test_everybody_knows_one_password_and_administrators_another() -> None:
    async with open_site(auth=SHARED) as site:
        await apply_settings(site.hub)
        assert await sign_in(site, "Carol", "everybody's") == 302
        assert await sign_in(site, "carol", "everybody's ") == 403
        assert await sign_in(site, "carol", "") == 403
        assert await sign_in(site, "carol", ADMINS) == 403
        assert await sign_in(site, "boss", "everybody's") == 403
        assert await sign_in(site, "boss", "the blue one") == 403
        assert await sign_in(site, "boss", ADMINS) == 302
        assert (await site.world.user("boss")).admin
        assert not (await site.world.user("carol")).admin
        assert site.pam.asked == []


async def test_a_password_puts_its_user_into_a_group() -> None:
    async with open_site(auth=SHARED) as site:
        assert await sign_in(site, "carol", "the blue one") == 302
        [joined] = await site.events("group.joined")
        assert (joined.subject, joined.data) == ("group:blue-team", {"users": ["carol"]})


async def test_whoever_proves_no_unix_account_gets_none() -> None:
    async with open_site(auth=SHARED) as site:
        site.world.agent.accounts = "any"
        await site.world.report()
        assert await sign_in(site, "root-of-nothing", "everybody's") == 302
        assert (await site.world.user("root-of-nothing")).account is None


async def test_dummy_believes_every_name_but_blocked_ones() -> None:
    auth = {"authenticator": "dummy", "allowed_users": [], "blocked_users": ["eve"]}
    async with open_site(auth=auth) as site:
        assert await sign_in(site, "anybody", "whatever") == 302
        assert await sign_in(site, "eve", "whatever") == 403
    async with open_site(auth={**auth, "dummy_password": "one"}) as site:
        assert await sign_in(site, "anybody", "whatever") == 403
        assert await sign_in(site, "anybody", "one") == 302
    async with open_site(auth={**auth, "allowed_users": ["alice"]}) as site:
        assert await sign_in(site, "anybody", "x") == 403, "an allow list is one"
        assert await sign_in(site, "alice", "x") == 302


async def test_who_is_known_already_may_be_let_in() -> None:
    auth = {"authenticator": "dummy", "allow_all": False, "allow_existing_users": True}
    async with open_site(auth=auth) as site:
        await site.add_user("carol")
        assert await sign_in(site, "carol", "x") == 302
        assert await sign_in(site, "dave", "x") == 403


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        ({"user_password": None, "group_passwords": {}}, "needs user_password"),
        ({"user_password": "short"}, "8 characters"),
        ({"group_passwords": {"g": "short"}}, "group_passwords.g"),
        ({"admin_password": "a" * 31}, "32 characters"),
        ({"admin_password": None}, "admin_password, which is not set"),
        ({"group_passwords": {"g": "everybody's"}}, "the same"),
    ],
)
def test_shared_passwords_that_are_none_are_refused(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(ValidationError, match=complaint):
        AuthSettings(**{**SHARED, **changes})


async def test_a_token_is_made_by_a_password_in_the_body() -> None:
    async with open_site(auth=SHARED) as site:
        await sign_in(site, "carol", "everybody's")
        await site.add_user("bob")
        site.app = create_public_app(site.hub)  # type: ignore[assignment]
        client = site.client()
        good = {"username": " Carol ", "password": "everybody's"}

        async def ask(name: str, auth: Any) -> int:
            path = f"/hub/api/users/{name}/tokens"
            reply = await client.post(path, json={"auth": auth})
            if reply.status_code == 201:
                assert reply.json()["note"] == "Requested via api"
            return reply.status_code

        assert await ask("carol", good) == 201
        assert await ask("bob", good) == 403, "somebody else's"
        assert await ask("carol", {**good, "password": "wrong"}) == 403
        for nothing in (None, {}, {"username": 1, "password": "x"}, "carol"):
            assert await ask("carol", nothing) == 403
        for _ in range(site.hub.settings.auth.max_failures):
            await ask("carol", {**good, "password": "wrong"})
        assert await ask("carol", good) == 429, "guesses are counted here too"


async def test_a_name_is_mapped_and_must_fit() -> None:
    auth = {
        "authenticator": "pam",
        "allowed_users": ["Carol"],
        "username_map": {"cj": "Carol", "dj": "dave!"},
        "username_pattern": "[a-z]+",
    }
    async with open_site(auth=auth) as site:
        site.pam.passwords |= {"cj": "x", "dj": "x"}
        assert await sign_in(site, "CJ", "x") == 302
        carol = await site.world.user("carol")
        assert carol.account == "cj", "the account is the one whose password was right"
        assert await sign_in(site, "dj", "x") == 403
        site.app = create_public_app(site.hub)  # type: ignore[assignment]
        boss = await site.signed_in("boss", admin=True)
        headers = {"X-XSRFToken": str(boss.client.cookies["_xsrf"])}
        made = await boss.client.post(
            "/hub/api/users", json={"usernames": ["cj2", "eve"]}, headers=headers
        )
        assert (made.status_code, "must fit" in made.text) == (400, True)
        again = await boss.client.post("/hub/api/users/cj", headers=headers)
        assert again.status_code == 409, "that is carol"


def test_a_pattern_that_is_none_is_refused() -> None:
    with pytest.raises(ValidationError, match="no regular expression"):
        AuthSettings(username_pattern="(")


@pytest.mark.parametrize(
    ("settings", "events"),
    [
        ({"authenticator": "none"}, []),
        ({"pam_socket": "unix:/x"}, ["nobody_may_sign_in"]),
        ({"pam_socket": "unix:/x", "allowed_users": ["a"]}, ["names_of_one_letter"]),
        ({"authenticator": "dummy"}, ["sign_in_is_open"]),
        (
            {**SHARED, "user_password": None, "admin_users": []},
            ["no_user_password", "admin_password_unused"],
        ),
        (SHARED, []),
    ],
)
def test_what_is_likely_not_meant_is_said(settings: dict[str, Any], events: list[str]) -> None:
    assert [event for event, _ in doubts(AuthSettings(**settings))] == events
