"""The command line that configurable-http-proxy has."""

import ssl
from collections.abc import Mapping
from pathlib import Path

import pytest

from carrel_proxy.chp.arguments import OptionsError
from carrel_proxy.chp.forward import Rules
from carrel_proxy.chp.options import Options, TlsFiles, is_meant, read_options
from carrel_proxy.chp.program import limits_of, rules_of
from carrel_proxy.engine.deadlines import NEVER, TICK_SECONDS

TOKEN = {"CONFIGPROXY_AUTH_TOKEN": "t0ken"}


def options(*arguments: str, environ: Mapping[str, str] = TOKEN) -> Options:
    return read_options(arguments, environ)


def test_nothing_at_all_is_the_other_proxy() -> None:
    assert is_meant([], {})
    assert not is_meant([], {"CARREL_PROXY__NAME": "edge"})
    assert not is_meant(["--config", "carrel.toml"], {})
    assert not is_meant(["--config=carrel.toml"], {})
    assert not is_meant(["--generate-config"], {})


def test_its_options_decide_even_beside_our_variables() -> None:
    ours = {"CARREL_PROXY__NAME": "edge"}
    assert is_meant(["--port", "80"], ours)
    assert not is_meant(["--version"], ours)


def test_what_the_hub_runs_it_with() -> None:
    read = options(
        *("--ip", "", "--port", "8000", "--api-ip", "127.0.0.1", "--api-port", "8001"),
        *("--error-target", "http://127.0.0.1:8081/hub/error", "--log-level", "info"),
    )
    assert (read.ip, read.port, read.api_ip, read.api_port) == ("", 8000, "127.0.0.1", 8001)
    assert read.error_target == "http://127.0.0.1:8081/hub/error"
    assert read.token == "t0ken"


def test_what_the_hub_runs_it_with_under_internal_ssl() -> None:
    read = options(
        *("--ip", "", "--port", "8000", "--api-ip", "127.0.0.1", "--api-port", "8001"),
        *("--error-target", "https://127.0.0.1:8081/hub/error", "--log-level", "info"),
        *("--api-ssl-key", "/a.key", "--api-ssl-cert", "/a.crt", "--api-ssl-ca", "/a-ca.crt"),
        *("--api-ssl-request-cert", "--api-ssl-reject-unauthorized"),
        *("--client-ssl-key", "/c.key", "--client-ssl-cert", "/c.crt"),
        *("--client-ssl-ca", "/c-ca.crt"),
        *("--client-ssl-request-cert", "--client-ssl-reject-unauthorized"),
    )
    assert not read.tls.is_set
    assert read.api_tls == TlsFiles(
        Path("/a.key"), Path("/a.crt"), Path("/a-ca.crt"), request_cert=True
    )
    assert read.client_tls.ca == Path("/c-ca.crt")
    assert not read.ignored


def test_defaults() -> None:
    read = options()
    assert (read.ip, read.port, read.api_ip, read.api_port) == ("", 8000, "localhost", 8001)
    assert read.metrics_port is None
    assert not read.ignored
    assert rules_of(read) == Rules()
    limits = limits_of(read)
    assert limits.idle_seconds == 5 + TICK_SECONDS
    assert limits.response_seconds == NEVER


def test_ports_follow_the_public_one() -> None:
    assert options("--port=9000").api_port == 9001
    assert options("--socket", "/run/p.sock").api_port == 8001


def test_a_socket_takes_the_place_of_addresses() -> None:
    read = options("--api-socket", "/p", "--api-port", "1", "--api-ip", "127.0.0.1")
    assert read.api_socket == "/p"
    assert read.ignored[0][0] == "--api-ip, --api-port"


def test_of_what_is_said_twice_the_last_counts() -> None:
    read = options("--port=1", "--port=2", "--custom-header", "A: 1", "--custom-header", "a:2")
    assert read.port == 2
    assert read.custom_headers == (("a", "2"),)


@pytest.mark.parametrize(
    ("given", "level"), [("DEBUG", "debug"), ("Warn", "warning"), ("verbose", "debug")]
)
def test_levels_are_read_in_any_case(given: str, level: str) -> None:
    assert options("--log-level", given).log_level == level


@pytest.mark.parametrize(
    ("name", "version"),
    [
        ("TLSv1_2", ssl.TLSVersion.TLSv1_2),
        ("TLSv1_2_method", ssl.TLSVersion.TLSv1_2),
        ("TLSv1_3", ssl.TLSVersion.TLSv1_3),
        ("TLS", None),
        ("SSLv23", None),
        ("TLSv1_1", None),
    ],
)
def test_protocols_are_named_as_node_names_them(name: str, version: ssl.TLSVersion | None) -> None:
    read = options("--ssl-protocol", name)
    assert (read.tls.version, read.api_tls.version) == (version, version)
    assert bool(read.ignored) is (name == "TLSv1_1")


