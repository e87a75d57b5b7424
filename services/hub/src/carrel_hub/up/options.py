"""The command line of `carrel`, checked before anything is touched."""

import argparse
import re
from dataclasses import dataclass
from pathlib import Path

from carrel_hub.up.errors import UpError
from carrel_shared.addresses import AddressError, TcpAddress, parse_address

DEFAULT_BIND = "127.0.0.1:8000"
DEFAULT_SERVICE_USER = "carrel"
_BASE_URL = re.compile(r"/([A-Za-z0-9._~-]+/)*")
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


@dataclass(frozen=True, slots=True)
class UpOptions:
    """What `carrel up` was asked for.

    Attributes:
        user: Who signs in by the link; None lets the machine decide.
        demo: Make a demo account when nobody else can be found.
        keep: Leave notebooks running at Ctrl-C.
        insecure: A public address without TLS is meant, because TLS ends elsewhere.
    """

    bind: TcpAddress
    base_url: str
    user: str | None
    demo: bool
    keep: bool
    config: Path | None
    service_user: str
    insecure: bool
    tls_cert: Path | None
    tls_key: Path | None

    @property
    def origin(self) -> str:
        """Scheme, host and port at which a browser on this machine gets in."""
        scheme = "https" if self.tls_cert else "http"
        host = _EVERYWHERE.get(self.bind.host, self.bind.host)
        default = {"http": 80, "https": 443}[scheme]
        address = str(TcpAddress(host, self.bind.port))
        return f"{scheme}://{address.removesuffix(f':{default}')}"

    @property
    def files(self) -> list[tuple[str, Path]]:
        """Options that name files the services read, and the files."""
        named = [
            ("--config", self.config),
            ("--tls-cert", self.tls_cert),
            ("--tls-key", self.tls_key),
        ]
        return [(option, path) for option, path in named if path is not None]

    @property
    def url(self) -> str:
        """The address to open."""
        return f"{self.origin}{self.base_url}"


def build_parser(version: str) -> argparse.ArgumentParser:
    """Return the parser of all of `carrel`'s commands."""
    parser = argparse.ArgumentParser(
        prog="carrel", description="Notebook servers for a group, behind one address."
    )
    parser.add_argument("--version", action="version", version=f"carrel {version}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    where = argparse.ArgumentParser(add_help=False)
    where.add_argument(
        "--state-dir",
        metavar="DIR",
        type=Path,
        help="where everything is kept (as root /var/lib/carrel, else below $XDG_STATE_HOME)",
    )

    up = commands.add_parser(
        "up", parents=[where], help="start everything here and print where to click"
    )
    up.add_argument("--run-dir", metavar="DIR", type=Path, help="where sockets are (/run/carrel)")
    up.add_argument("--bind", metavar="HOST:PORT", default=DEFAULT_BIND, help="%(default)s")
    up.add_argument("--base-url", metavar="PATH", default="/", help="path of it all (%(default)s)")
    up.add_argument("--user", metavar="NAME", help="who signs in by the link (as root)")
    up.add_argument(
        "--demo", action="store_true", help="as root, without anybody else: make a demo account"
    )
    up.add_argument("--keep", action="store_true", help="leave notebooks running at Ctrl-C")
    up.add_argument("--config", metavar="FILE", type=Path, help="settings: carrel.toml")
    up.add_argument(
        "--service-user",
        metavar="NAME",
        default=DEFAULT_SERVICE_USER,
        help="as root: account of hub and proxy (%(default)s)",
    )
    up.add_argument("--tls-cert", metavar="FILE", type=Path, help="certificate chain, PEM")
    up.add_argument("--tls-key", metavar="FILE", type=Path, help="its key, PEM")
    up.add_argument(
        "--insecure",
        action="store_true",
        help="a public address without TLS is meant: TLS ends in front of Carrel",
    )

    link = commands.add_parser("link", parents=[where], help="print another one-time sign-in link")
    link.add_argument("--user", metavar="NAME", help="who signs in by it (as root)")
    token = commands.add_parser(
        "join-token", parents=[where], help="print what lets another machine join as a host, once"
    )
    token.add_argument("host", metavar="NAME", help="what the host is to be called")
    commands.add_parser("status", parents=[where], help="say what runs")

    demo = commands.add_parser("demo", help="the demo account")
    demo_commands = demo.add_subparsers(dest="demo_command", required=True, metavar="COMMAND")
    demo_commands.add_parser("remove", help="remove the demo account, if `carrel up` made it")
    return parser


def read_up_options(arguments: argparse.Namespace) -> UpOptions:
    """Check the options of `carrel up`.

    Raises:
        UpError: Naming the option and the way out.
    """
    return UpOptions(
        bind=_bind(arguments),
        base_url=_base_url(arguments.base_url),
        user=arguments.user,
        demo=arguments.demo,
        keep=arguments.keep,
        config=_existing(arguments.config, "--config"),
        service_user=arguments.service_user,
        insecure=arguments.insecure,
        tls_cert=_existing(arguments.tls_cert, "--tls-cert"),
        tls_key=_existing(arguments.tls_key, "--tls-key"),
    )


def _bind(arguments: argparse.Namespace) -> TcpAddress:
    text = str(arguments.bind)
    try:
        address = parse_address(text)
    except AddressError as error:
        raise UpError(f"--bind {error}, such as {DEFAULT_BIND}") from None
    if not isinstance(address, TcpAddress) or address.port == 0:
        raise UpError(f"--bind {text}: expected HOST:PORT, such as {DEFAULT_BIND}")
    if bool(arguments.tls_cert) != bool(arguments.tls_key):
        raise UpError("--tls-cert and --tls-key belong together: give both, or neither")
    if not (address.is_loopback or arguments.tls_cert or arguments.insecure):
        raise UpError(
            f"--bind {text}: other machines reach this address, and without TLS they could read"
            " passwords and cookies on the way.\n"
            "  with a certificate:                   --tls-cert FILE --tls-key FILE\n"
            "  TLS ends in front of Carrel:          --insecure\n"
            f"  for people on this machine only:      --bind 127.0.0.1:{address.port}"
        )
    return address


def _base_url(text: str) -> str:
    base = f"/{text.strip('/')}/" if text.strip("/") else "/"
    if not _BASE_URL.fullmatch(base) or {".", ".."} & set(base.split("/")):
        raise UpError(
            f"--base-url {text}: expected a path of letters, digits and ._~- such as /notebooks/"
        )
    return base


def _existing(path: Path | None, option: str) -> Path | None:
    if path is None:
        return None
    if not path.is_file():
        raise UpError(f"{option} {path}: there is no such file")
    return path.resolve()
