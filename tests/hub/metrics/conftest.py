"""People with tokens, the application they call, and a site to visit."""

from hub.users.conftest import live, new_person
from hub.web.conftest import site

__all__ = ["live", "new_person", "site"]
