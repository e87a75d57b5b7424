"""TLS on every side, with what configurable-http-proxy's options say about it."""

import asyncio
import http.client
import json
import os
import socket
import ssl
import stat
from pathlib import Path
from urllib.parse import quote

import pytest
from proxy.authority import Authority, Pair
from proxy.chp.inside import running as running_inside
from proxy.chp.program import TOKEN, run, running, status_of
from proxy.wire import eventually, ok, open_upstream, read_head

from carrel_proxy.chp.options import read_options
from carrel_proxy.chp.tls import target_tls
from carrel_proxy.core.websocket import accept_for
from support.ports import free_port

ACCEPTED = (
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Accept: %b\r\n\r\n" % accept_for(b"dGhlIHNhbXBsZSBub25jZQ==")
)


def serving(pair: Pair, *, client_ca: Path | None = None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.cert, pair.key)
    if client_ca is not None:
        context.load_verify_locations(client_ca)
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def client_options(authority: Authority, pair: Pair | None = None) -> list[str]:
    options = ["--client-ssl-ca", str(authority.file)]
    if pair is not None:
        options += ["--client-ssl-key", str(pair.key), "--client-ssl-cert", str(pair.cert)]
        options += ["--client-ssl-request-cert", "--client-ssl-reject-unauthorized"]
    return options


async def asked(target: str, *options: str) -> int:
    """Return what a request to a route to this target is answered."""
    async with running_inside(*options) as chp, chp.client() as client:
        await chp.add("/a", target)
        return (await client.ask("/a/x")).status


# --- targets ---


async def test_a_target_and_the_proxy_show_each_other_certificates(short_dir: Path) -> None:
    authority = Authority(short_dir)
    tls = serving(authority.issue("server", hosts=("127.0.0.1",)), client_ca=authority.file)
    mine = authority.issue("proxy")
    async with open_upstream(tls=tls) as upstream:
        assert await asked(upstream.target, *client_options(authority, mine)) == 200
        assert upstream.requests[0].one("x-forwarded-proto") == "http"
        assert await asked(upstream.target, *client_options(authority)) == 503
        assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("hosts", "uses", "status"),
    [
        (("127.0.0.1",), "127.0.0.1", 200),
        (("localhost",), "localhost", 200),
        (("localhost",), "127.0.0.1", 503),
        (("127.0.0.1",), "localhost", 503),
        (("hub.test",), "127.0.0.1", 503),  # the client's own Host proves nothing
        ((), "127.0.0.1", 503),
    ],
)
async def test_a_targets_certificate_is_for_the_host_of_its_route(
    hosts: tuple[str, ...], uses: str, status: int, short_dir: Path
) -> None:
    authority = Authority(short_dir)
    tls = serving(authority.issue("server", hosts=hosts))
    async with open_upstream(tls=tls) as upstream:
        target = upstream.target.replace("127.0.0.1", uses)
        assert await asked(target, *client_options(authority)) == status
        assert len(upstream.requests) == (status == 200)


async def test_a_certificate_without_alternative_names_has_its_common_name(
    short_dir: Path,
) -> None:
    authority = Authority(short_dir)
    async with open_upstream(tls=serving(authority.issue("localhost"))) as upstream:
        target = upstream.target.replace("127.0.0.1", "localhost")
        assert await asked(target, *client_options(authority)) == 200


async def test_who_vouches_for_targets_is_said_or_the_systems_choice(short_dir: Path) -> None:
    own, other = Authority(short_dir), Authority(short_dir, "other")
    tls = serving(own.issue("server", hosts=("127.0.0.1",)))
    async with open_upstream(tls=tls) as upstream:
        assert await asked(upstream.target, *client_options(other)) == 503
        assert await asked(upstream.target) == 503
        assert await asked(upstream.target, "--insecure") == 200
    expired = serving(own.issue("expired", hosts=("127.0.0.1",), days=-1))
    async with open_upstream(tls=expired) as upstream:
        assert await asked(upstream.target, *client_options(own)) == 503


async def test_a_given_authority_is_the_only_one(short_dir: Path) -> None:
    authority = Authority(short_dir)
    context = target_tls(read_options(client_options(authority), {}))
    (only,) = context.get_ca_certs()
    assert only["subject"] == ((("commonName", "carrel authority"),),)


