"""Each wheel, installed alone in a clean environment, brings what it imports."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PLACES = {
    "carrel-shared": "shared",
    "carrel-hub": "services/hub",
    "carrel-proxy": "services/proxy",
    "carrel-agent": "services/spawner-agent",
}
NEEDS_JUPYTERLAB = ("carrel_agent.zygote", "carrel_agent.process.exec_config")
IMPORT_ALL = """
import importlib, pkgutil, sys
package = importlib.import_module(sys.argv[1])
for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
    if not module.name.startswith(tuple(sys.argv[2:])):
        importlib.import_module(module.name)
        print(module.name)
"""


def uv(*arguments: str) -> None:
    command = [str(Path(sys.executable).with_name("uv")), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheels")
    for place in PLACES.values():
        uv("build", "-q", "--wheel", "--no-build-isolation", "--python", sys.executable,
           "--out-dir", str(folder), place)  # fmt: skip
    return folder


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", PLACES)
def test_a_wheel_alone_imports_whole(name: str, wheels: Path, tmp_path: Path) -> None:
    venv = tmp_path / "venv"
    python = str(venv / "bin/python")
    uv("venv", "-q", "--python", sys.executable, str(venv))
    uv("pip", "install", "-q", "--python", python, "-c", "constraints.txt",
       "--find-links", str(wheels), name)  # fmt: skip
    module = name.replace("-", "_")
    done = subprocess.run(
        [python, "-I", "-W", "error", "-W", "ignore::DeprecationWarning:passlib", "-c", IMPORT_ALL,
         module, f"{module}.db.migrations", *NEEDS_JUPYTERLAB],
        capture_output=True,
        text=True,
        check=False,
        env={"PATH": os.environ["PATH"]},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("\n") > 5
