"""Which host runs a server, and why, or what each lacks. Pure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

ANY, SHARED = "any", "shared-insecure"
"""What a host says of accounts: it runs every one, or everybody's servers as one of its own."""

Strategy = Literal["spread", "pack"]


@dataclass(frozen=True, slots=True)
class Needs:
    """What a server asks of its host.

    Attributes:
        account: The unix account it runs as; empty for somebody who has none, whose servers only a
            host runs that shares one account among all.
        labels: What the host must be labelled with.
        memory: Bytes that are kept free for it; `cores` and `gpus` likewise.
        last_host: Where its owner was last: homes may be there alone.
    """

    account: str
    labels: Mapping[str, str] = field(default_factory=dict)
    memory: int = 0
    cores: float = 0.0
    gpus: int = 0
    last_host: str | None = None


@dataclass(frozen=True, slots=True)
class Offer:
    """A host as placement sees it.

    Attributes:
        heard_seconds: How long ago it reported; None when it never has.
        silence_seconds: After how long it counts as away.
        trouble: Why nothing may be placed there, in plain words.
        accounts: Whose servers it runs.
        memory_available: As the host itself last said.
        reserved_memory: What is kept free there for other servers, running or on their way.
        servers: How many of these there are.
    """

    name: str
    heard_seconds: float | None = None
    silence_seconds: float = 35.0
    trouble: str = ""
    draining: bool = False
    accounts: str = ANY
    labels: Mapping[str, str] = field(default_factory=dict)
    cores: int = 1
    memory_total: int = 0
    memory_available: int = 0
    gpus: int = 0
    reserved_memory: int = 0
    reserved_cores: float = 0.0
    reserved_gpus: int = 0
    servers: int = 0

    @property
    def free_memory(self) -> int:
        """What is neither kept for others nor in use."""
        return min(self.memory_total - self.reserved_memory, self.memory_available)


@dataclass(frozen=True, slots=True)
class Placement:
    """The host that was chosen, or None, and the reason in plain words.

    Attributes:
        refused: What each host that was not fit lacked.
    """

    host: str | None
    reason: str
    refused: Mapping[str, str] = field(default_factory=dict)


def place(needs: Needs, offers: Sequence[Offer], strategy: Strategy = "spread") -> Placement:
    """Choose a host: where its owner was last, else by the strategy, among those that fit."""
    if not offers:
        return Placement(None, "no host is configured to run servers")
    refused = {offer.name: lack for offer in offers if (lack := lacking(needs, offer))}
    fit = [offer for offer in offers if offer.name not in refused]
    if not fit:
        each = "; ".join(f"host {name} {lack}" for name, lack in refused.items())
        return Placement(None, each, refused)
    if any(offer.name == needs.last_host for offer in fit):
        return Placement(needs.last_host, "its owner's servers were there before", refused)
    if strategy == "pack":
        chosen = min(fit, key=lambda one: (-_fullness(one), one.free_memory, one.name))
        reason = "the fullest host with room"
    else:
        chosen = min(fit, key=lambda one: (_fullness(one), -one.free_memory, one.name))
        reason = "the fewest servers for each core"
    return Placement(chosen.name, reason if len(fit) > 1 else "the one host with room", refused)


def lacking(needs: Needs, offer: Offer) -> str:
    """Return why a host does not fit, in words that follow its name; empty when it does."""
    if offer.heard_seconds is None:
        return "has not reported yet"
    if offer.heard_seconds > offer.silence_seconds:
        return f"has not been heard for {int(offer.heard_seconds)} seconds"
    if offer.draining:
        return "is draining"
    if offer.trouble:
        return f"takes no servers: {offer.trouble}"
    return _lacks_account(needs.account, offer.accounts) or "; ".join(_shortages(needs, offer))


def _lacks_account(account: str, accounts: str) -> str:
    if not account and accounts != SHARED:
        return "runs servers of unix accounts only"
    if accounts not in (ANY, SHARED, account):
        return f"runs servers of the account {accounts!r} only, not {account!r}"
    return ""


def _shortages(needs: Needs, offer: Offer) -> list[str]:
    found = []
    for name, value in needs.labels.items():
        if (has := offer.labels.get(name)) != value:
            said = f"has {name}={has}" if has is not None else f"has no label {name}"
            found.append(f"{said}, not {name}={value}")
    if needs.memory > offer.free_memory:
        free = max(offer.free_memory, 0)
        found.append(f"has {_mebibytes(free)} of memory free, not {_mebibytes(needs.memory)}")
    free_cores = offer.cores - offer.reserved_cores
    if needs.cores > free_cores + 1e-9:
        found.append(f"has {max(free_cores, 0):g} cores free, not {needs.cores:g}")
    free_gpus = offer.gpus - offer.reserved_gpus
    if needs.gpus > free_gpus:
        found.append(f"has {max(free_gpus, 0)} GPUs free, not {needs.gpus}")
    return found


def _fullness(offer: Offer) -> float:
    return offer.servers / max(offer.cores, 1)


def _mebibytes(size: int) -> str:
    return f"{size / (1 << 20):.0f} MiB"
