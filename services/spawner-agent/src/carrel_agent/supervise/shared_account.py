"""One account for everybody's servers, with a home folder for each name.

For workshops and tests, where nobody has an account of their own. Servers are not protected from
each other: that is why only the agent's own settings can ask for it, and why they call it insecure.
"""

import asyncio
import os
import stat
from pathlib import Path
from urllib.parse import quote

import structlog

from carrel_agent.errors import AccountRefusedError, SetupError
from carrel_agent.supervise.accounts import Account, look_up_account
from carrel_shared.wire.servers import ServerSpec

log = structlog.get_logger(__name__)

REPORTED = "shared-insecure"
PLACE_OF_NAME = "{username}"


class SharedAccount:
    """Runs every server as one account.

    Args:
        account: Which one.
        homes: The path of a home folder, with `{username}` in its last part.
    """

    reported = REPORTED

    def __init__(self, account: Account, homes: str) -> None:
        self._account = account
        self._homes = homes

    @classmethod
    async def open(cls, name: str, homes: str, *, min_uid: int) -> "SharedAccount":
        """Look the account up.

        Raises:
            SetupError: It cannot run servers, or there is none.
        """
        try:
            account = await look_up_account(name, own_uid=os.geteuid(), min_uid=min_uid)
        except AccountRefusedError as error:
            raise SetupError(f"shared_account: {error}") from error
        log.warning(
            "accounts_shared",
            account=name,
            advice="whoever has a server on this host can read what the others have",
        )
        return cls(account, homes)

    async def find(self, spec: ServerSpec) -> Account:
        """Return the account, at home in the folder of that user's name, made if need be."""
        home = Path(self._homes.replace(PLACE_OF_NAME, _folder_of(spec.user)))
        await asyncio.to_thread(self._make_home, home)
        mine = self._account
        return Account(mine.name, mine.uid, mine.gid, mine.groups, str(home), mine.shell)

    def _make_home(self, home: Path) -> None:
        try:
            self._make(home)
        except OSError as error:
            raise AccountRefusedError(
                f"the home folder {home} cannot be made: {error.strerror}"
            ) from error

    def _make(self, home: Path) -> None:
        parent = home.parent
        if not parent.exists():
            parent.mkdir(parents=True)
            parent.chmod(0o711)
        found = parent.stat()
        if found.st_mode & stat.S_IWOTH or found.st_uid not in (os.geteuid(), 0):
            raise AccountRefusedError(
                f"{parent} can be written by others, so no home folders are made in it"
            )
        try:
            home.mkdir(mode=0o700)
            made = True
        except FileExistsError:
            made = False
        descriptor = os.open(home, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            if made and os.geteuid() == 0:
                os.fchown(descriptor, self._account.uid, self._account.gid)
            if os.fstat(descriptor).st_uid != self._account.uid:
                raise AccountRefusedError(f"{home} does not belong to {self._account.name!r}")
        finally:
            os.close(descriptor)


def _folder_of(user: str) -> str:
    """Return a name as one part of a path that is hidden from nobody and leads nowhere else."""
    name = quote(user, safe="@ ")
    return f"%2E{name[1:]}" if name.startswith(".") else name
