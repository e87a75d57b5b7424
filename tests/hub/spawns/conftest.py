"""People with tokens, and the application they call."""

from hub.users.conftest import live, new_person

__all__ = ["live", "new_person"]
