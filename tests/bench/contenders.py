"""The proxies that are measured, and the targets behind them: real processes on loopback."""

import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROUTES = 1000
TOKEN = "for-measurements-only"
_TREE = Path(__file__).resolve().parents[2]
_START_SECONDS = 20


@dataclass
class Contender:
    """A proxy, or a target without one.

    Attributes:
        base: The path of the route to the target.
        rates: Every figure of every case, in the order they were taken.
    """

    name: str
    port: int
    process: subprocess.Popen[bytes]
    base: str = "/user/a"
    rates: dict[str, list["Figure"]] = field(default_factory=dict)


@dataclass(frozen=True)
class Figure:
    """One measurement.

    Attributes:
        rate: Of what the case counts, a second.
        p99_ms: What 99 of 100 took at most.
        errors: Answers that were none.
        cores: Processor time the contender used, by time that passed.
    """

    rate: float
    p99_ms: float
    errors: int
    cores: float


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def process_tree(pid: int) -> list[int]:
    """Return a process and all below it."""
    found = [pid]
    for one in found:
        with suppress(OSError):
            for task in Path(f"/proc/{one}/task").iterdir():
                found += [int(child) for child in (task / "children").read_text().split()]
    return found


def cpu_seconds(pid: int) -> float:
    """Return the processor time that a process and those below it have used."""
    total = 0
    for one in process_tree(pid):
        with suppress(OSError):
            stat = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
            total += int(stat[11]) + int(stat[12])
    return total / os.sysconf("SC_CLK_TCK")


def resident_mib(pid: int) -> float:
    """Return the resident memory of a process and those below it."""
    total = 0
    for one in process_tree(pid):
        with suppress(OSError):
            for line in Path(f"/proc/{one}/status").read_text().splitlines():
                if line.startswith("VmRSS:"):
                    total += int(line.split()[1])
    return total / 1024


