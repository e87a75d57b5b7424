"""Scopes that an installation defines: handed out, cut down and named like the hub's own."""

from pathlib import Path
from typing import Any

import httpx
import pytest
from hub.oauth.test_services import SECRET
from hub.web.site import Site, open_site
from hub.world import make_settings
from pydantic import ValidationError

from carrel_hub.app import create_public_app
from carrel_hub.auth.tokens import issue_token
from carrel_hub.rbac import RoleBook, expand, intersect, is_scope
from carrel_hub.rbac.custom import CustomScope, with_subscopes
from carrel_hub.rbac.scopes import Scope
from carrel_hub.rbac.words import WORDS, in_words
from carrel_hub.startup import apply_settings

GRADES = {
    "custom:grades:read": {"description": "read grades"},
    "custom:grades:*": {
        "description": "read and write grades",
        "subscopes": ["custom:grades:read"],
    },
}
SETTINGS: dict[str, Any] = {
    "custom_scopes": GRADES,
    "roles": [
        {"name": "teacher", "users": ["alice"], "scopes": ["custom:grades:*!group=class"]},
        {"name": "everything", "users": ["bob"], "scopes": ["custom:grades:*"]},
        {"name": "user", "scopes": ["self", "access:services"]},
    ],
    "services": [
        {
            "name": "grader",
            "api_token": SECRET,
            "oauth_redirect_uri": "http://127.0.0.1:7/cb",
            "oauth_client_allowed_scopes": ["custom:grades:read"],
        }
    ],
}


def test_subscopes_come_with_the_filter_of_what_includes_them() -> None:
    defined = {
        "custom:a:1": CustomScope("a", ("custom:b:1",)),
        "custom:b:1": CustomScope("b", ("custom:a:1", "custom:c:1")),
        "custom:c:1": CustomScope("c"),
    }
    assert with_subscopes(["custom:a:1!user=x", "servers"], defined) == [
        "custom:a:1!user=x", "servers", "custom:b:1!user=x", "custom:c:1!user=x",
    ]  # fmt: skip
    book = RoleBook(custom=defined)
    assert book.knows("custom:a:1!group=g")
    assert book.knows("custom:c:1")
    assert not book.knows("custom:d:1")
    assert book.knows("servers!user")
    assert is_scope("custom:d:1"), "what is defined, only the settings know"
    assert expand(["custom:d:1!user=x"]) == {"custom:d:1!user=x"}
    assert intersect(expand(["custom:a:1"]), expand(["custom:a:1!user=x", "custom:b:1"])) == {
        "custom:a:1!user=x"
    }


@pytest.mark.parametrize(
    "text",
    [
        "custom:a", "custom:", "custom:A:b", "custom:ab-", "custom:-ab", "custom:a b", "xcustom:ab",
        "custom:abc!", "custom:abc!colour=red",
    ],
)  # fmt: skip
def test_what_is_no_name_of_one(text: str) -> None:
    assert not is_scope(text)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"custom_scopes": {"grades": {"description": "x"}}}, "cannot be the name of a scope"),
        ({"custom_scopes": {"custom:x:y": {}}}, "description"),
        ({"custom_scopes": {"custom:x:y": {"description": ""}}}, "description"),
        (
            {"custom_scopes": {"custom:x:y": {"description": "x", "subscopes": ["custom:z:z"]}}},
            "there is no scope 'custom:z:z'",
        ),
        (
            {"custom_scopes": {"custom:x:y": {"description": "x", "subscopes": ["servers"]}}},
            "cannot be the name of a scope",
        ),
        ({"roles": [{"name": "some", "scopes": ["custom:z:z"]}]}, "role 'some': there is no scope"),
        ({"extra_user_scopes": ["custom:z:z"]}, "extra_user_scopes: there is no scope"),
        (
            {"services": [{"name": "s", "oauth_client_allowed_scopes": ["custom:z:z"]}]},
            "service 's': there is no scope",
        ),
    ],
)
def test_settings_that_name_what_is_not_defined(
    tmp_path: Path, changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(ValidationError, match=words):
        make_settings(tmp_path, **changes)


def test_extra_scopes_of_everybody_give_way_to_a_role_that_says_all(tmp_path: Path) -> None:
    settings = make_settings(tmp_path, extra_user_scopes=["shares!user"])
    assert settings.role_book.scopes("user") == ("self", "shares!user")
    roles = [{"name": "user", "scopes": ["self"]}]
    settings = make_settings(tmp_path, extra_user_scopes=["shares!user"], roles=roles)
    assert settings.role_book.scopes("user") == ("self",)


def test_every_scope_has_words() -> None:
    assert WORDS.keys() == set(Scope)
    assert in_words("custom:x:y!user=a", {"custom:x:y": CustomScope("do x")}) == "do x"
    assert in_words("custom:x:z", {}) == "custom:x:z"


async def api(site: Site, name: str, *scopes: str) -> httpx.AsyncClient:
    user = await site.world.user(name)
    async with site.hub.database.write() as db:
        token = await issue_token(db, site.hub, user, actor="hub", scopes=scopes or ["inherit"])
    client = httpx.AsyncClient(
        transport=httpx.ASGITransport(create_public_app(site.hub)),
        base_url="http://hub/hub/api",
        headers={"Authorization": f"token {token.secret}"},
    )
    site.clients.append(client)
    return client


async def test_roles_tokens_and_services_carry_them() -> None:
    async with open_site(**SETTINGS) as site:
        await apply_settings(site.hub)
        alice = await api(site, "alice")
        held = (await alice.get("/user")).json()["scopes"]
        assert {"custom:grades:*!group=class", "custom:grades:read!group=class"} <= {*held}
        bob = await api(site, "bob")
        made = await bob.post("/users/bob/tokens", json={"scopes": ["custom:grades:*!user=alice"]})
        assert made.status_code == 201
        assert {"custom:grades:*!user=alice", "custom:grades:read!user=alice"} <= {
            *made.json()["scopes"]
        }
        for wanted in ("custom:grades:read", "custom:other:x"):
            refused = await alice.post("/users/alice/tokens", json={"scopes": [wanted]})
            assert refused.status_code == 400, wanted
        body = {"oauth_client_allowed_scopes": ["custom:other:x"], "oauth_redirect_uri": "/x"}
        admin = await site.signed_in("boss", admin=True)
        del admin
        boss = await api(site, "boss")
        assert (await boss.post("/services/other", json=body)).status_code == 400
        assert "custom:grades:read" not in (await boss.get("/user")).json()["scopes"]


async def test_people_are_asked_for_them_in_words() -> None:
    async with open_site(**SETTINGS) as site:
        await apply_settings(site.hub)
        bob = await site.signed_in("bob")
        address = "/hub/api/oauth2/authorize?client_id=service-grader&response_type=code"
        page = await bob.get(address)
        assert "read grades <code>custom:grades:read</code>" in page.text
        refused = await bob.get(f"{address}&scope=custom:other:x")
        assert "error=invalid_scope" in refused.headers["location"]
