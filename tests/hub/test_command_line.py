"""What the command line says when something is wrong: the place, and what to do."""

import sqlite3
import stat
from pathlib import Path

import pytest
from hub.processes import Installation, installation

from carrel_hub.cli import main
from carrel_hub.singleton import AnotherHubError, refuse_network


def test_generate_config_names_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    from carrel_hub.settings import HubSettings

    assert main(["--generate-config"]) == 0
    text = capsys.readouterr().out
    assert text.startswith("[hub]")
    assert all(f"# {name} = " in text for name in HubSettings.model_fields)


def test_settings_errors_name_key_and_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "carrel.toml"
    config.write_text('[hub]\nlisten = "nowhere"\nlistten = "x"\n', encoding="utf-8")
    assert main(["--config", str(config), "serve"]) == 78
    error = capsys.readouterr().err
    assert f"{config}:2: hub.listen: " in error
    assert f"{config}:3: hub.listten: " in error
    assert "hub.state_dir" in error
    assert "Traceback" not in error


def test_short_keys_are_refused_by_name(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tmp_path / "carrel.toml"
    config.write_text(
        f"""[hub]
listen = "unix:/tmp/a"
internal_listen = "unix:/tmp/b"
state_dir = "{tmp_path}/state"
agents = [{{name = "local", url = "unix:/tmp/c", key = "hunter2", caller_key = "{"k" * 32}"}}]
""",
        encoding="utf-8",
    )
    assert main(["--config", str(config), "serve"]) == 78
    error = capsys.readouterr().err
    assert "hub.agents.0.key" in error
    assert "32 characters" in error
    assert "hunter2" not in error


async def _serve(made: Installation) -> tuple[int, str]:
    status, _, error = await made.run("--config", str(made.config), "serve")
    assert "Traceback" not in error
    return status, error


async def test_a_second_hub_is_refused_by_name_and_the_first_goes_on() -> None:
    async with installation() as made:
        await made.start_hub()
        assert made.process is not None
        status, error = await _serve(made)
        assert status == 1
        assert f"another hub (process {made.process.pid})" in error
        await made.make_user()
        assert (await made.run("--config", str(made.config), "db", "upgrade"))[0] == 0

        status, out, _ = await made.run("--config", str(made.config), "token", "alice")
        assert status == 0
        made.token = out.strip()
        async with made.public() as client:
            assert (await client.get("/hub/api/user")).json()["name"] == "alice"
        status, _, error = await made.run("--config", str(made.config), "token", "nobody")
        assert (status, "there is no user 'nobody'" in error) == (1, True)

        for name in ("hub.sqlite", "cookie.key", "hub.sqlite.lock"):
            mode = (made.directory / "state" / name).stat().st_mode
            assert stat.S_IMODE(mode) == 0o600, name
        for name in ("hub.sock", "internal.sock"):
            assert stat.S_IMODE((made.directory / name).stat().st_mode) == 0o660, name


def test_hosts_are_kept_at_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "carrel.toml"
    config.write_text(
        f"""[hub]
listen = "unix:/tmp/a"
internal_listen = "unix:/tmp/b"
state_dir = "{tmp_path}/state"
agents = [{{name = "local", url = "unix:/tmp/c", key = "{"a" * 32}", caller_key = "{"b" * 32}"}}]
""",
        encoding="utf-8",
    )

    def run(*words: str) -> tuple[int, str]:
        status = main(["--config", str(config), *words])
        said = capsys.readouterr()
        return status, said.out + said.err

    assert run("db", "upgrade")[0] == 0
    status, listed = run("host", "list")
    assert status == 0
    heading, row = listed.splitlines()
    assert heading.split() == ["HOST", "STATE", "SERVERS", "ADDRESS", "TROUBLE"]
    assert row.split() == ["local", "joining", "0"]
    for action, status, words in (
        ("drain", 0, "nothing new is placed there"),
        ("take-in", 0, "servers are placed there again"),
        ("evacuate", 0, "servers ending: 0"),
        ("remove", 1, "is in the hub's settings"),
        ("accept", 1, "no other machine was refused"),
    ):
        found = run("host", action, "local")
        assert (found[0], words in found[1]) == (status, True), found
    assert run("host", "drain", "nowhere") == (1, "carrel-hub: there is no host 'nowhere'\n")


async def test_a_running_hub_is_backed_up_and_a_stopped_one_restored() -> None:
    async with installation() as made:
        config, file = str(made.config), str(made.directory / "backup")
        await made.start_hub()
        await made.make_user()
        status, _, error = await made.run("--config", config, "db", "backup", file)
        assert (status, "it holds keys" in error.lower()) == (0, True)
        status, _, error = await made.run("--config", config, "db", "restore", file, "--replace")
        assert (status, "another hub" in error) == (1, True)
        await made.stop_hub()
        status, _, error = await made.run("--config", config, "db", "restore", file)
        assert (status, "1 users already" in error) == (1, True)
        status, _, error = await made.run("--config", config, "db", "restore", file, "--replace")
        assert (status, "start the hub now" in error) == (0, True)
        await made.start_hub()
        async with made.public() as client:  # the token was made before the backup
            assert (await client.get("/hub/api/user")).json()["name"] == "alice"


async def test_the_same_database_from_another_state_directory_is_refused_too() -> None:
    async with installation() as made:
        await made.start_hub()
        other = {
            "CARREL_HUB__STATE_DIR": str(made.directory / "other"),
            "CARREL_HUB__DATABASE_URL": f"sqlite:///{made.directory}/state/hub.sqlite",
        }
        status, _, error = await made.run("--config", str(made.config), "serve", **other)
        assert (status, "another hub" in error) == (1, True)


MOUNTS = """\
22 1 254:1 / / rw - ext4 /dev/vda1 rw
30 22 0:25 / /home rw shared:1 - nfs4 server:/home rw,vers=4.2
31 30 254:2 / /home/local\\040disk rw - xfs /dev/vdb rw
"""


def test_a_database_on_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(MOUNTS, encoding="utf-8")
    for fine in ("/var/lib/carrel", "/homes", "/home/local disk/carrel"):
        refuse_network(Path(fine), mounts)
    with pytest.raises(AnotherHubError, match=r"/home/alice.*nfs4"):
        refuse_network(Path("/home/alice/state"), mounts)
    refuse_network(tmp_path)


async def test_databases_of_other_versions_and_damaged_ones_are_refused() -> None:
    async with installation() as made:
        path = made.directory / "state" / "hub.sqlite"
        connection = sqlite3.connect(path)
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.commit()
        connection.close()
        status, error = await _serve(made)
        assert (status, "newer Carrel" in error) == (78, True)
        status, _, error = await made.run("--config", str(made.config), "db", "upgrade")
        assert (status, "nothing was changed" in error) == (78, True)
        for leftover in path.parent.glob("hub.sqlite*"):
            leftover.unlink()
        status, error = await _serve(made)
        assert (status, "carrel-hub db upgrade" in error) == (78, True)
        for leftover in path.parent.glob("hub.sqlite*"):
            leftover.unlink()
        path.write_bytes(b"not a database" * 100)
        status, error = await _serve(made)
        assert status == 78
        assert "the database cannot be read" in error


async def test_a_taken_address_and_a_readable_key_file_are_said_plainly() -> None:
    async with installation() as made:
        await made.start_hub()
        await made.stop_hub()
        key = made.directory / "state" / "cookie.key"
        key.chmod(0o644)
        status, error = await _serve(made)
        assert (status, "signing key" in error) == (78, True)
        key.chmod(0o600)
        taken = made.directory / "internal.sock"
        taken.unlink(missing_ok=True)
        taken.write_text("in the way", encoding="utf-8")
        status, error = await _serve(made)
        assert (status, "in the way" in error) == (1, True)
        assert taken.read_text(encoding="utf-8") == "in the way"
