"""Whose the environment must be that servers are forked from."""

import os
import pwd
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_agent.zygote.trust import distrust, is_installed
from support.accounts import temporary_account


@pytest.fixture
def python(tmp_path: Path) -> Path:
    """An environment of one's own, as far as that is looked at."""
    site = tmp_path / "env/lib/python3.11/site-packages"
    (site / "package").mkdir(parents=True)
    (tmp_path / "env/bin").mkdir()
    (tmp_path / "elsewhere/src").mkdir(parents=True)
    (site / "editable.pth").write_text(f"import os\n{tmp_path}/elsewhere/src\n")
    python = tmp_path / "env/bin/python"
    python.symlink_to("python3")
    (tmp_path / "env/bin/python3").symlink_to(sys.executable)
    return python


def test_what_runs_here_is_trusted(python: Path) -> None:
    assert distrust(sys.executable) is None
    assert distrust(str(python)) is None


@pytest.mark.parametrize(
    "place",
    [
        "env",
        "env/bin",
        "env/lib/python3.11/site-packages",
        "env/lib/python3.11/site-packages/package",
        "env/lib/python3.11/site-packages/editable.pth",
        "elsewhere",
        "elsewhere/src",
    ],
)
def test_what_everybody_can_write_is_not(python: Path, tmp_path: Path, place: str) -> None:
    (tmp_path / place).chmod(0o777)
    assert distrust(str(python)) == f"{tmp_path / place} can be written by everybody"


def test_a_link_is_followed(python: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("env")
    (tmp_path / "env/lib").chmod(0o777)
    through = tmp_path / "link/bin/python"
    assert distrust(str(through)) == f"{tmp_path}/link/lib can be written by everybody"
    assert python.exists()


def test_in_a_sticky_directory_nobody_replaces_what_is_anothers(
    python: Path, tmp_path: Path
) -> None:
    (tmp_path / "elsewhere").chmod(0o1777)
    assert distrust(str(python)) is None


@pytest.fixture
def somebody() -> Iterator[pwd.struct_passwd]:
    with temporary_account("trust") as made:
        yield pwd.getpwnam(made.name)


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="files are given to other accounts")
def test_owners_and_groups_are_looked_at_unless_they_are_trusted(
    python: Path, tmp_path: Path, somebody: pwd.struct_passwd
) -> None:
    name = somebody.pw_name
    package = tmp_path / "env/lib/python3.11/site-packages/package"
    os.chown(package, somebody.pw_uid, -1)
    assert distrust(str(python)) == f"{package} belongs to {name}"
    assert distrust(str(python), [name, "nobody-at-all"]) is None
    os.chown(package, 0, somebody.pw_gid)
    package.chmod(0o775)
    assert distrust(str(python)) == f"{package} can be written by its group, in which {name} is"
    assert distrust(str(python), [name]) is None
    package.chmod(0o755)
    assert distrust(str(python)) is None


def test_only_what_is_installed_is_loaded_on_the_hubs_word(python: Path) -> None:
    assert is_installed(str(python), "package.part")
    assert is_installed(str(python), "json")
    assert not is_installed(str(python), "elsewhere")
    assert is_installed(sys.executable, "tornado.web")
