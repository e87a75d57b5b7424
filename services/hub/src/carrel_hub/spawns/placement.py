"""Which host runs a server. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from carrel_hub.db.models import AgentHost

ANY, SHARED = "any", "shared-insecure"
"""What a host says of accounts: it runs every one, or everybody's servers as one of its own."""


@dataclass(frozen=True, slots=True)
class Placement:
    """The host that was chosen, or why there is none, in plain words."""

    host: str | None
    reason: str = ""


def place(
    account: str,
    hosts: Sequence[AgentHost],
    configured: Sequence[str],
    *,
    now: datetime,
    silence: timedelta,
) -> Placement:
    """Choose the host with most free memory among those that can run `account` and are heard.

    Args:
        account: The unix account the server runs as; empty for somebody who has none, whose
            servers only a host runs that shares one account among all.
        hosts: What the agents last reported.
        configured: The agents the hub may call; a host that only reports is not one.
        silence: A host that was not heard for this long is not chosen.
    """
    if not configured:
        return Placement(None, "no host is configured to run servers")
    known = {host.name: host for host in hosts}
    fit: list[AgentHost] = []
    reasons: list[str] = []
    for name in configured:
        host = known.get(name)
        if host is None or host.seen_at is None:
            reasons.append(f"host {name} has not reported yet")
        elif now - host.seen_at > silence:
            away = int((now - host.seen_at).total_seconds())
            reasons.append(f"host {name} has not been heard for {away} seconds")
        elif not account and host.accounts != SHARED:
            reasons.append(f"host {name} runs servers of unix accounts only")
        elif host.accounts not in (ANY, SHARED, account):
            reasons.append(
                f"host {name} runs servers of the account {host.accounts!r} only, not {account!r}"
            )
        else:
            fit.append(host)
    if not fit:
        return Placement(None, "; ".join(reasons))
    return Placement(max(fit, key=_free_memory).name)


def _free_memory(host: AgentHost) -> float:
    value = host.capacity.get("memory_available", 0)
    return float(value) if isinstance(value, int | float) else 0.0
