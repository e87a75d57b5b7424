"""One hub on one SQLite database: a lock that lives as long as its process."""

import fcntl
import os
from pathlib import Path
from types import TracebackType

NETWORK_FILE_SYSTEMS = frozenset(
    {
        *("nfs", "nfs4", "cifs", "smb3", "smbfs", "ncpfs", "afs", "ceph", "lustre", "gpfs"),
        *("beegfs", "glusterfs", "fuse.glusterfs", "fuse.sshfs", "fuse.s3fs", "gfs2", "ocfs2"),
    }
)
"""Where several machines can have a file open, and neither locks nor shared memory hold."""

MOUNTS = Path("/proc/self/mountinfo")


class AnotherHubError(Exception):
    """Another hub has the database, or could have without anybody noticing; the message says so."""


class HubLock:
    """Holds the lock of an SQLite database between `with` and its end, or the process's.

    Args:
        database: The database's file. The lock lies beside it, whatever state directory the hub
            has.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._path = database.with_name(f"{database.name}.lock")
        self._descriptor: int | None = None

    def __enter__(self) -> "HubLock":
        """Take the lock.

        Raises:
            AnotherHubError: Somebody has it, or the file cannot be made, or is on a network.
        """
        refuse_network(self._database.parent)
        try:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise AnotherHubError(f"{self._path}: {error.strerror}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
            os.close(descriptor)
            named = f" (process {holder})" if holder.isdigit() else ""
            raise AnotherHubError(
                f"another hub{named} uses the database {self._database}: stop it first;"
                " SQLite is for one hub, several need PostgreSQL"
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


def refuse_network(directory: Path, mounts: Path = MOUNTS) -> None:
    """Refuse a directory that other machines can write to as well.

    Raises:
        AnotherHubError: It is on a network file system.
    """
    kind = file_system_of(directory, mounts)
    if kind in NETWORK_FILE_SYSTEMS:
        raise AnotherHubError(
            f"{directory} is on a network file system ({kind}), where SQLite loses data: set"
            " hub.database_url to a path on a local disk, or to PostgreSQL"
        )


def file_system_of(directory: Path, mounts: Path = MOUNTS) -> str:
    """Return what kind of file system a directory is on; nothing when that cannot be told.

    The mount that counts is the one with the longest path, and of equals the latest (proc(5)).
    """
    try:
        lines = mounts.read_text(encoding="utf-8", errors="surrogateescape").splitlines()
        wanted = directory.resolve()
    except OSError:
        return ""
    best, kind = -1, ""
    for line in lines:
        fields, dash, rest = line.partition(" - ")
        parts = fields.split()
        if not dash or len(parts) < 5:
            continue
        point = Path(parts[4].replace(r"\040", " ").replace(r"\134", "\\"))
        if wanted.is_relative_to(point) and len(point.parts) >= best:
            best, kind = len(point.parts), rest.split()[0]
    return kind
