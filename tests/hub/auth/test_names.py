"""One person, one spelling."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_hub.auth.names import InvalidNameError, normalise_name


@pytest.mark.parametrize(
    ("raw", "name"),
    [
        ("alice", "alice"),
        ("  Alice ", "alice"),
        ("ALICE@example.org", "alice@example.org"),
        ("Zoe\u0308", "zo\u00eb"),
        ("a.b", "a.b"),
    ],
)
def test_a_name_has_one_spelling(raw: str, name: str) -> None:
    assert normalise_name(raw) == name


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "   ",
        ".",
        "..",
        "....",
        "a/b",
        "/",
        "a\\b",
        "domain\\user",
        "a\0b",
        "alice\0x",
        "a\nb",
        "a\x1b[31m",
        "x" * 129,
    ],
)
def test_what_cannot_be_a_name_is_refused(raw: str) -> None:
    with pytest.raises(InvalidNameError):
        normalise_name(raw)


@given(st.text(max_size=40))
def test_normalising_twice_changes_nothing(raw: str) -> None:
    try:
        name = normalise_name(raw)
    except InvalidNameError:
        return
    assert normalise_name(name) == name
    assert name == name.strip()
    assert unicodedata.is_normalized("NFC", name)
    assert "/" not in name
    assert "\\" not in name
