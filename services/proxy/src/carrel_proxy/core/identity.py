"""What Carrel's own certificates say about who holds them: one URI, no names or addresses.

A relay's certificate says which host it is, an edge's that it is an edge. The authority that both
know issues them. A certificate that says two things is refused, as all is that can be read in two
ways.
"""

from collections.abc import Iterable, Mapping
from typing import Any

EDGE = "carrel://role/edge"
"""In the certificate of a proxy that people reach: relays take requests from nobody else."""

_OURS = "carrel://"


def host_identity(host_id: str) -> str:
    """Return what the certificate of a host's relay says."""
    return f"carrel://host/{host_id}"


def identities(certificate: Mapping[str, Any] | None) -> frozenset[str]:
    """Return what a verified certificate says in our words.

    Args:
        certificate: As `ssl.SSLSocket.getpeercert` has it; None or empty without one.
    """
    names: Iterable[tuple[str, str]] = (certificate or {}).get("subjectAltName", ())
    return frozenset(
        value for kind, value in names if kind == "URI" and value.lower().startswith(_OURS)
    )


def is_identity(certificate: Mapping[str, Any] | None, expected: str) -> bool:
    """Whether a verified certificate says this, and nothing else."""
    return identities(certificate) == {expected}