class Field:
    """Starts processes and ends them; knows the addresses of the targets."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.http_port = free_port()
        self.ws_port = free_port()
        self._processes: list[subprocess.Popen[bytes]] = []

    def run(self, arguments: Sequence[str], ports: Sequence[int]) -> subprocess.Popen[bytes]:
        """Start a process and wait until it listens."""
        log = (self.directory / f"{ports[0]}.log").open("wb")
        process = subprocess.Popen(
            arguments,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"CONFIGPROXY_AUTH_TOKEN": TOKEN},
        )
        log.close()
        self._processes.append(process)
        until = time.monotonic() + _START_SECONDS
        for port in ports:
            while True:
                with suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                    break
                if process.poll() is not None or time.monotonic() > until:
                    text = (self.directory / f"{ports[0]}.log").read_text(errors="replace")
                    raise SystemExit(f"{arguments[0]} does not listen on {port}:\n{text[-2000:]}")
                time.sleep(0.02)
        return process

    def close(self) -> None:
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(5)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    # --- targets ---

    def start_targets(self) -> Contender:
        """Start the web server and the echo server behind all proxies; return the former."""
        files = self.directory / "files"
        files.mkdir()
        (files / "small").write_bytes(os.urandom(64))
        (files / "large").write_bytes(os.urandom(1 << 20))
        server = f"""
            server {{
                listen 127.0.0.1:{self.http_port} backlog=4096;
                root {files};
                location ~ /small$ {{ try_files /small =404; }}
                location ~ /large$ {{ try_files /large =404; }}
                location ~ /upload$ {{
                    client_body_buffer_size 2m;
                    proxy_pass_request_body off;
                    proxy_set_header Content-Length "";
                    proxy_pass http://sink;
                }}
            }}
            upstream sink {{ server unix:{self.directory}/sink.sock; keepalive 32; }}
            server {{
                listen unix:{self.directory}/sink.sock;
                location / {{ return 200 taken; }}
            }}"""
        process = self.nginx("target", server, self.http_port)
        echo = Path(__file__).with_name("echo_sockets.py")
        self.run([sys.executable, str(echo), "serve", str(self.ws_port)], [self.ws_port])
        return Contender("direct", self.http_port, process)

    def nginx(self, name: str, server: str, port: int) -> subprocess.Popen[bytes]:
        """Start nginx with one worker."""
        directory = self.directory / name
        directory.mkdir()
        places = "".join(
            f"{kind}_temp_path {directory}/{kind};"
            for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        )
        user = "user root;" if os.geteuid() == 0 else ""
        (directory / "nginx.conf").write_text(
            f"""{user} worker_processes 1; daemon off; pid {directory}/pid;
            error_log {directory}/error.log crit; worker_rlimit_nofile 20000;
            events {{ worker_connections 9000; }}
            http {{
                access_log off; client_max_body_size 0; keepalive_requests 1000000000;
                sendfile on; tcp_nopush on; {places}
                proxy_http_version 1.1; proxy_set_header Connection "";
                {server}
            }}"""
        )
        command = [_nginx(), "-p", str(directory), "-c", str(directory / "nginx.conf")]
        return self.run(command, [port])

    # --- proxies ---

    def start_nginx(self) -> Contender:
        """Start nginx as a proxy, with the same routes."""
        port = free_port()
        locations = "".join(
            f"location /r/user{number}/ {{ proxy_pass http://target; }}\n"
            for number in range(ROUTES)
        )
        server = f"""
            upstream target {{ server 127.0.0.1:{self.http_port}; keepalive 128; }}
            upstream echo {{ server 127.0.0.1:{self.ws_port}; }}
            server {{
                listen 127.0.0.1:{port} backlog=4096;
                proxy_set_header Host $http_host;
                proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                proxy_set_header X-Forwarded-Proto $scheme;
                proxy_request_buffering off; proxy_max_temp_file_size 0;
                location /user/a/ {{ proxy_pass http://target; }}
                {locations}
                location /ws/ {{
                    proxy_pass http://echo; proxy_read_timeout 1h;
                    proxy_set_header Upgrade $http_upgrade;
                    proxy_set_header Connection upgrade;
                }}
            }}"""
        return Contender("nginx", port, self.nginx("proxy", server, port))

    def start_drop_in(self, name: str, command: Sequence[str]) -> Contender:
        """Start configurable-http-proxy, or what takes its place, and post the routes."""
        port, api = free_port(), free_port()
        options = ["--ip", "127.0.0.1", "--port", str(port), "--api-ip", "127.0.0.1"]
        options += ["--api-port", str(api), "--log-level", "error"]
        process = self.run([*command, *options], [api, port])
        target = f"http://127.0.0.1:{self.http_port}"
        _post_route(api, "/user/a", target)
        _post_route(api, "/ws", f"http://127.0.0.1:{self.ws_port}")
        for number in range(ROUTES):
            _post_route(api, f"/r/user{number}", target)
        return Contender(name, port, process)


@contextmanager
def open_field() -> Iterator[Field]:
    directory = Path(tempfile.mkdtemp(prefix="carrel-bench-"))
    directory.chmod(0o755)
    field = Field(directory)
    try:
        yield field
    finally:
        field.close()
        shutil.rmtree(directory, ignore_errors=True)


def original_command() -> list[str]:
    """Install configurable-http-proxy and the tools, if need be; return how it is run."""
    peers = _TREE / "build" / "peers"
    subprocess.run([_TREE / "scripts" / "bench-peers", peers], check=True)
    return ["node", str(peers / "node_modules" / ".bin" / "configurable-http-proxy")]


def _nginx() -> str:
    return shutil.which("nginx") or "/usr/sbin/nginx"


def _post_route(api: int, path: str, target: str) -> None:
    reply = httpx.post(
        f"http://127.0.0.1:{api}/api/routes{path}",
        json={"target": target},
        headers={"Authorization": f"token {TOKEN}"},
        trust_env=False,
    )
    reply.raise_for_status()
