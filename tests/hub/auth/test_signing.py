"""The signing key and what it vouches for."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from carrel_hub.auth.signing import KEY_FILE, Signer, SigningKeyError


@pytest.fixture
def directory() -> Iterator[Path]:
    made = Path(tempfile.mkdtemp(prefix="csign"))
    yield made
    shutil.rmtree(made)


def test_the_key_is_made_once_and_is_the_hubs_alone(directory: Path) -> None:
    signed = Signer.load(directory).sign("login", "value")
    assert (directory / KEY_FILE).stat().st_mode & 0o777 == 0o600
    assert Signer.load(directory).verify("login", signed) == "value"


def test_a_signature_holds_for_its_value_and_purpose_only(directory: Path) -> None:
    signer = Signer.load(directory)
    signed = signer.sign("login", "value")
    assert signer.verify("other", signed) is None
    for wrong in (
        signed + "x", signed[:-1], "value", "", ".", "value.", f"other.{signed[6:]}", "é.é",
        signed[1:],
    ):  # fmt: skip
        assert signer.verify("login", wrong) is None
    assert Signer(b"x" * 32).verify("login", signed) is None


def test_parts_do_not_run_into_each_other(directory: Path) -> None:
    signer = Signer.load(directory)
    assert signer.mac("p", "ab", "c") != signer.mac("p", "a", "bc")


def test_a_key_that_others_can_read_is_refused(directory: Path) -> None:
    Signer.load(directory)
    (directory / KEY_FILE).chmod(0o640)
    with pytest.raises(SigningKeyError, match="rename it"):
        Signer.load(directory)


def test_a_damaged_key_is_refused(directory: Path) -> None:
    (directory / KEY_FILE).touch(0o600)
    with pytest.raises(SigningKeyError, match="damaged"):
        Signer.load(directory)


def test_a_directory_that_is_away_is_named(directory: Path) -> None:
    with pytest.raises(SigningKeyError, match="missing"):
        Signer.load(directory / "missing")
