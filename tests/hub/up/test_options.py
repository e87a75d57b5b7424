"""The command line is refused with the way out, before anything is touched."""

from pathlib import Path

import pytest

from carrel_hub.up.errors import UpError
from carrel_hub.up.options import UpOptions, build_parser, read_up_options


def read(*words: str) -> UpOptions:
    return read_up_options(build_parser("0").parse_args(["up", *words]))


@pytest.mark.parametrize(
    ("words", "url"),
    [
        ([], "http://127.0.0.1:8000/"),
        (["--bind", "localhost:9000"], "http://localhost:9000/"),
        (["--bind", "[::1]:9000"], "http://[::1]:9000/"),
        (["--bind", "127.0.0.1:80"], "http://127.0.0.1/"),
        (["--base-url", "jup"], "http://127.0.0.1:8000/jup/"),
        (["--base-url", "/a/b/"], "http://127.0.0.1:8000/a/b/"),
        (["--bind", "0.0.0.0:8000", "--insecure"], "http://127.0.0.1:8000/"),
    ],
)
def test_the_address_to_open(words: list[str], url: str) -> None:
    assert read(*words).url == url


@pytest.mark.parametrize("bind", ["0.0.0.0:8000", "[::]:8000", "192.0.2.1:443", "example.org:80"])
def test_a_public_address_without_tls_is_refused_with_the_ways_out(bind: str) -> None:
    with pytest.raises(UpError) as refused:
        read("--bind", bind)
    for way_out in ("--tls-cert", "--insecure", "--bind 127.0.0.1:"):
        assert way_out in str(refused.value)


def test_a_public_address_with_tls_is_https(tmp_path: Path) -> None:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    cert.touch()
    key.touch()
    tls = ("--tls-cert", str(cert), "--tls-key", str(key))
    assert read("--bind", "0.0.0.0:443", *tls).url == "https://127.0.0.1/"
    with pytest.raises(UpError, match="belong together"):
        read("--bind", "0.0.0.0:443", *tls[:2])


@pytest.mark.parametrize("bind", ["8000", "127.0.0.1", "127.0.0.1:0", "unix:/x", "127.0.0.1:99999"])
def test_what_is_no_address_is_refused_with_an_example(bind: str) -> None:
    with pytest.raises(UpError, match=r"(?s)--bind.*127\.0\.0\.1:8000"):
        read("--bind", bind)


@pytest.mark.parametrize("base", ["/a b/", "/../", "/%2F/", "/a//b/", "/a?b/"])
def test_a_base_url_that_would_not_survive_a_browser_is_refused(base: str) -> None:
    with pytest.raises(UpError, match="--base-url"):
        read("--base-url", base)


def test_a_file_that_is_not_there_is_named_with_its_option() -> None:
    with pytest.raises(UpError, match=r"--config /nowhere/carrel\.toml: there is no such file"):
        read("--config", "/nowhere/carrel.toml")
