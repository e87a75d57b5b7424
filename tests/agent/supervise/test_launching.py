"""What a server is given to start with, whatever is asked for it (AGT-07)."""

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st

from carrel_agent.supervise.accounts import Account
from carrel_agent.supervise.launching import LaunchError, environment_of, launch_spec_of
from carrel_shared.wire.servers import ServerSpec

PYTHON = "/opt/py/bin/python"
ACCOUNT = Account("alice", 1000, 1000, (1000,), "/home/alice", "/bin/sh")
LETTERS = string.ascii_letters + string.digits + "_=\n\0 -.\u00e9"


def spec_with(environment: dict[str, str]) -> ServerSpec:
    return ServerSpec(
        server_id="0123456789ab",
        generation=1,
        user="alice",
        account="alice",
        base_url="/user/alice/",
        hub_prefix="/hub/",
        secret="s" * 43,
        environment=environment,
    )


@given(st.dictionaries(st.text(LETTERS, max_size=8), st.text(LETTERS, max_size=8), max_size=4))
def test_an_environment_is_made_of_variables_and_nothing_else(asked: dict[str, str]) -> None:
    try:
        made = environment_of(spec_with(asked), ACCOUNT, python=PYTHON, lang="C.UTF-8")
    except LaunchError:
        return
    # As the new process reads it back, it is what was asked for, line by line and word by word.
    raw = "\0".join(f"{name}={value}" for name, value in made.items())
    assert dict(entry.split("=", 1) for entry in raw.split("\0")) == made
    assert "\n" not in raw
    assert (made["HOME"], made["USER"]) == ("/home/alice", "alice")
    free = asked.keys() - {"HOME", "USER", "LOGNAME"}
    assert {name: made[name] for name in free} == {name: asked[name] for name in free}


@pytest.mark.parametrize("name", ["HOME", "USER", "LOGNAME", "CARREL_SERVER_ID"])
def test_who_the_server_is_cannot_be_asked_for(name: str) -> None:
    made = environment_of(
        spec_with({name: "mallory"}), ACCOUNT, python="/usr/bin/python3", lang="C"
    )
    assert made[name] != "mallory"


def test_nothing_is_read_from_where_the_server_starts() -> None:
    """A jupyterlab.py in somebody's home is not the program: -P leaves that directory out."""
    spec = launch_spec_of(spec_with({}), ACCOUNT, python="/opt/other/bin/python", lang="C.UTF-8")
    assert spec.argv == ("/opt/other/bin/python", "-P", "-m", "jupyterlab")
