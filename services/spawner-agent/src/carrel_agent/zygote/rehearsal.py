"""One start of a server that serves nobody, to learn which modules a start loads.

Runs in a child of the zygote that is thrown away, as nobody where the zygote is root, in a home
directory that it makes and removes.
"""

import asyncio
import contextlib
import logging
import os
import shutil
import socket
import tempfile
from typing import Any

from carrel_agent.process.exec_config import identity, serving

NOBODY = 65534
SECRET = "rehearsal" * 4
BASE_URL = "/rehearsal/"
PAGES = ("api", "lab", "api/me", "api/contents", "api/kernelspecs", "api/terminals", "api/sessions")


def rehearse() -> None:
    """Start a server, ask it for what a browser asks first, and leave its modules loaded.

    Raises:
        Exception: Whatever a start can end with. The modules loaded until then are loaded.
    """
    if os.geteuid() == 0:
        os.setgroups([])
        os.setresgid(NOBODY, NOBODY, NOBODY)
        os.setresuid(NOBODY, NOBODY, NOBODY)
    home = tempfile.mkdtemp(prefix="carrel-rehearsal-")
    try:
        os.environ.update(HOME=home, USER="nobody", TMPDIR=home)
        os.chdir(home)
        with contextlib.suppress(Exception, SystemExit):
            _serve_once(f"{home}/s")
    finally:
        os.chdir("/")
        shutil.rmtree(home, ignore_errors=True)


def _serve_once(path: str) -> None:
    from jupyter_server.serverapp import ServerApp
    from jupyterlab.labapp import LabApp

    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(path)
    settings = serving.ServerSettings(
        base_url=BASE_URL,
        hub_prefix="/hub/",
        default_url="/lab",
        user="nobody",
        server_name="",
        secret=SECRET,
        listen_fd=listener.detach(),
    )
    serving.prepare(ServerApp, settings, identity.build_provider(SECRET, "/hub/"))
    serving.prepare_lab(LabApp, settings)
    logging.disable(logging.CRITICAL)
    server = LabApp.initialize_server(argv=[])
    server.io_loop.add_callback(_visit, path, server.io_loop)
    server.io_loop.start()


async def _visit(path: str, loop: Any) -> None:
    try:
        for page in PAGES:
            await asyncio.wait_for(_get(path, page), timeout=5)
    finally:
        loop.stop()


async def _get(path: str, page: str) -> None:
    reader, writer = await asyncio.open_unix_connection(path)
    writer.write(
        f"GET {BASE_URL}{page} HTTP/1.1\r\nHost: rehearsal\r\nConnection: close\r\n"
        f'X-Carrel-Secret: {SECRET}\r\nX-Carrel-User: {{"name":"nobody"}}\r\n\r\n'.encode("ascii")
    )
    await reader.read()
    writer.close()
