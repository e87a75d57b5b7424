"""When a fork would not be what an exec is."""

import pwd
from pathlib import Path

import pytest

from carrel_agent.zygote import preflight
from support.launching import build_spec

PRELOADED = frozenset({"tornado", "jupyterlab", "zmq"})


@pytest.mark.parametrize(
    ("name", "matters"),
    [
        ("PYTHONPATH", True),
        ("PYTHONHASHSEED", True),
        ("PYTHONUTF8", True),
        ("LD_PRELOAD", True),
        ("LD_LIBRARY_PATH", True),
        ("GLIBC_TUNABLES", True),
        ("JUPYTER_PLATFORM_DIRS", True),
        ("PYTHONUNBUFFERED", False),
        ("PYTHONNOUSERSITE", False),
        ("JUPYTER_PATH", False),
        ("HTTP_PROXY", False),
        ("TZ", False),
        ("OLD_LD_STYLE", False),
    ],
)
def test_a_variable_that_is_read_before_the_fork_matters(name: str, matters: bool) -> None:
    reason = preflight.environment_reason({"HOME": "/home/alice", name: "x"})
    assert reason == (f"{name} is in its environment" if matters else None)


@pytest.mark.parametrize(
    ("environment", "is_utf8"),
    [
        ({}, True),
        ({"LANG": "C"}, True),
        ({"LANG": "C.UTF-8"}, True),
        ({"LANG": "de_DE.utf8"}, True),
        ({"LANG": "de_DE.UTF-8@euro"}, True),
        ({"LANG": "de_DE"}, False),
        ({"LANG": "de_DE.ISO-8859-1"}, False),
        ({"LANG": "de_DE.ISO-8859-1", "LC_ALL": "C.UTF-8"}, True),
        ({"LANG": "C.UTF-8", "LC_CTYPE": "ja_JP.EUC-JP"}, False),
        ({"LC_ALL": "", "LANG": "C.UTF-8"}, True),
    ],
)
def test_a_locale_in_another_encoding_matters(environment: dict[str, str], is_utf8: bool) -> None:
    assert (preflight.locale_reason(environment) is None) is is_utf8


@pytest.mark.parametrize(
    ("entry", "matters"),
    [
        ("tornado", True),
        ("zmq.py", True),
        ("zmq.cpython-311-x86_64-linux-gnu.so", True),
        ("mypatch.pth", True),
        ("usercustomize.py", True),
        ("tornado-6.0.dist-info", False),
        ("pandas", False),
        ("tornado_extras", False),
    ],
)
def test_a_users_package_matters_if_it_is_loaded_already(entry: str, matters: bool) -> None:
    assert (preflight.site_reason(["wheel", entry], PRELOADED) is not None) is matters


@pytest.mark.parametrize(("text", "matters"), [("1", True), ("0\n", False), (None, False)])
def test_selinux_matters_when_it_enforces(tmp_path: Path, text: str | None, matters: bool) -> None:
    switch = tmp_path / "enforce"
    if text is not None:
        switch.write_text(text)
    assert (preflight.selinux_reason(switch) is not None) is matters


def test_an_ordinary_server_is_forked(account: pwd.struct_passwd, tmp_path: Path) -> None:
    spec = build_spec(account)
    (tmp_path / "pandas").mkdir()
    assert preflight.reason_to_execute(spec, preloaded=PRELOADED, user_site=tmp_path) is None
    assert preflight.reason_to_execute(spec, preloaded=PRELOADED, user_site=None) is None
    (tmp_path / "zmq").mkdir()
    assert "zmq" in str(preflight.reason_to_execute(spec, preloaded=PRELOADED, user_site=tmp_path))


def test_a_command_is_executed(account: pwd.struct_passwd) -> None:
    spec = build_spec(account, argv=("/opt/env/bin/jupyter", "lab"))
    reason = preflight.reason_to_execute(spec, preloaded=PRELOADED, user_site=None)
    assert reason == "it has a command of its own"
