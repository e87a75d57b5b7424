"""ADV-01, ADV-06, ADV-11: `next` never leads away from the hub."""

import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from carrel_hub.auth.next_url import safe_next

HOST = "hub.test:8000"
OURS = f"http://{HOST}"


def check(raw: str | None) -> str | None:
    return safe_next(raw, scheme="http", host=HOST)


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("/hub/home", "/hub/home"),
        ("/user/alice/lab?x=1&y=%20#frag", "/user/alice/lab?x=1&y=%20#frag"),
        ("/hub/x?u=http://elsewhere.example/", "/hub/x?u=http://elsewhere.example/"),
        ("/hub/x#http://elsewhere.example/", "/hub/x#http://elsewhere.example/"),
        (f"{OURS}/hub/home", "/hub/home"),
        (f"//{HOST}/hub/home", "/hub/home"),
        (f"{OURS}//evil.example/", "/evil.example/"),
        (f"{OURS}///evil.example/", "/evil.example/"),
        (f"{OURS}////evil.example/", "/evil.example/"),
        (f"///{HOST}/hub/home", "/hub/home"),
        ("/a\\b", "/a%5Cb"),
        (OURS, "/"),
        ("/lab/tree/a b.ipynb", "/lab/tree/a%20b.ipynb"),
        (" /hub/home ", "/hub/home"),
        ("/ /evil.example", "/%20/evil.example"),
        ("/user/a@b/", "/user/a@b/"),
        ("/../..//evil.example", "/../..//evil.example"),
    ],
)
def test_places_of_ours_are_kept(raw: str, expected: str) -> None:
    assert check(raw) == expected


@pytest.mark.parametrize(
    "raw",
    [
        None, "", "hub/home", "home", "?x", "#x", ".", "..", "http:", "http:///",
        "https:evil.example",
        "//evil.example", "///evil.example", "////evil.example/", "//evil.example/%2f..",
        "http://evil.example/", "https://evil.example", f"https://{HOST}/hub/home",
        f"http://{HOST}.evil.example/", f"http://{HOST}@evil.example/", f"//{HOST}.evil.example/x",
        "ftp://evil.example/", "javascript:alert(1)", "JaVaScRiPt:alert(1)//", "data:text/html,x",
        "\\\\evil.example", "/\\evil.example/\n", "\\/evil.example", "\t//evil.example",
        "/\t/evil.example", "/\n/evil.example", "/\r/evil.example", " //evil.example", "/\x00/evil",
        "//", "///", "//[", "http://[::1", " ", "/\x7f", "/\x85", "x" * 9000,
        "/" + "x" * 9000,
    ],
)  # fmt: skip
def test_everything_else_is_dropped(raw: str | None) -> None:
    assert check(raw) is None


pieces = st.lists(
    st.sampled_from(
        ["/", "//", "\\", "http:", "https:", "http://", HOST, "evil.example", "@", ":", "?", "#",
         "..", ".", "%2f", "%5c", "\t", "\n", " ", "hub", "user", "[", "]", "\x00", "é", "x", ";"]
    ),
    max_size=8,
).map("".join)  # fmt: skip


def stays(text: str) -> bool:
    return text.startswith("/") and text[1:2] not in ("/", "\\") and "\\" not in text


@settings(max_examples=2000, deadline=None)
@given(pieces | st.text(max_size=40))
def test_whatever_comes_out_begins_with_one_slash(raw: str) -> None:
    kept = check(raw)
    if kept is not None:
        assert stays(kept)
        assert not any(ord(c) <= 0x20 for c in kept)
        assert check(kept) == kept


@pytest.mark.skipif(shutil.which("node") is None, reason="needs Node, which parses as browsers do")
def test_a_browser_takes_whatever_comes_out_for_ours() -> None:
    from itertools import product

    atoms = ["/", "\\", "http:", "https://", HOST, "evil.example", "@", "?", "..", "\t", "%2f", ":"]
    raws = ["".join(parts) for n in (1, 2, 3, 4) for parts in product(atoms, repeat=n)]
    kept = [value for raw in raws if (value := check(raw)) is not None]
    assert len(kept) > 500
    script = (
        "const bad = JSON.parse(require('fs').readFileSync(0)).filter("
        f"u => new URL(u, '{OURS}/hub/login').origin !== '{OURS}');"
        "console.log(JSON.stringify(bad))"
    )
    done = subprocess.run(
        ["node", "-e", script], input=json.dumps(kept), capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == []
