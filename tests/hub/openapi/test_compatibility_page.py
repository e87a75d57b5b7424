"""docs/compatibility.md names every endpoint there is, and none that is not."""

import re
from pathlib import Path

import pytest
from hub.route_walk import build_apps, routes
from hub.world import World

PAGE = Path(__file__).parents[3] / "docs/compatibility.md"
API = "/hub/api"
_ROW = re.compile(r"^\| (?P<paths>`[^|]*) \| (?P<methods>[A-Z, ]+) \|", re.MULTILINE)
_PARAMETER = re.compile(r"\{[^}]*\}|\b[A-Z]+\b")


def plain(path: str) -> str:
    """Return a path with one word for whatever stands for something."""
    return _PARAMETER.sub("*", path)


def named() -> set[tuple[str, str]]:
    """Return what the table of endpoints names."""
    [table] = re.findall(r"^## Every endpoint\n(.*?)^## ", PAGE.read_text(), re.MULTILINE | re.S)
    return {
        (method, plain(path.strip("`")))
        for row in _ROW.finditer(table)
        for path in re.split(r", | and ", row["paths"])
        for method in row["methods"].split(", ")
    }


async def test_every_endpoint_has_its_row(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    apps, _, _ = build_apps(world.hub, monkeypatch)
    found = {
        (method, plain(path.removeprefix(API)))
        for app in apps
        for method, path in routes(app)
        if path == API or path.startswith(f"{API}/")
    }
    assert len(found) > 90, "the walk does not find the routes"
    assert found - named() == set(), "these have no row"
    assert named() - found == set(), "these are gone"


def test_every_table_that_is_referred_to_is_there() -> None:
    text = PAGE.read_text()
    tables = set(re.findall(r"^## (.*)$", text, re.MULTILINE))
    for reference in re.findall(r"\bsee ([A-Z][a-zA-Z ]+?)(?:;| \|)", text):
        assert reference in tables, reference
