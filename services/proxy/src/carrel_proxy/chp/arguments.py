"""The options of configurable-http-proxy 5.3 as argparse has them: names, forms and help."""

import argparse
from pathlib import Path
from typing import NoReturn

from carrel_proxy import __version__

TOKEN_VARIABLE = "CONFIGPROXY_AUTH_TOKEN"  # noqa: S105 - its name
TOKEN_FILE_VARIABLE = "CONFIGPROXY_AUTH_TOKEN_FILE"  # noqa: S105 - its name
PASSPHRASE_VARIABLE = "CONFIGPROXY_SSL_KEY_PASSPHRASE"  # noqa: S105 - its name
API_PASSPHRASE_VARIABLE = "CONFIGPROXY_API_SSL_KEY_PASSPHRASE"  # noqa: S105 - its name


class OptionsError(Exception):
    """The options cannot be followed; the message says which and why."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise OptionsError(f"{message}; --help lists the options")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError(f"{text!r} is no port")
    return int(text)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= 64:
        raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to 64")
    return int(text)


def _seconds(text: str) -> float:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return float(text)


def _milliseconds(text: str) -> float:
    if not text.isascii() or not text.isdigit():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of milliseconds")
    return int(text) / 1000


def parser() -> argparse.ArgumentParser:
    """Return what reads a command line; it raises `OptionsError` for one that is none."""
    made = _Parser(
        prog="carrel-proxy",
        allow_abbrev=False,
        description="Carrel's proxy, run in the place of configurable-http-proxy 5.3. With --config"
        " FILE or CARREL_PROXY__ variables it is Carrel's own proxy instead.",
        epilog=f"{TOKEN_VARIABLE} holds the token that callers of the REST API show, or"
        f" {TOKEN_FILE_VARIABLE} names a file with it. {PASSPHRASE_VARIABLE} and"
        f" {API_PASSPHRASE_VARIABLE} open the keys.",
    )
    add = made.add_argument
    add("-V", "--version", action="version", version=f"carrel-proxy {__version__}")
    add("--ip", help="public address; all without it, or with '' or '*'")
    add("--port", type=_number, help="public port (8000)")
    add("--socket", metavar="PATH", help="public unix socket, in the place of --ip and --port")
    add("--api-ip", help="address of the REST API (localhost)")
    add("--api-port", type=_number, help="port of the REST API (the public one + 1)")
    add("--api-socket", metavar="PATH", help="unix socket of the REST API")
    for side, words in (("", "public"), ("api-", "the API's"), ("client-", "targets'")):
        for part in ("key", "cert", "ca"):
            add(f"--{side}ssl-{part}", type=_path, metavar="FILE", help=f"{words} TLS: PEM file")
        asks = "ignored: targets always show one"
        if side != "client-":
            asks = f"{words} TLS: let nobody in without a certificate that the CA vouches for"
        add(f"--{side}ssl-request-cert", action="store_true", help=asks)
        add(
            f"--{side}ssl-reject-unauthorized",
            action="store_true",
            help="ignored: a certificate that is not vouched for is always refused",
        )
    add("--ssl-protocol", metavar="NAME", help="TLSv1_2 or TLSv1_3: speak that alone")
    add("--ssl-ciphers", metavar="LIST", help="ciphers of TLS 1.2, public and the API's")
    add("--ssl-allow-rc4", action="store_true", help="ignored: RC4 is broken")
    add("--ssl-dhparam", metavar="FILE", help="ignored: ECDHE is used")
    add("--default-target", metavar="URL", help="where requests go that no route covers")
    add("--error-target", metavar="URL", help="asked for the pages of errors, at URL/CODE")
    add("--error-path", type=_path, metavar="DIR", help="holds CODE.html and error.html")
    add("--redirect-port", type=_number, help="port that redirects HTTP to HTTPS")
    add("--redirect-to", type=_number, help="port it redirects to")
    add("--pid-file", type=_path, metavar="FILE", help="where the process id is written")
    add("--no-x-forward", action="store_true", help="add no X-Forwarded-* fields")
    add("--no-prepend-path", action="store_true", help="leave out the target's own path")
    add("--no-include-prefix", action="store_true", help="leave out the route's prefix")
    add("--auto-rewrite", action="store_true", help="rewrite the host of redirects")
    add("--change-origin", action="store_true", help="set Host to the target's")
    add("--protocol-rewrite", choices=("http", "https"), help="rewrite redirects' scheme")
    add("--custom-header", action="append", default=[], metavar="K:V", help="sent to targets")
    add("--insecure", action="store_true", help="do not verify the certificates of targets")
    add("--host-routing", action="store_true", help="route by host before the path")
    add("--metrics-ip", default="", help="address of the metrics")
    add("--metrics-port", type=_number, help="port of the metrics; off without it")
    add("--metrics-socket", metavar="PATH", help="unix socket of the metrics")
    add("--log-level", default="info", help="debug, info, warn or error (info)")
    add("--timeout", type=_milliseconds, metavar="MS", help="clients may be silent so long")
    add("--proxy-timeout", type=_milliseconds, metavar="MS", help="targets, likewise")
    add("--keep-alive-timeout", type=_milliseconds, metavar="MS", help="(5000)")
    add(
        "--storage-backend",
        metavar="M",
        help="memory (which a crash of a worker and a reload leave as it is), or file:PATH, which"
        " outlives the proxy",
    )
    add(
        "--workers",
        type=_count,
        default=1,
        metavar="N",
        help="Carrel's own: how many processes serve requests (1)",
    )
    add(
        "--reload-deadline",
        type=_seconds,
        default=3600.0,
        metavar="SECONDS",
        help="Carrel's own: how long WebSockets stay open after a reload (3600)",
    )
    add("--check", action="store_true", help="Carrel's own: check the options and end")
    add(
        "--access-log",
        choices=("off", "errors", "all"),
        help="Carrel's own: which requests are logged (off; all with --log-level debug)",
    )
    add(
        "--trusted-peer",
        action="append",
        default=[],
        metavar="NET",
        help="Carrel's own: whose X-Forwarded-* fields are believed, beside this machine's",
    )
    return made
