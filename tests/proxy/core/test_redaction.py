"""What may stand in a log."""

import secrets

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.redaction import shown, shown_address

CANARY = "s3cretCanary"


@pytest.mark.parametrize(
    "address",
    [
        f"/user/alice/lab?token={CANARY}",
        f"/user/alice/lab?a=1&token={CANARY}&b=2",
        f"/user/alice/lab?TOKEN={CANARY}",
        f"/user/alice/lab?%74oken={CANARY}",
        f"/user/alice/lab?x=1;access_token={CANARY}",
        f"/user/alice/oauth_callback?code={CANARY}&state={CANARY}",
        f"/hub/login?_xsrf={CANARY}",
        f"/hub/login?next=%2Fuser%2Falice%3Ftoken%3D{CANARY}",
        f"/hub/login?next=%252Fuser%253Ftoken%253D{CANARY}",
        f"/hub/login?next=/user/alice?token={CANARY}",
        f"/hub/login?password={CANARY}&username=x",
        f"/hub/sign-in/{CANARY}",
        f"/hub/login?next=/hub/sign-in/{CANARY}",
        f"/x;jsessionid={CANARY}",
        f"/x;sessionid={CANARY}/y",
        f"/x/token={CANARY}/y",
        f"/x/token%3D{CANARY}/y",
        f"https://eve:{CANARY}@hub.test/x",
        f"//eve:{CANARY}@hub.test/x",
        f"https://hub.test/x#access_token={CANARY}",
        f"/hub/login?next=https://eve:{CANARY}@hub.test/x",
        f"/hub/login?next=https%3A%2F%2Feve%3A{CANARY}%40hub.test%2Fx",
        f"/x/token/{CANARY}",
        f"/x?X-Amz-Signature={CANARY}",
        f"/x?%2574oken={CANARY}",
        f"/x?{'%25' * 9}74oken={CANARY}",
        f"/x?q=%7B%22token%22:%22{CANARY}%22%7D&t=%22api_key%22%3A%20%22{CANARY}%22",
    ],
)
def test_a_secret_is_not_shown(address: str) -> None:
    assert CANARY not in shown_address(address.encode(), 4000)


@pytest.mark.parametrize("nbytes", [16, 32])
def test_what_looks_like_a_secret_is_not_shown_either(nbytes: int) -> None:
    for made in (secrets.token_urlsafe(nbytes) + "1", secrets.token_hex(nbytes) + "1"):
        assert made not in shown_address(f"/x?t={made}".encode(), 4000)
        assert made not in shown_address(f"/x?{made}".encode(), 4000)
        assert made not in shown_address(f"/x?{made}=1".encode(), 4000)


@pytest.mark.parametrize(
    "address",
    [
        "/",
        "/user/alice/lab/tree/notes/2026/Untitled%20Folder/plot.ipynb",
        "/user/alice/api/contents?type=directory&content=1&1764108000000",
        "/user/alice/api/kernels/2f1b1c7e-3d4c-4b6f-9a51-0c5d8e7f6a5b/channels",
        "/user/alice/static/lab/main.8f2f0d5b1f0a9c3e.js?v=8f2f0d5b",
        "/hub/spawn/alice/my-server?profile=gpu",
        "https://hub.test/hub/home",
    ],
)
def test_what_people_look_for_stays(address: str) -> None:
    assert shown_address(address.encode(), 4000) == address


def test_what_is_long_is_cut() -> None:
    assert shown_address(b"/" + b"a" * 9000, 20) == "/" + "a" * 19 + "..."


@given(st.binary(max_size=300))
def test_nothing_forges_a_line_or_moves_a_cursor(value: bytes) -> None:
    for text in (shown(value, 200), shown_address(value, 200)):
        assert text.isascii()
        assert text.isprintable()
        assert '"' not in text
        assert text.replace("\\x", "").count("\\") == 0
