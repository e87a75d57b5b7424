"""Settings are refused whole, with the key and the line, before anything starts."""

import tomllib
from pathlib import Path
from typing import ClassVar

import pytest
from pydantic import BaseModel, ConfigDict, Field, SecretStr
from pydantic_settings import SettingsConfigDict

from carrel_shared.settings import (
    ServiceSettings,
    SettingsError,
    generate_config,
    load_settings,
)


class Nested(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    names: list[str] = Field(default=[], description="Names.")


class Sample(ServiceSettings):
    table: ClassVar[str] = "hub"
    model_config = SettingsConfigDict(env_prefix="SAMPLE__")

    port: int = Field(default=8000, ge=1, description="The port.")
    key: SecretStr = Field(default=SecretStr("s3cret"), description="A key.")
    nested: Nested = Field(default=Nested(), description="More.")


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "carrel.toml"
    path.write_text(text)
    return path


def test_reads_its_own_table_and_leaves_the_others(tmp_path: Path) -> None:
    path = write(tmp_path, '[proxy]\nanything = 1\n[hub]\nport = 9\n[hub.nested]\nnames = ["a"]\n')
    settings = load_settings(Sample, path, {})
    assert (settings.port, settings.nested.names) == (9, ["a"])


def test_the_environment_wins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAMPLE__PORT", "10")
    monkeypatch.setenv("SAMPLE__NESTED__NAMES", '["b"]')
    settings = load_settings(Sample, write(tmp_path, "[hub]\nport = 9\n"), {})
    assert (settings.port, settings.nested.names) == (10, ["b"])


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("[hub]\n\nprot = 1\n", r":3: hub\.prot"),
        ("[hub]\nport = 0\n", r":2: hub\.port"),
        ("[hub.nested]\nnames = []\nextra = 1\n", r":3: hub\.nested\.extra"),
        ("[hubb]\nport = 1\n", r":1: unknown table or key 'hubb'"),
        ("port = 1\n", r":1: unknown table or key 'port'"),
        ("[hub\n", "line 1"),
    ],
)
def test_a_problem_is_named_with_its_place(tmp_path: Path, text: str, place: str) -> None:
    with pytest.raises(SettingsError, match=place):
        load_settings(Sample, write(tmp_path, text), {})


def test_every_problem_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(SettingsError) as caught:
        load_settings(Sample, write(tmp_path, "[hub]\nport = 0\nprot = 1\n"), {"SAMPLE__PRT": "1"})
    assert len(str(caught.value).splitlines()) == 3


def test_a_missing_file_is_told_plainly(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="No such file"):
        load_settings(Sample, tmp_path / "none.toml", {})


def test_a_variable_nobody_knows_is_an_error() -> None:
    with pytest.raises(SettingsError, match="SAMPLE__PROT"):
        load_settings(Sample, None, {"SAMPLE__PROT": "1", "OTHER": "x"})


def test_the_generated_file_is_valid_and_holds_no_secret() -> None:
    text = generate_config(Sample)
    assert "s3cret" not in text
    live = "\n".join(line.removeprefix("# ") for line in text.splitlines() if "=" in line)
    assert tomllib.loads(f"[hub]\n{live}")["hub"]["port"] == 8000
    assert "The port." in text