def test_the_token_may_be_in_a_file(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("s3cret\n")
    assert options(environ={"CONFIGPROXY_AUTH_TOKEN_FILE": str(file)}).token == "s3cret"
    for content, more, word in (
        ("s3cret", TOKEN, "exclude"),
        (" \n", {}, "empty"),
        (None, {}, "No such file"),
    ):
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        with pytest.raises(OptionsError, match=word):
            options(environ={"CONFIGPROXY_AUTH_TOKEN_FILE": str(file), **more})


def test_no_time_to_be_kept_alive_is_the_usual_time() -> None:
    assert limits_of(options("--keep-alive-timeout", "0")) == limits_of(options())


def test_what_is_said_to_be_nothing_is_not_said() -> None:
    said = ("--default-target", "--error-target", "--error-path", "--ssl-key", "--ssl-cert")
    read = options(*(f"{name}=" for name in said), "--pid-file", "", "--api-ip=")
    assert (read.default_target, read.error_target, read.error_path) == (None, None, None)
    assert (read.pid_file, read.tls.is_set, read.api_ip) == (None, False, "")


def test_the_star_and_warn_are_read() -> None:
    read = options("--ip=*", "--log-level=warn")
    assert read.ip == "*"
    assert read.log_level == "warning"


def test_milliseconds_become_limits_that_are_never_shorter() -> None:
    limits = limits_of(
        options("--timeout", "600", "--proxy-timeout", "500", "--keep-alive-timeout", "700")
    )
    late = TICK_SECONDS  # so long ago the last tick may be, by whose time a limit begins
    assert (limits.idle_seconds, limits.body_seconds) == (0.7 + late, 0.6 + late)
    assert (limits.response_seconds, limits.pause_seconds) == (0.5 + late, 0.5 + late)
    assert limits_of(options("--timeout", "600")).pause_seconds == 0.6 + late
    assert limits_of(options()).pause_seconds == NEVER


def test_custom_headers_are_trimmed() -> None:
    read = options("--custom-header", "X-One: 1", "--custom-header", " x-two :a:b c")
    assert read.custom_headers == (("X-One", "1"), ("x-two", "a:b c"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["--ssl-protocol", "TLSv1"],
        ["--ssl-allow-rc4"],
        ["--ssl-dhparam", "/x"],
        ["--storage-backend", "redis"],
        ["--log-level", "loud"],
        ["--ssl-ciphers", "ALL:@SECLEVEL=0"],
    ],
)
def test_what_means_nothing_here_is_accepted_and_said(arguments: list[str]) -> None:
    assert options(*arguments).ignored[0][0] == arguments[0]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--no-such"], "--no-such"),
        (["--po", "1"], "--po"),
        (["--port", "x"], "port"),
        (["--port", "65536"], "port"),
        (["--socket", "/p", "--port", "1"], "--socket"),
        (["--ssl-protocol", "TLSv9"], "--ssl-protocol"),
        (["--ssl-request-cert=true"], "--ssl-request-cert"),
        (["--error-target", "http://h", "--error-path", "/p"], "exclude"),
        (["--error-target", "h"], "--error-target"),
        (["--redirect-port", "80"], "--ssl-key"),
        (["--ssl-key", "/k"], "--ssl-cert"),
        (["--default-target", "ftp://h"], "--default-target"),
        (["--custom-header", "nonsense"], "--custom-header"),
        (["--custom-header", "A: b\r\nC: d"], "--custom-header"),
        (["--custom-header", "Host: an other"], "--custom-header"),
        (["--trusted-peer", "nobody"], "--trusted-peer"),
    ],
)
def test_what_cannot_be_followed_is_named(arguments: list[str], word: str) -> None:
    with pytest.raises(OptionsError, match=word):
        options(*arguments)


@pytest.mark.parametrize("ip", ["0.0.0.0", "", "*", "192.0.2.1"])
def test_an_api_open_to_other_machines_needs_a_token(ip: str) -> None:
    with pytest.raises(OptionsError, match="CONFIGPROXY_AUTH_TOKEN"):
        options("--api-ip", ip, environ={})
    assert options("--api-ip", ip).api_ip == ip
    assert options("--api-ip", "127.0.0.1", environ={}).token is None


def test_secrets_are_not_shown() -> None:
    shown = repr(options(environ={**TOKEN, "CONFIGPROXY_SSL_KEY_PASSPHRASE": "s3same"}))
    assert "t0ken" not in shown
    assert "s3same" not in shown
