"""A matcher that tries what Python's does, in the same order, and counts its steps.

Timing a regular expression says little on a busy machine; how the number of steps grows with the
text says all. This one knows no shortcuts, so it never takes fewer steps than the real one.
"""

import re
from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

# Private, and known to type checkers in some versions only.
c: Any = import_module("re._constants")
_parser: Any = import_module("re._parser")

Then = Callable[[int], bool]

_REPEATS = (c.MAX_REPEAT, c.MIN_REPEAT, c.POSSESSIVE_REPEAT)


class TooManyStepsError(Exception):
    """It takes more steps than anybody would wait for."""


class Matcher:
    """One pattern. After a call, `steps` says what it took."""

    def __init__(self, pattern: re.Pattern[Any], most: int = 20_000) -> None:
        self._nodes = list(_parser.parse(pattern.pattern, pattern.flags))
        self._fold = bool(pattern.flags & re.IGNORECASE)
        self._most = most
        self._text = b""
        self.steps = 0

    def match(self, text: bytes, *, whole: bool) -> bool:
        """Match at the beginning, to the end if `whole`."""
        self._text, self.steps = text, 0
        return self._match(0, whole=whole)

    def search(self, text: bytes) -> bool:
        """Match anywhere."""
        self._text, self.steps = text, 0
        return any(self._match(start, whole=False) for start in range(len(text) + 1))

    def _match(self, start: int, *, whole: bool) -> bool:
        return self._all(self._nodes, start, lambda at: not whole or at == len(self._text))

    def _all(self, nodes: Sequence[Any], at: int, then: Then) -> bool:
        if not nodes:
            return then(at)
        return self._one(nodes[0], at, lambda end: self._all(nodes[1:], end, then))

    def _one(self, node: Any, at: int, then: Then) -> bool:
        self.steps += 1
        if self.steps > self._most:
            raise TooManyStepsError
        kind, detail = node
        if kind in _REPEATS:
            least, most, inner = detail
            return self._repeat(kind, (least, most), list(inner), at, then)
        if kind is c.SUBPATTERN:
            return self._all(list(detail[3]), at, then)
        if kind is c.ATOMIC_GROUP:
            end = self._end(list(detail), at)
            return end is not None and then(end)
        if kind is c.BRANCH:
            return any(self._all(list(branch), at, then) for branch in detail[1])
        if kind in (c.ASSERT, c.ASSERT_NOT):
            return self._looks(detail, at) is (kind is c.ASSERT) and then(at)
        if kind is c.AT:
            edge = 0 if detail in (c.AT_BEGINNING, c.AT_BEGINNING_STRING) else len(self._text)
            return at == edge and then(at)
        return at < len(self._text) and self._fits(node, self._text[at]) and then(at + 1)

    def _repeat(
        self, kind: Any, bounds: tuple[int, int], inner: list[Any], at: int, then: Then
    ) -> bool:
        least, most = bounds
        if kind is c.POSSESSIVE_REPEAT or (len(inner) == 1 and _is_character(inner[0])):
            ends = [at]
            while len(ends) <= most and (end := self._end(inner, ends[-1])) not in (None, ends[-1]):
                ends.append(end)
            if kind is c.POSSESSIVE_REPEAT:
                return len(ends) > least and then(ends[-1])
            tried = (
                ends[least:] if kind is c.MIN_REPEAT else ends[: least - 1 if least else None : -1]
            )
            return any(self._counted(then, end) for end in tried)
        if least == 0 and kind is c.MIN_REPEAT and then(at):
            return True
        again = (max(least - 1, 0), most - 1)
        if most > 0 and self._all(
            inner, at, lambda end: end > at and self._repeat(kind, again, inner, end, then)
        ):
            return True
        return least == 0 and kind is c.MAX_REPEAT and then(at)

    def _counted(self, then: Then, at: int) -> bool:
        self.steps += 1
        return then(at)

    def _end(self, nodes: list[Any], at: int) -> int | None:
        """Return where the first way to match ends; other ways are not looked for."""
        found: list[int] = []

        def note(end: int) -> bool:
            found.append(end)
            return True

        return found[0] if self._all(nodes, at, note) else None

    def _looks(self, detail: Any, at: int) -> bool:
        direction, inner = detail
        nodes = list(inner)
        start = at if direction > 0 else at - inner.getwidth()[0]
        return start >= 0 and self._end(nodes, start) is not None

    def _fits(self, node: Any, value: int) -> bool:
        kind, detail = node
        values = {value}
        if self._fold:
            values |= {ord(chr(value).lower()), ord(chr(value).upper()) & 0xFF}
        if kind is c.LITERAL:
            return detail in values
        if kind is c.NOT_LITERAL:
            return detail not in values
        if kind is c.ANY:
            return value != 0x0A
        if kind is not c.IN:
            raise NotImplementedError(kind)
        negated = detail[0][0] is c.NEGATE
        return any(_holds(one, values) for one in detail[negated:]) is not negated


def _is_character(node: Any) -> bool:
    return node[0] in (c.LITERAL, c.NOT_LITERAL, c.ANY, c.IN)


def _holds(one: Any, values: set[int]) -> bool:
    kind, detail = one
    if kind is c.LITERAL:
        return detail in values
    if kind is c.RANGE:
        return any(detail[0] <= value <= detail[1] for value in values)
    raise NotImplementedError(kind)


def beginnings(pattern: re.Pattern[Any]) -> list[bytes]:
    """Return what leads up to each part of the pattern that may repeat."""
    found = {b"": None}

    def walk(nodes: Any, before: bytes) -> bytes:
        """Note what there is to note; return the shortest text up to the end of these nodes."""
        for kind, detail in nodes:
            if kind in _REPEATS:
                found[before] = None
                before += detail[0] * walk(detail[2], before).removeprefix(before)
            elif kind is c.SUBPATTERN:
                before = walk(detail[3], before)
            elif kind is c.ATOMIC_GROUP:
                before = walk(detail, before)
            elif kind is c.BRANCH:
                before = min((walk(branch, before) for branch in detail[1]), key=len)
            elif kind is c.LITERAL:
                before += bytes([detail & 0xFF])
            elif kind is c.IN:
                before += bytes([(_first(detail) or ord("x")) & 0xFF])
        return before

    walk(_parser.parse(pattern.pattern, pattern.flags), b"")
    return list(found)


def characters(pattern: re.Pattern[Any]) -> list[int]:
    """Return one character of each kind that the pattern tells from others."""
    found: dict[int, None] = {}

    def walk(nodes: Any) -> None:
        for kind, detail in nodes:
            if kind is c.LITERAL or kind is c.NOT_LITERAL:
                found[detail] = None
            elif kind is c.IN:
                walk(one for one in detail if one[0] is not c.NEGATE)
            elif kind is c.RANGE:
                found[detail[0]] = None
            elif kind in _REPEATS:
                walk(detail[2])
            elif kind is c.SUBPATTERN:
                walk(detail[3])
            elif kind is c.ATOMIC_GROUP:
                walk(detail)
            elif kind is c.BRANCH:
                for branch in detail[1]:
                    walk(branch)

    walk(_parser.parse(pattern.pattern, pattern.flags))
    return [one for one in found if one < 256]


def _first(choices: Any) -> int | None:
    """Return a character of a set; None for one that says what is not in it."""
    kind, detail = choices[0]
    if kind is c.NEGATE:
        return None
    first: int = detail[0] if kind is c.RANGE else detail
    return first
