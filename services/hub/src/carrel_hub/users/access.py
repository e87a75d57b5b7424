"""Who may call an endpoint that any of several scopes opens, and who may touch whom."""

from carrel_hub.db.models import User
from carrel_hub.errors import ForbiddenError
from carrel_hub.rbac import Actor, authorise_any, is_administrator

require_any = authorise_any


def refuse_over_admins(actor: Actor, user: User, what: str) -> None:
    """Refuse to let anybody but an administrator change an administrator.

    Args:
        what: What is asked for, as it reads after "may".

    Raises:
        ForbiddenError: `user` is an administrator and `actor` is none.
    """
    if user.admin and not is_administrator(actor):
        raise ForbiddenError(f"Only an administrator may {what} an administrator")


def refuse_new_admins(actor: Actor) -> None:
    """Refuse to let anybody make an administrator who has not every right of one.

    Raises:
        ForbiddenError: `actor` has not.
    """
    if not is_administrator(actor):
        raise ForbiddenError("Only an administrator may make somebody an administrator")
