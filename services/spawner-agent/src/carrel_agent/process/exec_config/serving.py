"""How a Jupyter server serves below its prefix, on a socket that it inherited.

`prepare` changes jupyter_server's application class in this process, before its one instance reads
its configuration (forked) or while it does (executed). A user's configuration files stay in force
except for the few settings without which the proxy would not find the server, or not be believed.
Those are put in twice, because extensions' files are merged after the server's own.
"""

from __future__ import annotations

import os
import signal
import socket
import typing as t
from urllib.parse import quote

ANNOUNCEMENTS = "@jupyterlab/apputils-extension:announcements"
BACKLOG = 1024


class ServerSettings(t.NamedTuple):
    """What the agent decided about this server; see `LaunchSpec` for the meanings."""

    base_url: str
    hub_prefix: str
    default_url: str
    user: str
    server_name: str
    secret: str
    listen_fd: int

    def __repr__(self) -> str:
        return f"ServerSettings(base_url={self.base_url!r})"


def forced_traits(settings: ServerSettings, provider: type) -> dict[str, t.Any]:
    """Return the ServerApp traits that a user's configuration may not change."""
    return {
        "base_url": settings.base_url,
        "identity_provider_class": provider,
        # The socket is ours already. sock and port exclude each other, TLS ends at the proxy.
        "sock": "",
        "port": 0,
        "ip": "localhost",
        "certfile": "",
        "keyfile": "",
        "client_ca": "",
        # The Host header is the public one, and the forwarded headers are the proxy's.
        "allow_remote_access": True,
        "trust_xheaders": True,
        "open_browser": False,
    }


def prepare(app: t.Any, settings: ServerSettings, provider: type) -> None:
    """Change the class `ServerApp` so that its instance serves as `settings` say.

    Args:
        app: `jupyter_server.serverapp.ServerApp`.
        settings: From the agent.
        provider: From `identity.build_provider`.
    """
    os.set_inheritable(settings.listen_fd, False)
    forced = forced_traits(settings, provider)
    url = _socket_url(settings)

    load_config_file = app.load_config_file
    init_resources = app.init_resources
    init_signal = app.init_signal

    def load_and_force(self: t.Any, *args: t.Any, **kwargs: t.Any) -> None:
        load_config_file(self, *args, **kwargs)
        _force(self, forced)

    def force_and_init_resources(self: t.Any) -> None:
        _force(self, forced)
        # A page in the user's home that leads to no port.
        self.no_browser_open_file = True
        self.tornado_settings = {**self.tornado_settings, **_web_settings(settings)}
        init_resources(self)

    def init_signal_without_questions(self: t.Any) -> None:
        init_signal(self)
        # Nobody is there to answer "Shut down this server (y/[n])?".
        signal.signal(signal.SIGINT, self._signal_stop)

    def listen(self: t.Any) -> None:
        try:
            listener = socket.socket(fileno=settings.listen_fd)
            listener.setblocking(False)
            listener.listen(BACKLOG)
        except OSError as error:
            self.log.critical("cannot listen on the socket from the agent: %s", error)
            self.exit(1)
        else:
            self.http_server.add_socket(listener)

    app.load_config_file = load_and_force
    app.init_resources = force_and_init_resources
    app.init_signal = init_signal_without_questions
    app._find_http_port = lambda self: None
    app._bind_http_server = listen
    # What terminals and `jupyter server list` show: there is no port, and no token to add.
    for name in ("connection_url", "public_url", "local_url"):
        setattr(app, name, property(lambda self: url))
    if settings.server_name:
        app.server_name = settings.server_name  # JupyterLab asks for it
    set_default(app, "quit_button", False)


def prepare_lab(lab_app: t.Any, settings: ServerSettings) -> None:
    """Change defaults of `jupyterlab.labapp.LabApp` that a user may change back."""
    set_default(lab_app, "default_url", settings.default_url)
    # Neither news nor update checks: a user cannot update an environment that is the host's.
    set_default(lab_app, "news_url", None)
    set_default(lab_app, "extension_manager", "readonly")


def set_default(owner: t.Any, name: str, value: t.Any) -> None:
    """Give a trait another default value, unless this release has no such trait.

    Not by configuration: what stands in the server's configuration would override the user's
    `jupyter_lab_config.py`, while a default yields to every file.
    """
    trait = owner.class_traits().get(name)
    if trait is None:
        return
    trait.default_value = value
    # traitlets copies immutable defaults when a class is made.
    for cls in _with_descendants(owner):
        copies = getattr(cls, "_static_immutable_initial_values", {})
        if name in copies:
            copies[name] = value


def _with_descendants(owner: t.Any) -> t.Iterator[t.Any]:
    yield owner
    for child in owner.__subclasses__():
        yield from _with_descendants(child)


def _force(app: t.Any, forced: dict[str, t.Any]) -> None:
    from traitlets.config import Config

    app.update_config(Config({"ServerApp": forced}))
    for name, value in forced.items():
        if app.has_trait(name):
            setattr(app, name, value)


def _web_settings(settings: ServerSettings) -> dict[str, t.Any]:
    """Return what JupyterLab looks for to offer "Hub Control Panel" and "Restart"."""
    return {
        "hub_prefix": settings.hub_prefix,
        "hub_host": "",
        "user": settings.user,
        "page_config_hook": _finish_page_config,
    }


def _finish_page_config(_handler: t.Any, page_config: dict[str, t.Any]) -> dict[str, t.Any]:
    """Keep "get notified about Jupyter news?" off the screen, and any token out of the page."""
    page_config["token"] = ""
    disabled = page_config.get("disabledExtensions", [])
    if ANNOUNCEMENTS not in disabled:
        page_config["disabledExtensions"] = [*disabled, ANNOUNCEMENTS]
    return page_config


def _socket_url(settings: ServerSettings) -> str:
    probe = socket.socket(fileno=os.dup(settings.listen_fd))
    try:
        name = probe.getsockname()
    finally:
        probe.close()
    if isinstance(name, str):
        return f"http+unix://{quote(name, safe='')}{settings.base_url}"
    return f"http://{name[0]}:{name[1]}{settings.base_url}"
