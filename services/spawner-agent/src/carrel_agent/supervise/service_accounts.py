"""Which account a managed service runs as: one that its settings name, and never one of ours.

A service holds a token that may do more than any user, so it shares no account with servers that
people have, and none that may connect to them.
"""

from carrel_agent.errors import AccountRefusedError
from carrel_agent.supervise.accounts import Account, Accounts, account_name, look_up_account
from carrel_shared.wire.servers import ServerSpec

LOWEST_UID = 1


class WithServices:
    """Accounts of servers as they are, and those of services by their own rules.

    Args:
        servers: Whose account servers run as.
        shared: The account that everybody's servers run as, where there is one.
        connecting: The group of hub and proxy.
        own_uid: The agent's.
    """

    def __init__(
        self, servers: Accounts, *, shared: str | None, connecting: int | None, own_uid: int
    ) -> None:
        self._servers = servers
        self._shared = shared
        self._connecting = connecting
        self._own_uid = own_uid

    @property
    def reported(self) -> str:
        """What the hub is told of servers' accounts."""
        return self._servers.reported

    async def find(self, spec: ServerSpec) -> Account:
        """Return the account that a server or a service is to run as."""
        if spec.kind == "notebook":
            return await self._servers.find(spec)
        own_uid, name = self._own_uid, spec.account
        if not name:
            if own_uid == 0:
                raise AccountRefusedError(
                    f"the service {spec.user!r} names no account: say in its settings as which"
                    " `user` it runs"
                )
            name = account_name(own_uid)
        if name == self._shared:
            raise AccountRefusedError(
                f"{name!r} runs everybody's servers, so whoever has one could read the token of the"
                f" service {spec.user!r}; give it an account of its own"
            )
        account = await look_up_account(name, own_uid=own_uid, min_uid=LOWEST_UID)
        if own_uid == 0 and self._connecting in (account.gid, *account.groups):
            raise AccountRefusedError(
                f"{name!r} may connect to everybody's servers, as hub and proxy do; give the"
                f" service {spec.user!r} another account"
            )
        return account