async def test_a_websocket_reaches_a_target_over_tls(short_dir: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await read_head(reader)
        writer.write(ACCEPTED)
        while data := await reader.read(65536):
            writer.write(data)

    authority = Authority(short_dir)
    tls = serving(authority.issue("server", hosts=("127.0.0.1",)))
    async with open_upstream(tls=tls) as upstream:
        upstream.script = echo
        async with running_inside(*client_options(authority)) as chp:
            await chp.add("/a", upstream.target)
            async with chp.client() as client:
                client.get(
                    *("/a/ws", "Connection: Upgrade", "Upgrade: websocket"),
                    *("Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
                )
                assert (await client.head()).status == 101
                data = os.urandom(200_000)
                client.send(data)
                assert await client.reader.readexactly(len(data)) == data
        await eventually(lambda: upstream.open == 0)


async def test_the_error_target_speaks_tls_too(short_dir: Path) -> None:
    authority = Authority(short_dir)
    mine = authority.issue("proxy")
    tls = serving(authority.issue("hub", hosts=("127.0.0.1",)), client_ca=authority.file)
    async with open_upstream(tls=tls) as hub:
        hub.respond = lambda request: ok(request.target.encode(), "Content-Type: text/html")
        options = [*client_options(authority, mine), "--error-target", f"{hub.target}/hub/error"]
        async with running_inside(*options) as chp, chp.client() as client:
            page = await client.ask("/nowhere?x=1")
    assert page.status == 404
    assert page.body == b"/hub/error/404?url=%2Fnowhere%3Fx%3D1"


@pytest.mark.parametrize("scheme", ["http+unix", "unix+http"])
async def test_a_target_may_be_a_unix_socket(scheme: str, short_dir: Path) -> None:
    path = short_dir / "u.sock"
    async with open_upstream(path) as upstream:
        assert await asked(f"{scheme}://{quote(str(path), safe='')}") == 200
        assert upstream.requests[0].target == "/a/x"


# --- listeners ---


class Sides:
    """The ports and certificates of one program."""

    def __init__(self, directory: Path) -> None:
        self.authority = Authority(directory)
        self.stranger = Authority(directory, "stranger").issue("stranger")
        self.server = self.authority.issue("server", hosts=("127.0.0.1",))
        self.client = self.authority.issue("client")
        self.port, self.api = free_port(), free_port()

    def options(self, side: str, pair: Pair | None = None) -> list[str]:
        pair = pair or self.server
        return [f"--{side}ssl-key={pair.key}", f"--{side}ssl-cert={pair.cert}"]

    def asks(self, side: str) -> list[str]:
        return [f"--{side}ssl-ca={self.authority.file}", f"--{side}ssl-request-cert"]

    def trust(self, pair: Pair | None = None) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.authority.file))
        if pair is not None:
            context.load_cert_chain(pair.cert, pair.key)
        return context

    def status(self, port: int, path: str, token: str = "", pair: Pair | None = None) -> int:
        """Return the status of an answer, 0 if the connection is refused."""
        connection = http.client.HTTPSConnection(
            "127.0.0.1", port, timeout=60, context=self.trust(pair)
        )
        try:
            return status_of(connection, path, token)
        except OSError:
            return 0


def test_clients_and_callers_are_asked_for_certificates(short_dir: Path) -> None:
    sides = Sides(short_dir)
    options = [
        *(*sides.options(""), *sides.asks("")),
        *(*sides.options("api-"), *sides.asks("api-"), "--api-ssl-reject-unauthorized"),
    ]
    with running("--api-port", str(sides.api), *options, port=sides.port):
        for port, path in ((sides.port, "/_chp_healthz"), (sides.api, "/api/routes")):
            assert sides.status(port, path, TOKEN, sides.client) == 200
            assert sides.status(port, path, TOKEN) == 0
            assert sides.status(port, path, TOKEN, sides.stranger) == 0
        assert sides.status(sides.api, "/api/routes", "", sides.client) == 403


