"""`accounts`, which keeps the unix accounts of the agent's container."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "deploy/images/accounts"
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(os.geteuid() != 0, reason="gives files to other accounts"),
]


class Accounts:
    """The program, with files and homes below a directory of the test's."""

    def __init__(self, directory: Path) -> None:
        self.files, self.homes = directory / "files", directory / "homes"
        self.files.mkdir()
        self.homes.mkdir()
        text = SCRIPT.read_text("utf-8").replace("/var/lib/extrausers", str(self.files))
        self._program = directory / "accounts"
        self._program.write_text(text.replace('Path("/home")', f'Path("{self.homes}")'))

    def run(self, *arguments: str, said: str = "") -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-IS", str(self._program), *arguments]
        return subprocess.run(command, input=said, capture_output=True, text=True, check=False)

    def line(self, file: str, name: str) -> list[str]:
        lines = (self.files / file).read_text().splitlines()
        return next(line.split(":") for line in lines if line.startswith(f"{name}:"))


@pytest.fixture
def accounts(tmp_path: Path) -> Accounts:
    return Accounts(tmp_path)


def test_an_account_has_a_home_of_its_own_and_a_hashed_password(accounts: Accounts) -> None:
    assert accounts.run("add", "zoe", said="correct horse\n").returncode == 0
    assert accounts.line("passwd", "zoe")[2:4] == ["1000", "1000"]
    hashed = accounts.line("shadow", "zoe")[1]
    assert hashed.startswith("$y$")
    assert stat.S_IMODE((accounts.files / "shadow").stat().st_mode) == 0o600
    home = (accounts.homes / "zoe").stat()
    assert (home.st_uid, stat.S_IMODE(home.st_mode)) == (1000, 0o700)
    assert accounts.run("password", "zoe", said="battery staple\n").returncode == 0
    assert accounts.line("shadow", "zoe")[1] not in (hashed, "!")


def test_nobody_is_given_the_files_of_somebody_who_left(accounts: Accounts) -> None:
    accounts.run("add", "zoe", said="correct horse\n")
    assert accounts.run("remove", "zoe").returncode == 0
    accounts.run("add", "yan", said="correct horse\n")
    assert accounts.line("passwd", "yan")[2] == "1001"
    accounts.run("add", "zoe", said="correct horse\n")
    assert accounts.line("passwd", "zoe")[2] == "1000"


@pytest.mark.parametrize("name", ["root", "daemon", "Zoe", "z:e", "../z", "z" * 33, ""])
def test_other_names_are_refused(accounts: Accounts, name: str) -> None:
    done = accounts.run("add", name, said="correct horse\n")
    assert done.returncode == 1
    assert done.stderr.startswith("accounts: ")
    assert not (accounts.files / "passwd").exists()


def test_a_home_of_a_system_account_is_nobodys(accounts: Accounts) -> None:
    (accounts.homes / "zoe").mkdir()
    done = accounts.run("add", "zoe", said="correct horse\n")
    assert "belongs to uid 0" in done.stderr
    assert not (accounts.files / "passwd").exists()


def test_a_short_password_changes_nothing(accounts: Accounts) -> None:
    assert "8 characters" in accounts.run("add", "zoe", said="short\n").stderr
    assert not (accounts.files / "passwd").exists()


def test_the_demo_account_has_no_password_and_is_made_once(accounts: Accounts) -> None:
    for _ in range(2):
        assert accounts.run("demo").returncode == 0
    assert len((accounts.files / "passwd").read_text().splitlines()) == 1
    assert accounts.line("shadow", "carrel-demo")[1] == "!"
