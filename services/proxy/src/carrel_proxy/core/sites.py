"""The routes in force, by the host a request is for and then by its path.

Hosts are compared whole, as parsed: never a part of one, never by its ending. Where no route has a
host of its own, hosts mean nothing and cost nothing.
"""

from collections.abc import Iterable
from functools import lru_cache
from typing import Generic, TypeVar

from carrel_proxy.core.trie import RouteTrie

T = TypeVar("T")


@lru_cache(maxsize=4096)
def host_name(host: bytes) -> bytes:
    """Return a well-formed `Host` as routes have it: lower case, without port or trailing dot."""
    if not host.startswith(b"["):
        host = host.partition(b":")[0]
    return host.lower().removesuffix(b".")


class Sites(Generic[T]):
    """Hosts and prefixes to values.

    A host's own routes come first, then those of `*.` and the rest of its name, then those for any
    host.
    """

    def __init__(self) -> None:
        self._any: RouteTrie[T] = RouteTrie()
        self._hosts: dict[bytes, RouteTrie[T]] = {}

    def put(self, host: str, segments: list[bytes], value: T) -> None:
        """Add a route of which the prefix's decoded segments are known, or give it another value.

        Args:
            host: In lower case; `*.` before it for all one label below; empty for any.
        """
        self._at(host).put_at(segments, value)

    def put_below(
        self, host: str, segments: list[bytes], values: Iterable[tuple[bytes, T]]
    ) -> None:
        """Add many routes that are one segment longer than this."""
        self._at(host).put_below(segments, values)

    def _at(self, host: str) -> RouteTrie[T]:
        if not host:
            return self._any
        return self._hosts.setdefault(host.encode("ascii"), RouteTrie())

    def remove(self, host: str, segments: list[bytes]) -> None:
        """Remove a route if it is there."""
        name = host.encode("ascii")
        routes = self._hosts.get(name) if host else self._any
        if routes is not None:
            routes.remove_at(segments)
            if host and routes.is_empty:
                del self._hosts[name]

    @property
    def tells_hosts_apart(self) -> bool:
        """Whether any route is for one host."""
        return bool(self._hosts)

    def match(self, host: bytes, path: bytes) -> T | None:
        """Return the value of the most specific route.

        Args:
            host: As received, and well-formed.
            path: As received, without the query.

        Raises:
            BadPathError: See `RouteTrie.match`.
        """
        if not self._hosts:
            return self._any.match(path)
        for routes in self._of(host):
            if (found := routes.match(path)) is not None:
                return found
        return self._any.match(path)

    def knows(self, host: bytes) -> bool:
        """Whether any route could be for this host."""
        return not self._hosts or bool(self._of(host)) or not self._any.is_empty

    def _of(self, host: bytes) -> list[RouteTrie[T]]:
        name = host_name(host)
        wildcard = b"*." + name.partition(b".")[2]
        return [self._hosts[key] for key in (name, wildcard) if key in self._hosts]
