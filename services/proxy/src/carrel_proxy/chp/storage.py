"""`--storage-backend file:PATH`: the routes in a file, so that they outlive the proxy.

A journal: all routes, then one record for each change. A change is on disk before it is answered.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from carrel_proxy.control.journal import Journal
from carrel_proxy.process.crew import CrewError

Routes = dict[str, dict[str, Any]]


class RouteFile:
    """The file. One process writes it."""

    def __init__(self, path: Path) -> None:
        self._journal = Journal(path)
        self._writing = asyncio.Lock()

    def load(self) -> Routes:
        """Return the routes, as far as the file can be read."""
        records = [json.loads(record) for record in self._journal.read()]
        routes: Routes = records[0] if records else {}
        for change in records[1:]:
            if change["data"] is None:
                routes.pop(change["key"], None)
            else:
                routes[change["key"]] = change["data"]
        return routes

    async def write(
        self, key: str, data: dict[str, Any] | None, routes: Callable[[], Routes]
    ) -> None:
        """Write a change; back when it is on disk.

        Args:
            data: The route; None for one that was deleted.
            routes: Returns all that are in force, for when the file is written anew.

        Raises:
            CrewError: If it cannot be written.
        """
        journal = self._journal
        async with self._writing:
            try:
                if journal.is_broken or journal.is_overgrown:
                    await asyncio.to_thread(journal.replace, json.dumps(routes()).encode())
                else:
                    change = json.dumps({"key": key, "data": data}).encode()
                    await asyncio.to_thread(journal.append, [change])
            except OSError as error:
                reason = error.strerror or str(error)
                raise CrewError(f"{journal.path}: {reason}") from error
