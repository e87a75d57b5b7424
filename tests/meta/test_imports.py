"""Services import only themselves and the common library; pure packages import no I/O."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {
    "carrel_shared": ROOT / "shared/src",
    "carrel_hub": ROOT / "services/hub/src",
    "carrel_proxy": ROOT / "services/proxy/src",
    "carrel_agent": ROOT / "services/spawner-agent/src",
}
IO_MODULES = {"asyncio", "fastapi", "starlette", "httpx", "sqlmodel", "sqlalchemy", "uvicorn"}


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


@pytest.mark.parametrize("package", SOURCES)
def test_a_service_imports_no_other_service(package: str) -> None:
    others = set(SOURCES) - {package, "carrel_shared"}
    strays = [
        (str(path.relative_to(ROOT)), name)
        for path in (SOURCES[package] / package).rglob("*.py")
        for name in imports(path)
        if name.split(".")[0] in others
    ]
    assert strays == []


@pytest.mark.parametrize(
    "place",
    [
        "services/proxy/src/carrel_proxy/core",
        "services/hub/src/carrel_hub/rbac",
        "services/hub/src/carrel_hub/spawns/states.py",
        "services/hub/src/carrel_hub/spawns/placement.py",
        "services/hub/src/carrel_hub/routing/desired.py",
        "services/spawner-agent/src/carrel_agent/supervise/states.py",
        "shared/src/carrel_shared/wire",
    ],
)
def test_what_decides_does_no_io(place: str) -> None:
    path = ROOT / place
    assert path.exists(), f"{place} has moved: name its new place here"
    files = [path] if path.is_file() else list(path.rglob("*.py"))
    strays = [
        (file.name, name)
        for file in files
        for name in imports(file)
        if name.split(".")[0] in IO_MODULES
    ]
    assert strays == []


def test_the_process_layer_imports_the_standard_library_alone() -> None:
    """The keeper runs it without site-packages, as root, between fork and user."""
    import sys

    folder = ROOT / "services/spawner-agent/src/carrel_agent/process"
    strays = [
        (file.name, name)
        for file in folder.glob("*.py")
        for name in imports(file)
        if name.split(".")[0] not in sys.stdlib_module_names
        and not name.startswith("carrel_agent.process")
    ]
    assert strays == []
