"""The program, run as configurable-http-proxy would be."""

import http.client
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic, sleep

COMMAND = [sys.executable, "-m", "carrel_proxy"]
TOKEN = "only-the-hub-knows"


def environment(token: str = TOKEN, **more: str) -> dict[str, str]:
    return {"PATH": os.environ["PATH"], "CONFIGPROXY_AUTH_TOKEN": token, **more}


def run(*arguments: str, token: str = TOKEN) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *arguments],
        env=environment(token),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@contextmanager
def running(
    *arguments: str, port: int = 0, path: Path | None = None, **environ: str
) -> Iterator[subprocess.Popen[str]]:
    """Run it at a port, or at a socket, up to the moment when it answers there."""
    where = ["--ip", "127.0.0.1", "--port", str(port)] if path is None else ["--socket", str(path)]
    process = subprocess.Popen(
        [*COMMAND, *where, *arguments],
        env=environment(**environ),
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        deadline = monotonic() + 60
        while process.poll() is None and not answers(port, path) and monotonic() < deadline:
            sleep(0.02)
        yield process
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        if process.stderr is not None:
            process.stderr.close()


def answers(port: int, path: Path | None) -> bool:
    family = socket.AF_INET if path is None else socket.AF_UNIX
    with socket.socket(family) as probe:
        try:
            probe.connect(("127.0.0.1", port) if path is None else str(path))
        except OSError:
            return False
        return True


def status_of(connection: http.client.HTTPConnection, path: str, token: str = "") -> int:
    headers = {"Authorization": f"token {token}"} if token else {}
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    answer.read()
    connection.close()
    return answer.status
