"""The paths and client ids of servers, derived from names in this one place."""

from hashlib import sha256
from urllib.parse import quote

_LONGEST_QUOTED = 200
"""A client id is stored with 255 characters at most, and one letter can be twelve of them."""


def escape_name(name: str) -> str:
    """Percent-encode a user or server name for a path, leaving `@` and `~` as JupyterHub does."""
    return quote(name, safe="@~")


def server_prefix(base_url: str, user: str, server_name: str = "") -> str:
    """Return the path a server answers below: `{base}user/NAME/[SERVER/]`."""
    prefix = f"{base_url}user/{escape_name(user)}/"
    return f"{prefix}{escape_name(server_name)}/" if server_name else prefix


def is_routable(prefix: str) -> bool:
    """Whether proxies take a route at a path; one that they refuse would stop all the others.

    None has a backslash, which browsers take for a slash. Names have none today.
    """
    return "%5C" not in prefix


def progress_path(base_url: str, user: str, server_name: str = "") -> str:
    """Return the path of a server's progress stream."""
    server = f"servers/{escape_name(server_name)}" if server_name else "server"
    return f"{base_url}hub/api/users/{escape_name(user)}/{server}/progress"


def wanted_client_id(user: str, server_name: str = "") -> str:
    """Return the OAuth client id a server has unless another has it already.

    Two pairs of names can come to one id (user `a-b`; user `a`, server `b`), so nobody may derive
    an id from names: the row's `client_id` is the only truth.
    """
    quoted = quote(user, safe="")
    suffix = f"-{quote(server_name, safe='')}" if server_name else ""
    if len(quoted) > _LONGEST_QUOTED:
        quoted = f"{quoted[:100]}-{sha256(user.encode()).hexdigest()[:20]}"
    return f"jupyterhub-user-{quoted}{suffix}"