def test_protocols_and_ciphers_are_narrowed_and_keys_opened(short_dir: Path) -> None:
    sides = Sides(short_dir)
    locked = sides.authority.issue("locked", hosts=("127.0.0.1",), passphrase=b"open sesame")
    api_locked = sides.authority.issue("api-locked", hosts=("127.0.0.1",), passphrase=b"s2")
    options = [
        *sides.options("", locked),
        *sides.options("api-", api_locked),
        *("--ssl-protocol", "TLSv1_2", "--ssl-ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384:RC4"),
    ]
    with running(
        *("--api-port", str(sides.api), *options),
        port=sides.port,
        CONFIGPROXY_SSL_KEY_PASSPHRASE="open sesame",
        CONFIGPROXY_API_SSL_KEY_PASSPHRASE="s2",
    ):
        for port in (sides.port, sides.api):
            spoken = shaken(port, sides.trust())
            assert spoken == ("TLSv1.2", "ECDHE-ECDSA-AES256-GCM-SHA384")
            newest = sides.trust()
            newest.minimum_version = ssl.TLSVersion.TLSv1_3
            with pytest.raises(ssl.SSLError):
                shaken(port, newest)


def shaken(port: int, context: ssl.SSLContext) -> tuple[str, str]:
    """Return the version and cipher that a listener agrees on."""
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as tls,
    ):
        version, cipher = tls.version(), tls.cipher()
        assert version is not None
        assert cipher is not None
        return version, cipher[0]


def test_http_is_sent_to_https(short_dir: Path) -> None:
    sides = Sides(short_dir)
    redirect, metrics = free_port(), free_port()
    options = [
        *sides.options(""),
        *(f"--redirect-port={redirect}", "--redirect-to=443"),
        *(f"--api-port={sides.api}", f"--metrics-port={metrics}", "--metrics-ip=127.0.0.1"),
    ]
    with running(*options, port=sides.port):
        connection = http.client.HTTPConnection("127.0.0.1", redirect, timeout=60)
        connection.request("GET", "/user/a?x=%2F", headers={"Host": "hub.test:80"})
        answer = connection.getresponse()
        assert answer.status == 301
        assert answer.getheader("Location") == "https://hub.test/user/a?x=%2F"
        connection.close()
        metrics_page = http.client.HTTPConnection("127.0.0.1", metrics, timeout=60)
        assert status_of(metrics_page, "/metrics") == 200
        assert status_of(metrics_page, "/") == 404


def test_everything_may_listen_at_unix_sockets(short_dir: Path) -> None:
    paths = {name: short_dir / f"{name}.sock" for name in ("public", "api", "metrics")}
    command = [
        *("--api-socket", str(paths["api"]), "--metrics-socket", str(paths["metrics"])),
    ]
    with running(*command, path=paths["public"]):
        masked = os.umask(0o077)
        os.umask(masked)
        assert stat.S_IMODE(paths["public"].stat().st_mode) == 0o777 & ~masked
        assert stat.S_IMODE(paths["api"].stat().st_mode) == 0o600
        assert status_of(Unix(paths["public"]), "/_chp_healthz") == 200
        assert status_of(Unix(paths["api"]), "/api/routes") == 403
        assert status_of(Unix(paths["metrics"]), "/metrics") == 200
        post = Unix(paths["api"])
        target = f"http+unix://{quote(str(paths['metrics']), safe='')}"
        headers = {"Authorization": f"token {TOKEN}"}
        post.request("POST", "/api/routes/metrics", json.dumps({"target": target}), headers)
        assert post.getresponse().status == 201
        post.close()
        assert status_of(Unix(paths["public"]), "/metrics") == 200


class Unix(http.client.HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=60)
        self._path = str(path)

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(self._path)


def test_files_that_cannot_be_used_are_named(short_dir: Path) -> None:
    sides = Sides(short_dir)
    locked = sides.authority.issue("locked", passphrase=b"s3same")
    other = sides.authority.issue("other")
    nonsense = short_dir / "nonsense.pem"
    nonsense.write_text("nonsense")
    for options, word in (
        (sides.options("", locked), "--ssl-key"),
        (sides.options("api-", locked), "--api-ssl-key"),
        (sides.options("client-", locked), "--client-ssl-key"),
        ([f"--ssl-key={other.key}", f"--ssl-cert={sides.server.cert}"], "--ssl-key"),
        ([*sides.options(""), f"--ssl-ca={nonsense}"], "--ssl-ca"),
        ([f"--client-ssl-ca={nonsense}"], "--client-ssl-ca"),
        ([f"--client-ssl-ca={short_dir}/none.pem"], "none.pem"),
        ([*sides.options(""), "--ssl-ciphers=NO-SUCH"], "NO-SUCH"),
    ):
        result = run(*options, f"--port={sides.port}")
        assert result.returncode == 1, options
        assert word in result.stderr
        assert "s3same" not in result.stderr
        assert result.stderr.count("\n") == 1
