"""Where things are for browsers: paths, and with one domain per user hosts. Pure.

The hub is on the host of its public address; each user's servers, and each service, are on a host
one label below that. To a browser those are different origins, so what runs on one person's server
cannot act in the pages of another's.
"""

import hashlib
import re
from dataclasses import dataclass
from urllib.parse import unquote, urlsplit

from carrel_hub.spawns.paths import escape_name, server_prefix

_SAFE_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_NOT_IN_LABEL = re.compile(r"[^a-z0-9]+")
_HASH_DIGITS = 20


def label_of(name: str, longest: int = 63) -> str:
    """Return the label of a user's host (RFC 1123 2.1). No two names have the same.

    It is the name where that is a label, is no number and has no `--` in it. Others get `u-`, what
    can be read of the name, and a hash: always with a `--`, so it is never somebody's name.

    Args:
        longest: A name that is longer gets a hash as well.
    """
    plain = _SAFE_LABEL.fullmatch(name) and not name.isdigit() and "--" not in name
    if plain and len(name) <= longest:
        return name
    readable = _NOT_IN_LABEL.sub("", name.lower())[:8]
    digest = hashlib.sha256(name.encode()).hexdigest()[:_HASH_DIGITS]
    return f"u-{readable}--{digest}"


def _name(host: str) -> str:
    return host.partition(":")[0].lower().removesuffix(".")


def _service_label(name: str) -> str:
    """Return the label of a service's host: never a user's, since those end in a hash if at all."""
    return f"{label_of(name, 54)}--service"


@dataclass(frozen=True, slots=True)
class Places:
    """Paths and addresses, as the settings have them.

    Attributes:
        base_url: The path of the whole installation.
        hub_origin: Scheme, host and port of the hub; empty when all share one host, and addresses
            are paths.
        api_host: Where servers of this installation call the API, if that is another host: there
            it is, and nothing else.
    """

    base_url: str
    hub_origin: str = ""
    api_host: str = ""

    @property
    def hub_host(self) -> str:
        """The hub's host, as routes have it; empty when all share one."""
        return urlsplit(self.hub_origin).hostname or ""

    @property
    def user_hosts(self) -> str:
        """All users' hosts, as routes have it."""
        return f"*.{self.hub_host}" if self.hub_origin else ""

    @property
    def user_origins(self) -> str:
        """All users' origins, as a content security policy has them."""
        scheme, separator, authority = self.hub_origin.partition("://")
        return f"{scheme}{separator}*.{authority}" if self.hub_origin else ""

    @property
    def are_safe(self) -> bool:
        """Whether each user has a host of their own, with TLS: cookies can be kept to one host."""
        return self.hub_origin.startswith("https:")

    def host(self, user: str) -> str:
        """Return a user's host, as routes have it; empty when all share one."""
        return f"{label_of(user)}.{self.hub_host}" if self.hub_origin else ""

    def origin(self, user: str) -> str:
        """Return scheme, host and port of a user's servers; empty when all share one."""
        return self._below(label_of(user))

    def service_host(self, name: str) -> str:
        """Return a service's host, as routes have it; empty when all share one."""
        return f"{_service_label(name)}.{self.hub_host}" if self.hub_origin else ""

    def service_origin(self, name: str) -> str:
        """Return scheme, host and port of a service; empty when all share one."""
        return self._below(_service_label(name))

    def _below(self, label: str) -> str:
        scheme, separator, authority = self.hub_origin.partition("://")
        return f"{scheme}{separator}{label}.{authority}" if self.hub_origin else ""

    def prefix(self, user: str, server_name: str = "") -> str:
        """Return the path a server answers below."""
        return server_prefix(self.base_url, user, server_name)

    def url(self, user: str, server_name: str = "") -> str:
        """Return where browsers find a server: a path, or with a host of its own an address."""
        return self.origin(user) + self.prefix(user, server_name)

    def located(self, path: str) -> str:
        """Return where browsers find a path of this installation.

        Args:
            path: Of the hub or of a server, with query and fragment.
        """
        if not self.hub_origin:
            return path
        for kind, origin in (("user", self.origin), ("services", self.service_origin)):
            home = f"{self.base_url}{kind}/"
            if path.startswith(home):
                escaped = re.split(r"[/?#]", path.removeprefix(home), maxsplit=1)[0]
                name = unquote(escaped)
                if name and escape_name(name) == escaped:
                    return origin(name) + path
        return path

    def is_hub(self, host: str) -> bool:
        """Whether a `Host` is the hub's own. Without hosts of users' own, every one is."""
        return not self.hub_origin or _name(host) == self.hub_host

    def is_api(self, host: str) -> bool:
        """Whether a `Host` has the API and no pages."""
        return bool(self.api_host) and _name(host) == self.api_host

    def is_users(self, origin: str) -> bool:
        """Whether an origin is one of the users'."""
        scheme, separator, authority = self.hub_origin.partition("://")
        ending = f".{authority}"
        label = origin.removeprefix(f"{scheme}{separator}").removesuffix(ending)
        return bool(
            self.hub_origin
            and origin == f"{scheme}{separator}{label}{ending}"
            and _SAFE_LABEL.fullmatch(label)
        )
