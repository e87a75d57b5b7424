"""The routes in force, found by the longest prefix of whole segments."""

from collections.abc import Container, Iterable
from typing import Generic, TypeVar

from carrel_proxy.core.paths import climbs, decoded, pieces, prefix_segments
from carrel_proxy.errors import BadPathError

T = TypeVar("T")

_DOTS = frozenset((b".", b".."))


class _Node(Generic[T]):
    """A segment. Most are the last of their prefix, so children are made when there are some."""

    __slots__ = ("children", "value")

    def __init__(self) -> None:
        self.children: dict[bytes, _Node[T]] | None = None
        self.value: T | None = None


class RouteTrie(Generic[T]):
    """Prefixes to values. Lookups cost as many steps as the longest route has segments."""

    def __init__(self) -> None:
        self._root: _Node[T] = _Node()

    @property
    def is_empty(self) -> bool:
        return self._root.value is None and not self._root.children

    def put(self, prefix: bytes, value: T) -> None:
        """Add a prefix, or give it another value.

        Raises:
            BadTargetError: If it is not percent-encoded with a slash at both ends.
        """
        self.put_at(prefix_segments(prefix), value)

    def put_at(self, segments: list[bytes], value: T) -> None:
        """Add a prefix of which the decoded segments are known."""
        self._node(segments).value = value

    def put_below(self, segments: list[bytes], values: Iterable[tuple[bytes, T]]) -> None:
        """Add many that are one segment longer than this."""
        parent = self._node(segments)
        children = parent.children
        if children is None:
            children = parent.children = {}
        for segment, value in values:
            child = children.get(segment)
            if child is None:
                child = children[segment] = _Node()
            child.value = value

    def _node(self, segments: list[bytes]) -> _Node[T]:
        node = self._root
        for segment in segments:
            children = node.children
            if children is None:
                children = node.children = {}
            child = children.get(segment)
            if child is None:
                child = children[segment] = _Node()
            node = child
        return node

    def remove(self, prefix: bytes) -> None:
        """Remove a prefix if it is there. More specific ones stay."""
        self.remove_at(prefix_segments(prefix))

    def remove_at(self, segments: list[bytes]) -> None:
        """Remove a prefix of which the decoded segments are known."""
        self._remove(self._root, segments)

    def _remove(self, node: _Node[T], segments: list[bytes]) -> None:
        if not segments:
            node.value = None
            return
        children = node.children
        child = children.get(segments[0]) if children else None
        if children is not None and child is not None:
            self._remove(child, segments[1:])
            if child.value is None and not child.children:
                del children[segments[0]]

    def match(self, path: bytes) -> T | None:
        """Return the value of the most specific prefix that covers `path`.

        A path that lacks only the prefix's last slash is covered too.

        Args:
            path: As received, percent-encoded, from its first slash, without the query.

        Raises:
            BadPathError: If a segment that could name a route is a dot segment or no text; if one
                that is empty or hides a separator could be read as other routes' names; or if dot
                segments lead out of the route that was found.
        """
        segments = path.split(b"/")
        last = len(segments) - 1
        children, found, depth, index = self._root.children, self._root.value, 0, 1
        while children or index == 1:
            segment = segments[index]
            if not segment and index == last:
                break
            if not segment or segment in _DOTS or b"%" in segment or b"\\" in segment:
                segment = _name(children or {}, segments, index)
            child = children.get(segment) if children else None
            if child is None:
                break
            if child.value is not None:
                found, depth = child.value, index
            if index == last:
                break
            children = child.children
            index += 1
        # Two dots in a row, or an escape that may stand for one, are rare: look closer only then.
        if (b".." in path or b"%2" in path) and climbs(segments[depth + 1 :]):
            raise BadPathError("dot segments lead out of the path's route")
        return found


def _name(children: Container[bytes], segments: list[bytes], index: int) -> bytes:
    """Return a segment as children are named; an empty one names none of them.

    Raises:
        BadPathError: If it could name one for somebody who reads it otherwise.
    """
    segment = segments[index]
    name = decoded(segment)
    if name in _DOTS or b"\x00" in name:
        raise BadPathError("the path has a dot segment or a null character")
    inside = pieces(name)
    if inside == [name] or (name in children and b"\\" not in segment):
        return name
    rest = (piece for following in segments[index:] for piece in pieces(decoded(following)))
    if b".." in inside or next(rest, b"") in children:
        raise BadPathError("the path has an empty or an ambiguous segment")
    return b""
