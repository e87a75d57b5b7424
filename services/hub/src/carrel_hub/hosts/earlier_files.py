"""An authority in `STATE/fleet`, where hubs kept it before it was in the database."""

import os
import stat
from pathlib import Path

from carrel_hub.hosts.opened import AuthorityError
from carrel_hub.hosts.sealing import AuthorityKeys

_PRIVATE = ("ca.key", "hosts.key")
_ASIDE = ".taken-over"


def read_earlier(directory: Path) -> AuthorityKeys | None:
    """Return the authority of a directory; None where no key is.

    Raises:
        AuthorityError: It cannot be read, is not whole, or others can read it.
    """
    paths = [directory / name for name in (*_PRIVATE, "ca.pem")]
    try:
        if not all(path.exists() for path in paths):
            return None
        for path in paths[:2]:
            status = path.stat()
            if status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077:
                raise AuthorityError(
                    f"{path}: others may have read this key; remove {directory} and have every host"
                    " join anew"
                )
        private, hosts, certificate = (path.read_bytes() for path in paths)
        return AuthorityKeys(certificate.decode("ascii"), private, hosts)
    except OSError as error:
        raise AuthorityError(f"{directory}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise AuthorityError(f"{directory}: ca.pem is damaged; restore it from a backup") from error


def set_aside(directory: Path) -> None:
    """Rename the keys, now that the database has them: no hub reads them any more.

    Raises:
        OSError: They cannot be renamed.
    """
    for name in _PRIVATE:
        if (path := directory / name).exists():
            path.rename(path.with_name(f"{name}{_ASIDE}"))
