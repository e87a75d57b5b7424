"""Who may call an endpoint that any of several scopes opens, and who may touch whom."""

from collections.abc import Iterable

from carrel_hub.db.models import User
from carrel_hub.errors import ForbiddenError
from carrel_hub.rbac import (
    Actor,
    RoleBook,
    authorise_any,
    expand,
    is_administrator,
    is_within,
    resolve,
)

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


def refuse_to_raise(actor: Actor, granted: Iterable[str], name: str) -> None:
    """Refuse to let anybody give, by a name or a group, rights that they do not have.

    Args:
        granted: What the roles hold that the name or the group has in the settings, and what is
            shared with the group.
        name: Who would get it.

    Raises:
        ForbiddenError: Some of it is more than `actor` may do.
    """
    if not is_within(expand(resolve(granted, name)), actor.scopes, actor.members):
        raise ForbiddenError(
            f"That would give {name} rights you do not have, by a role in the hub's settings or by"
            " what is shared with a group"
        )


def refuse_spoken_name(actor: Actor, book: RoleBook, name: str) -> None:
    """Refuse to let anybody but an administrator give somebody a name that roles speak of.

    Whoever has such a role would have it over somebody else from then on.

    Raises:
        ForbiddenError: `name` is one, and `actor` is no administrator.
    """
    if book.speaks_of(name) and not is_administrator(actor):
        raise ForbiddenError(
            f"A role in the hub's settings is about {name}; only an administrator may give"
            " somebody that name"
        )
