"""Sections of fields: what a pattern finds is all that is set apart, and nothing else changes."""

from hypothesis import given
from hypothesis import strategies as st

from carrel_proxy.core.fields import (
    HOP_BY_HOP,
    HOP_BY_HOP_FIELDS,
    field_values,
    split_fields,
    without_fields,
)

NAMES = st.sampled_from(
    [
        b"Connection",
        b"TE",
        b"Tea",
        b"X-TE",
        b"trailer",
        b"X-Carrel-User",
        b"X-Carrel",
        b"Upgrade-It",
    ]
) | st.from_regex(rb"[A-Za-z][A-Za-z0-9_-]{0,8}", fullmatch=True)
VALUES = st.from_regex(rb"[\t ]*[\x21-\x7e\x80-\xff :]*[\t ]*", fullmatch=True)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=8)


def section_of(fields: list[tuple[bytes, bytes]]) -> bytes:
    return b"".join(b"\r\n%b:%b" % field for field in fields)


def is_wanted(name: bytes) -> bool:
    return name.lower() in HOP_BY_HOP or name.lower().startswith(b"x-carrel-")


@given(FIELDS)
def test_what_needs_thought_is_set_apart_and_the_rest_stays(
    fields: list[tuple[bytes, bytes]],
) -> None:
    plain, special = split_fields(section_of(fields), HOP_BY_HOP_FIELDS)
    assert plain == section_of([field for field in fields if not is_wanted(field[0])])
    expected: dict[bytes, list[bytes]] = {}
    for name, value in fields:
        if is_wanted(name):
            expected.setdefault(name.lower(), []).append(value.strip(b" \t"))
    assert special == expected


@given(FIELDS, NAMES)
def test_values_are_found_whatever_the_case_of_the_name(
    fields: list[tuple[bytes, bytes]], name: bytes
) -> None:
    expected = [value.strip(b" \t") for key, value in fields if key.lower() == name.lower()]
    assert field_values(section_of(fields), name.lower()) == expected


@given(FIELDS, st.sets(NAMES))
def test_fields_are_left_out_by_name(fields: list[tuple[bytes, bytes]], names: set[bytes]) -> None:
    lowered = {name.lower() for name in names}
    kept = [field for field in fields if field[0].lower() not in lowered]
    assert without_fields(section_of(fields), lowered) == section_of(kept)
