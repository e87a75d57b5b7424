"""Hubs to do harm to: by their API, and by their pages."""

from hub.users.conftest import live, new_person
from hub.web.conftest import site

__all__ = ["live", "new_person", "site"]
