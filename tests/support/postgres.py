"""A PostgreSQL server of the tests' own: Debian's programs, a private directory, a unix socket."""

import contextlib
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import asyncpg
import pytest

READY_SECONDS = 60.0
TEMPLATE = "template_of_tests"

_CONFIGURATION = """
listen_addresses = ''
unix_socket_directories = '{directory}'
max_connections = 200
shared_buffers = 32MB
fsync = {fsync}
full_page_writes = off
log_min_messages = fatal
autovacuum = off
"""


def programs() -> Path | None:
    """Return where PostgreSQL's programs are, or None when it is not installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=_version)
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def _version(program: Path) -> int:
    name = program.parent.parent.name
    return int(name) if name.isdigit() else 0


@dataclass
class Postgres:
    """A running server.

    Attributes:
        directory: Holds its socket; others may pass through it.
    """

    directory: Path
    bin: Path
    account: str | None
    process: subprocess.Popen[bytes]
    _numbers: Iterator[int] = field(default_factory=count)

    def url(self, name: str) -> str:
        """Return the address of a database, as the hub's settings have it."""
        user = self.account or pwd.getpwuid(os.geteuid()).pw_name
        return f"postgresql+asyncpg://{user}@/{name}?host={self.directory}"

    async def execute(self, statement: str) -> None:
        """Run a statement on the server, outside the databases of the tests."""
        connection = await asyncpg.connect(
            host=str(self.directory), user=self.account, database="postgres"
        )
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    @asynccontextmanager
    async def database(self, template: str = "template0") -> AsyncIterator[str]:
        """Have a database of one's own, and yield its address."""
        name = f"t{next(self._numbers)}"
        await self.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        try:
            yield self.url(name)
        finally:
            await self.execute(f"DROP DATABASE {name} WITH (FORCE)")

    def kill(self, number: signal.Signals) -> None:
        """End the server, or have it hang, with every process of it."""
        self._signal_all(number)
        if number != signal.SIGSTOP:
            self.process.wait(READY_SECONDS)

    def come_back(self) -> None:
        """Let the server go on, or start it again on its data."""
        if self.process.poll() is None:
            self._signal_all(signal.SIGCONT)
        else:
            self.process = _start(self.directory, self.bin, self.account)

    def _signal_all(self, number: signal.Signals) -> None:
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii")
        for pid in (main, *map(int, children.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def run_postgres(*, durable: bool = False) -> Iterator[Postgres]:
    """Run a server and end it; skips the test where PostgreSQL is not installed."""
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    account = _account() if os.geteuid() == 0 else None
    directory = Path(tempfile.mkdtemp(prefix="cpg"))
    try:
        if account is not None:
            directory.chmod(0o711)
            shutil.chown(directory, account)
        _initialise(directory, binaries, account, durable=durable)
        made = Postgres(directory, binaries, account, _start(directory, binaries, account))
        try:
            yield made
        finally:
            if made.process.poll() is None:
                made._signal_all(signal.SIGCONT)
            made.process.send_signal(signal.SIGINT)  # ends what is connected, too
            made.process.wait(READY_SECONDS)
    finally:
        shutil.rmtree(directory)


def _account() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("there is no account to run PostgreSQL as")


def _initialise(directory: Path, binaries: Path, account: str | None, *, durable: bool) -> None:
    subprocess.run(
        [
            binaries / "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
            "--pgdata", directory / "data",
        ],
        check=True, user=account, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        umask=0o077,
    )  # fmt: skip
    settings = directory / "data" / "postgresql.conf"
    with settings.open("a", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(directory=directory, fsync="on" if durable else "off"))


def _start(directory: Path, binaries: Path, account: str | None) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [binaries / "postgres", "-D", directory / "data"],
        user=account, cwd="/", stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, umask=0o077,
    )  # fmt: skip
    until = time.monotonic() + READY_SECONDS
    while not _answers(directory, binaries):
        if process.poll() is not None or time.monotonic() > until:
            process.kill()
            process.wait()
            raise AssertionError("PostgreSQL does not come up")
        time.sleep(0.05)
    return process


def _answers(directory: Path, binaries: Path) -> bool:
    asked = [str(binaries / "pg_isready"), "--quiet", "--host", str(directory)]
    return subprocess.run(asked, check=False, cwd="/").returncode == 0
