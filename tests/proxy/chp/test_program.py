"""The program in the other one's place: how it starts and ends."""

import http.client
import signal
import ssl
import subprocess
from pathlib import Path

from proxy.chp.program import TOKEN, run, running, status_of

from support.ports import free_port


def test_it_serves_and_ends_as_the_other_does(short_dir: Path) -> None:
    port, pid_file, api = free_port(), short_dir / "pid", free_port()
    arguments = ["--api-port", str(api), "--pid-file", str(pid_file), "--ssl-allow-rc4"]
    with running(*arguments, port=port) as process:
        assert status_of(http.client.HTTPConnection("127.0.0.1", port), "/_chp_healthz") == 200
        assert int(pid_file.read_text()) == process.pid
        callers = http.client.HTTPConnection("127.0.0.1", api)
        assert status_of(callers, "/api/routes") == 403
        assert status_of(callers, "/api/routes", TOKEN) == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 2
        assert process.stderr is not None
        log = process.stderr.read()
    assert not pid_file.exists()
    assert "--ssl-allow-rc4" in log
    assert "Traceback" not in log
    assert TOKEN not in log


def test_it_is_silent_below_the_level_that_is_set() -> None:
    port, api = free_port(), free_port()
    with running("--api-port", str(api), "--log-level", "error", port=port) as process:
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 2
        assert process.stderr is not None
        assert process.stderr.read() == ""


def test_it_serves_tls_on_both_sides(short_dir: Path) -> None:
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1"),
            *("-keyout", f"{short_dir}/key.pem", "-out", f"{short_dir}/cert.pem"),
            *("-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    port, api = free_port(), free_port()
    files = [
        f"--{side}ssl-{part}={short_dir}/{part}.pem"
        for side in ("", "api-")
        for part in ("key", "cert")
    ]
    with running("--api-port", str(api), *files, port=port):
        trust = ssl.create_default_context(cafile=f"{short_dir}/cert.pem")
        public = http.client.HTTPSConnection("127.0.0.1", port, timeout=60, context=trust)
        assert status_of(public, "/_chp_healthz") == 200
        callers = http.client.HTTPSConnection("127.0.0.1", api, timeout=60, context=trust)
        assert status_of(callers, "/api/routes", TOKEN) == 200


def test_what_cannot_be_followed_ends_it_with_one_line(short_dir: Path) -> None:
    for arguments, word in (
        (["--no-such-option"], "--no-such-option"),
        (["--ssl-key=/x.pem", "--ssl-cert=/x.pem"], "--ssl-key"),
        ([f"--pid-file={short_dir}/none/pid", "--ip=127.0.0.1", "--port=0"], "--pid-file"),
    ):
        result = run(*arguments)
        assert result.returncode == 1
        assert word in result.stderr
        assert result.stderr.count("\n") == 1


def test_an_open_api_stays_on_this_machine() -> None:
    result = run("--api-ip", "", token="")
    assert result.returncode == 1
    assert "CONFIGPROXY_AUTH_TOKEN" in result.stderr


def test_help_names_every_option() -> None:
    result = run("--help")
    assert result.returncode == 0
    for option in ("--api-ip", "--error-target", "--host-routing", "--storage-backend"):
        assert option in result.stdout
