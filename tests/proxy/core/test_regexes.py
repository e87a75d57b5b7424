"""ADV-58: no text of a stranger's takes a regular expression more steps than its length allows."""

import importlib
import inspect
import itertools
import pkgutil
import re
from collections.abc import Iterator
from typing import Any

import pytest
from proxy.core.backtracking import Matcher, TooManyStepsError, beginnings, characters

import carrel_proxy
import carrel_shared

SHORT, LONG = 24, 48
GROWTH = 2.6
"""Twice the text is twice the steps, and a bit, since what surrounds it counts too."""
MOST_CHARACTERS = 5
"""So many of those that a pattern knows are combined; the rest of a list is more of the same."""

AT_ONE_PLACE = {
    "carrel_proxy.core.chunks._TRAILER",
    "carrel_proxy.core.head._FIELDS",
    "carrel_proxy.core.head._REQUEST_LINE",
    "carrel_proxy.core.websocket._KEY",
}
"""Matched where they must begin and nowhere else; to search with these would take long."""


def patterns() -> dict[str, re.Pattern[Any]]:
    """Return all regular expressions of the proxy and of what it shares, by name."""
    found: dict[str, re.Pattern[Any]] = {}
    for package in (carrel_proxy, carrel_shared):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if module.name.endswith(("__main__", ".process.main")):
                continue
            for name, value in vars(importlib.import_module(module.name)).items():
                if isinstance(value, re.Pattern) and value not in found.values():
                    found[f"{module.name}.{name}"] = value
    return found


PATTERNS = patterns()


def texts(pattern: re.Pattern[Any], length: int) -> Iterator[bytes]:
    """Return what could make it go back and forth: something over and over, and then a surprise."""
    known = [*characters(pattern)[:MOST_CHARACTERS], 0x78]
    pumped = [bytes([one]) for one in known]
    pumped += [bytes(pair) for pair in itertools.permutations(known, 2)]
    for start, pump, end in itertools.product(beginnings(pattern), pumped, (b"", b"\x00")):
        yield start + pump * (length // len(pump)) + end


def steps(pattern: re.Pattern[Any], text: bytes, *, anywhere: bool) -> int:
    matcher = Matcher(pattern)
    if anywhere:
        matcher.search(text)
        return matcher.steps
    matcher.match(text, whole=True)
    return matcher.steps


@pytest.mark.parametrize("name", PATTERNS)
def test_steps_grow_with_the_text_and_no_faster(name: str) -> None:
    check(PATTERNS[name], anywhere=name not in AT_ONE_PLACE)


def check(pattern: re.Pattern[Any], *, anywhere: bool) -> None:
    for short, long in zip(texts(pattern, SHORT), texts(pattern, LONG), strict=True):
        few = steps(pattern, short, anywhere=anywhere)
        many = steps(pattern, long, anywhere=anywhere)
        assert many <= GROWTH * few, (short, few, many)


@pytest.mark.parametrize("name", sorted(AT_ONE_PLACE))
def test_what_would_take_long_to_search_for_is_not_searched_for(name: str) -> None:
    module, _, attribute = name.rpartition(".")
    source = inspect.getsource(importlib.import_module(module))
    used = set(re.findall(rf"\b{attribute}\.(\w+)\(", source))
    assert used
    assert used <= {"match", "fullmatch"}


@pytest.mark.parametrize(
    "bad", [rb"(?:a+)+b", rb"a*a*b", rb"(?:a|a)*b", rb"(?:a?){60}b", rb"[ \t]*,"]
)
def test_an_expression_that_would_take_long_is_found(bad: bytes) -> None:
    with pytest.raises((AssertionError, TooManyStepsError)):
        check(re.compile(bad), anywhere=True)


@pytest.mark.parametrize("name", PATTERNS)
def test_the_matcher_agrees_with_the_real_one(name: str) -> None:
    pattern = PATTERNS[name]
    for text in itertools.islice(texts(pattern, 8), 0, None, 7):
        given = text if isinstance(pattern.pattern, bytes) else text.decode("latin-1")
        assert Matcher(pattern).search(text) is (pattern.search(given) is not None), text
        assert Matcher(pattern).match(text, whole=True) is (pattern.fullmatch(given) is not None)
