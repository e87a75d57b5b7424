"""How many connections there may be: in all, and from one address. Counted as they come and go."""

import ipaddress
import resource

RESERVED_DESCRIPTORS = 64
"""Kept for the hub's calls and ours, files and idle connections to targets."""
_FEWEST = 16


class Caps:
    """Counts clients' connections.

    Args:
        most: How many there may be in all.
        most_per_address: How many from one address; 0 is no limit.
    """

    def __init__(self, most: int, most_per_address: int) -> None:
        self._most = most
        self._most_per_address = most_per_address
        self._count = 0
        self._by_address: dict[bytes, int] = {}

    @property
    def free(self) -> int:
        """How many descriptors clients could still need, two for each."""
        return 2 * (self._most - self._count)

    def enter(self, address: bytes) -> str | None:
        """Count a connection; the reason if there is no room for it.

        Args:
            address: As `counted_as` has it; empty where only the whole is counted.
        """
        self._count += 1
        if address:
            here = self._by_address[address] = self._by_address.get(address, 0) + 1
            if self._most_per_address and here > self._most_per_address:
                return "there are too many connections from this address"
        if self._count > self._most:
            return "there are too many connections"
        return None

    def leave(self, address: bytes) -> None:
        """Count a connection no more."""
        self._count -= 1
        if address:
            left = self._by_address[address] - 1
            if left:
                self._by_address[address] = left
            else:
                del self._by_address[address]


def counted_as(address: bytes) -> bytes:
    """Return what an address is counted as: an IPv6 host has a whole /64 to choose from."""
    if b":" not in address:
        return address
    ip = ipaddress.IPv6Address(address.partition(b"%")[0].decode("ascii"))
    return ip.packed[:8]


def most_connections() -> int:
    """Return how many clients the limit on descriptors has room for, two for each."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return max((soft - RESERVED_DESCRIPTORS) // 2, _FEWEST)
