"""The program: its options, its refusals, its exit statuses."""

import http.client
import os
import signal
import socket
import ssl
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from carrel_proxy import __version__
from carrel_proxy.settings import ProxySettings
from carrel_shared.settings import SettingsError, load_settings
from support.ports import free_port

KEY = "k" * 40
FLEET = {"fleet_ca": "/x.pem", "fleet_cert": "/x.pem", "fleet_key": "/x.pem"}
COMMAND = [sys.executable, "-m", "carrel_proxy"]


def environment(directory: Path, **more: str) -> dict[str, str]:
    settings = {
        "bind": "127.0.0.1:0",
        "control_listen": f"unix:{directory}/control.sock",
        "control_key": KEY,
        "hub_url": f"unix:{directory}/hub.sock",
        "hub_key": KEY,
        "state_dir": f"{directory}/state",
    } | more
    wired = {f"CARREL_PROXY__{name.upper()}": value for name, value in settings.items()}
    return {"PATH": os.environ["PATH"]} | wired


def run(directory: Path, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(directory, **settings),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(directory: Path, port: int, **settings: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        COMMAND,
        env=environment(directory, bind=f"127.0.0.1:{port}", **settings),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = monotonic() + 60
        while process.poll() is None and monotonic() < deadline:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except ConnectionRefusedError:
                sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        if process.stderr is not None:
            process.stderr.close()


def test_it_serves_and_ends_on_sigterm(short_dir: Path) -> None:
    port = free_port()
    with running(short_dir, port) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/_carrel/health")
        assert connection.getresponse().read() == b'{"status":"ok"}'
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        connection.close()
        assert process.stderr is not None
        log = process.stderr.read()
    assert "Traceback" not in log
    assert KEY not in log


def test_it_serves_tls(short_dir: Path) -> None:
    subject = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", f"{short_dir}/key.pem", "-out", f"{short_dir}/cert.pem", *subject),
        ],
        check=True,
        capture_output=True,
    )
    port = free_port()
    files = {"tls_cert": f"{short_dir}/cert.pem", "tls_key": f"{short_dir}/key.pem"}
    with running(short_dir, port, **files) as process:
        trust = ssl.create_default_context(cafile=f"{short_dir}/cert.pem")
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
        for _ in range(2):
            connection.request("GET", "/_carrel/health")
            assert connection.getresponse().read() == b'{"status":"ok"}'
        connection.request("GET", "/nowhere")
        assert connection.getresponse().status == 404
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_prometheus_reads_it_where_it_is_told(short_dir: Path) -> None:
    port, metrics = free_port(), free_port()
    settings = {"metrics_listen": f"127.0.0.1:{metrics}", "metrics_key": KEY}
    with running(short_dir, port, **settings):  # its public port is the last that it opens
        connection = http.client.HTTPConnection("127.0.0.1", metrics, timeout=60)
        connection.request("GET", "/metrics")
        refused = connection.getresponse()
        assert refused.status == 401
        refused.read()
        connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {KEY}"})
        assert b"process_open_fds" in connection.getresponse().read()
        connection.close()


def test_a_log_that_nobody_reads_holds_nothing_up(short_dir: Path) -> None:
    port = free_port()
    settings = {"access_log": "all", "access_log_rate": "1000000"}
    with running(short_dir, port, **settings) as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        for _ in range(300):  # 300 KB of lines; a pipe holds 64 KiB
            connection.request("GET", "/" + "x" * 1000)
            assert connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


def test_the_last_lines_are_written(short_dir: Path) -> None:
    port = free_port()
    with running(short_dir, port, access_log="all") as process:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/nothing")
        connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
        assert process.stderr is not None
        log = process.stderr.read()
    assert "path=/nothing" in log
    assert "proxy_stopped" in log


def test_a_busy_port_is_named_with_the_way_out(short_dir: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        result = run(short_dir, bind=address)
    assert result.returncode == 1
    assert address in result.stderr
    assert "CARREL_PROXY__BIND" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"bind": "0.0.0.0:8000"}, ["tls_cert", "insecure = true"]),
        ({"control_key": ""}, ["control_key", "32 characters"]),
        ({"hub_url": "nonsense"}, ["hub_url", "unix:/path"]),
        ({"tls_cert": "/x.pem"}, ["tls_key"]),
        ({"tls_cert": "/x.pem", "tls_key": "/x.pem"}, ["/x.pem", "No such file"]),
        ({"no_such": "1"}, ["NO_SUCH", "no such setting"]),
        ({"state_dir": "/proc/x"}, ["state_dir"]),
        ({"trusted_peers": '["nobody"]'}, ["trusted_peers"]),
        ({"metrics_listen": "0.0.0.0:9100"}, ["metrics_listen", "metrics_key"]),
        ({"metrics_listen": "127.0.0.1:9100", "metrics_key": "short"}, ["metrics_key"]),
        ({"hub_key": "", "hub_url": "unix:/h"}, ["hub_key", "32 characters"]),
        ({"fleet_ca": "/x.pem"}, ["fleet_ca, fleet_cert and fleet_key belong together"]),
        ({"mode": "relay"}, ["fleet_ca is not set", 'mode = "relay"']),
        ({"mode": "relay", **FLEET}, ["hub_url is set", 'mode = "relay"']),
        ({"mode": "bridge"}, ["mode"]),
    ],
)
def test_wrong_settings_are_named_and_end_it_for_good(
    settings: dict[str, str], words: list[str], short_dir: Path
) -> None:
    result = run(short_dir, **settings)
    assert result.returncode == os.EX_CONFIG
    assert "Traceback" not in result.stderr
    for word in words:
        assert word in result.stderr


def test_a_public_address_is_allowed_where_tls_ends_elsewhere(short_dir: Path) -> None:
    values = {"insecure": "true", "bind": "0.0.0.0:8000"}
    environ = environment(short_dir, **values)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in environ.items():
            patch.setenv(name, value)
        assert load_settings(ProxySettings, None, environ).bind == "0.0.0.0:8000"
        patch.setenv("CARREL_PROXY__INSECURE", "false")
        with pytest.raises(SettingsError):
            load_settings(ProxySettings, None, environ)


def test_every_setting_is_generated(short_dir: Path) -> None:
    result = run(short_dir, "--generate-config")
    assert result.returncode == 0
    uncommented = "\n".join(
        line.removeprefix("# ") if " = " in line else ""
        for line in result.stdout.splitlines()
        if not line.startswith("[")
    )
    assert set(tomllib.loads(uncommented)) == set(ProxySettings.model_fields)


def test_it_says_its_version(short_dir: Path) -> None:
    assert run(short_dir, "--version").stdout == f"carrel-proxy {__version__}\n"
