"""A PostgreSQL server of the tests' own: Debian's programs, a private directory, a unix socket."""

import asyncio
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
        data: Where its data is.
    """

    directory: Path
    data: Path
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
        connection = await self._connect()
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

    async def set(self, name: str, value: str) -> None:
        """Change a setting of the server for everybody, those who are connected included."""
        await self.execute(f"ALTER SYSTEM SET {name} = {value}")
        await self.execute("SELECT pg_reload_conf()")
        async with asyncio.timeout(READY_SECONDS):
            while await self._show(name) != value:  # noqa: ASYNC110
                await asyncio.sleep(0.02)

    async def _show(self, name: str) -> str:
        return str(await self.value(f"SHOW {name}"))

    async def value(self, query: str) -> object:
        """Return the one value that a query outside the databases of the tests has."""
        connection = await self._connect()
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def _connect(self) -> asyncpg.Connection:
        return await asyncpg.connect(
            host=str(self.directory), user=self.account, database="postgres"
        )

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
            self.process = _start(self.directory, self.data, self.bin, self.account)

    def _signal_all(self, number: signal.Signals) -> None:
        main = self.process.pid
        children = Path(f"/proc/{main}/task/{main}/children").read_text(encoding="ascii")
        for pid in (main, *map(int, children.split())):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)


@contextmanager
def run_postgres(*, durable: bool = False, data: Path | None = None) -> Iterator[Postgres]:
    """Run a server and end it; skips the test where PostgreSQL is not installed.

    Args:
        durable: Sync what is committed.
        data: A new directory for its data, such as one on a file system of its own.
    """
    binaries = programs()
    if binaries is None:
        pytest.skip("PostgreSQL is not installed (apt-get install postgresql)")
    account = _account() if os.geteuid() == 0 else None
    with _directory(account) as directory:
        data = data or directory / "data"
        _initialise(directory, data, binaries, account, durable=durable)
        with _running(directory, data, binaries, account) as made:
            yield made


@contextmanager
def run_standby(primary: Postgres) -> Iterator[Postgres]:
    """Run a standby that streams what another server writes; each commit there waits for it."""
    with _directory(primary.account) as directory:
        data = directory / "data"
        where = f"host={primary.directory} application_name=standby"
        user = "" if primary.account is None else f" user={primary.account}"
        subprocess.run(
            [
                primary.bin / "pg_basebackup", "--pgdata", data, "--dbname", where + user,
                "--write-recovery-conf", "--checkpoint=fast", "--no-sync",
            ],
            check=True, user=primary.account, cwd="/", stderr=subprocess.PIPE, umask=0o077,
        )  # fmt: skip
        with (data / "postgresql.conf").open("a", encoding="utf-8") as file:
            file.write(f"unix_socket_directories = '{directory}'\n")
        with _running(directory, data, primary.bin, primary.account) as made:
            yield made


@contextmanager
def _directory(account: str | None) -> Iterator[Path]:
    directory = Path(tempfile.mkdtemp(prefix="cpg"))
    try:
        if account is not None:
            directory.chmod(0o711)
            shutil.chown(directory, account)
        yield directory
    finally:
        shutil.rmtree(directory)


@contextmanager
def _running(
    directory: Path, data: Path, binaries: Path, account: str | None
) -> Iterator[Postgres]:
    process = _start(directory, data, binaries, account)
    made = Postgres(directory, data, binaries, account, process)
    try:
        yield made
    finally:
        if made.process.poll() is None:
            made._signal_all(signal.SIGCONT)
            made.process.send_signal(signal.SIGINT)  # ends what is connected, too
            made.process.wait(READY_SECONDS)


def _account() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("there is no account to run PostgreSQL as")


def _initialise(
    directory: Path, data: Path, binaries: Path, account: str | None, *, durable: bool
) -> None:
    data.mkdir(mode=0o700)
    if account is not None:
        shutil.chown(data, account)
    subprocess.run(
        [
            binaries / "initdb", "--no-sync", "--auth=trust", "--encoding=UTF8", "--locale=C.UTF-8",
            "--pgdata", data,
        ],
        check=True, user=account, cwd="/", stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        umask=0o077,
    )  # fmt: skip
    settings = data / "postgresql.conf"
    with settings.open("a", encoding="utf-8") as file:
        file.write(_CONFIGURATION.format(directory=directory, fsync="on" if durable else "off"))


def _start(
    directory: Path, data: Path, binaries: Path, account: str | None
) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [binaries / "postgres", "-D", data],
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
