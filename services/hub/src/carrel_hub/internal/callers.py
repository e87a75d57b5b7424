"""Who calls: `ServiceGate` has proved a caller's name; each endpoint says which it is for."""

from fastapi import Request

from carrel_hub.errors import ForbiddenError


def require_caller(request: Request, expected: str) -> None:
    """Refuse a service that calls what is another's, as an agent that reports for its neighbour.

    Args:
        expected: `agent:NAME`, `proxy:NAME` or `console`.

    Raises:
        ForbiddenError: Somebody else's key was shown.
    """
    caller = request.scope.get("state", {}).get("caller", "")
    if caller != expected:
        raise ForbiddenError(f"the key of {caller!r} does not open this: it is for {expected!r}")
