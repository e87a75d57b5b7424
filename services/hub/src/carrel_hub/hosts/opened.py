"""The fleet's authority in a running hub. Light: no certificates are loaded where there is none."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from carrel_hub.hosts.authority import Authority


class AuthorityError(Exception):
    """The fleet's authority cannot be used; the message says why and what to do."""


class Fleet:
    """Holds the authority from when `hosts.fleet.open_authority` has found or made it."""

    def __init__(self) -> None:
        self._authority: Authority | None = None

    def open(self, authority: "Authority") -> None:
        """Go by this authority from now on."""
        self._authority = authority

    @property
    def authority(self) -> "Authority":
        """The authority.

        Raises:
            AuthorityError: There is none.
        """
        if self._authority is None:
            raise AuthorityError("hub.fleet_listen is not set, and no host has ever joined")
        return self._authority
