"""Whose files root imports for everybody."""

import importlib
import os
import pwd
import py_compile
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from carrel_agent.zygote.guard import only_written_by
from support.accounts import temporary_account

OURS = frozenset({0, os.geteuid()})
Change = Callable[[Path], None]


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with a module deep inside, on the path."""
    package = tmp_path / "carrel_guarded"
    (package / "deep").mkdir(parents=True)
    for file in ("__init__.py", "deep/__init__.py", "deep/module.py"):
        (package / file).write_text("")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield package
    for name in [name for name in sys.modules if name.startswith("carrel_guarded")]:
        del sys.modules[name]


def imported() -> None:
    importlib.import_module("carrel_guarded.deep.module")


def test_what_is_ones_own_is_imported_and_the_guard_goes(package: Path) -> None:
    finders = list(sys.meta_path)
    with only_written_by(OURS):
        imported()
    assert sys.meta_path == finders


@pytest.mark.parametrize("place", [".", "__init__.py", "deep", "deep/module.py"])
def test_what_everybody_can_write_is_not_imported(package: Path, place: str) -> None:
    (package / place).chmod(0o777)
    with only_written_by(OURS), pytest.raises(ImportError, match="written by everybody"):
        imported()
    imported()  # by a server, whose owner may


def test_bytecode_is_looked_at_as_well(package: Path) -> None:
    bytecode = Path(str(py_compile.compile(str(package / "deep/module.py"), doraise=True)))
    bytecode.chmod(0o666)
    with only_written_by(OURS), pytest.raises(ImportError, match="pyc can be written"):
        imported()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to other accounts")
def test_what_is_anothers_is_not_imported_unless_they_are_trusted(package: Path) -> None:
    with temporary_account("guard") as made:
        uid = pwd.getpwnam(made.name).pw_uid
        os.chown(package / "deep/module.py", uid, -1)
        with only_written_by(OURS), pytest.raises(ImportError, match=f"belongs to uid {uid}"):
            imported()
        with only_written_by(OURS | {uid}):
            imported()
