"""Who may read the whole history."""

from carrel_hub.errors import ForbiddenError
from carrel_hub.rbac import Actor, is_administrator
from carrel_hub.rbac.decisions import NO_CREDENTIALS


def require_audit(actor: Actor) -> None:
    """Refuse everybody but administrators: it tells of everybody's sign-ins and tokens.

    Raises:
        ForbiddenError: It is somebody else.
    """
    if actor.is_anonymous:
        raise ForbiddenError(NO_CREDENTIALS)
    if not is_administrator(actor):
        raise ForbiddenError("The whole history is for administrators")
