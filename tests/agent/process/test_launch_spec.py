"""What a launch spec may say, and how it travels."""

import json
import os
from dataclasses import asdict
from typing import Any

import pytest

from carrel_agent.process.launch_spec import (
    LaunchSpec,
    LaunchSpecError,
    parse_launch_spec,
    read_launch_spec,
    write_launch_spec,
)

SECRET = "s" * 43


def record(**changes: Any) -> dict[str, Any]:
    return {
        "uid": 1000,
        "gid": 1000,
        "groups": [1000, 27],
        "user": "alice",
        "home": "/home/alice",
        "shell": "/bin/bash",
        "environment": {"HOME": "/home/alice"},
        "base_url": "/user/alice/",
        "hub_prefix": "/hub/",
        "secret": SECRET,
        "server_id": "0123456789ab",
        **changes,
    }


def parse(**changes: Any) -> LaunchSpec:
    return parse_launch_spec(json.dumps(record(**changes)).encode())


def test_a_spec_comes_out_of_its_memfd_as_it_went_in() -> None:
    spec = parse(argv=["/bin/true", "-x"], rlimits={"NOFILE": [64, 128]}, umask=0o027)
    descriptor = write_launch_spec(spec)
    try:
        os.lseek(descriptor, 5, os.SEEK_SET)
        assert read_launch_spec(descriptor) == spec
        assert read_launch_spec(descriptor) == spec
        assert not os.get_inheritable(descriptor)
    finally:
        os.close(descriptor)


def test_nobody_can_change_a_spec_that_was_written() -> None:
    descriptor = write_launch_spec(parse())
    try:
        with pytest.raises(PermissionError):
            os.pwrite(descriptor, b'{"uid":0}', 0)
        with pytest.raises(PermissionError):
            os.ftruncate(descriptor, 0)
    finally:
        os.close(descriptor)


@pytest.mark.parametrize(
    ("changes", "complaint"),
    [
        pytest.param({"uid": 0}, "root", id="refuse_root"),
        pytest.param({"uid": -1}, "uid", id="refuse_minus_one"),
        pytest.param({"uid": 2**32 - 1}, "uid", id="refuse_minus_one_unsigned"),
        pytest.param({"uid": True}, "uid", id="refuse_bool"),
        pytest.param({"uid": "1000"}, "uid", id="refuse_text_uid"),
        pytest.param({"gid": -1}, "gid", id="refuse_negative_gid"),
        pytest.param({"groups": [2**32 - 1]}, "groups", id="refuse_wild_group"),
        pytest.param({"groups": "27"}, "groups", id="refuse_text_groups"),
        pytest.param({"user": ""}, "user", id="refuse_nameless"),
        pytest.param({"home": "home"}, "home", id="refuse_relative_home"),
        pytest.param({"cwd": "../etc"}, "cwd", id="refuse_relative_cwd"),
        pytest.param({"umask": 0o1000}, "umask", id="refuse_wide_umask"),
        pytest.param({"environment": {"A=B": "x"}}, "environment", id="refuse_equals_in_name"),
        pytest.param({"environment": {"A\n": "x"}}, "environment", id="refuse_newline_in_name"),
        pytest.param({"environment": {"A": "x\0"}}, "environment", id="refuse_nul"),
        pytest.param({"environment": {"A": "x\nB=1"}}, "environment", id="refuse_newline"),
        pytest.param({"environment": {"A": 1}}, "environment", id="refuse_number"),
        pytest.param({"argv": []}, "argv", id="refuse_no_program"),
        pytest.param({"argv": ["jupyter"]}, "argv", id="refuse_relative_program"),
        pytest.param({"argv": ["/bin/x", "a\0b"]}, "argv", id="refuse_nul_in_argv"),
        pytest.param({"base_url": "/user/alice"}, "base_url", id="refuse_open_base"),
        pytest.param({"hub_prefix": "hub/"}, "hub_prefix", id="refuse_relative_hub"),
        pytest.param({"secret": "short"}, "secret", id="refuse_short_secret"),
        pytest.param({"secret": "é" * 40}, "secret", id="refuse_non_ascii_secret"),
        pytest.param({"server_id": "../../../etc"}, "server_id", id="refuse_path_for_id"),
        pytest.param({"rlimits": {"NOPE": [1, 1]}}, "rlimits", id="refuse_unknown_limit"),
        pytest.param({"rlimits": {"NOFILE": [1]}}, "rlimits", id="refuse_half_a_limit"),
        pytest.param({"oom_score_adj": 1001}, "oom_score_adj", id="refuse_wild_oom_score"),
        pytest.param({"colour": "red"}, "colour", id="refuse_unknown_field"),
    ],
)
def test_a_spec_that_cannot_be_meant_is_refused_by_field(
    changes: dict[str, Any], complaint: str
) -> None:
    with pytest.raises(LaunchSpecError, match=complaint):
        parse(**changes)


def test_what_a_spec_lacks_is_named() -> None:
    incomplete = record()
    del incomplete["secret"], incomplete["uid"]
    with pytest.raises(LaunchSpecError, match="lacks secret, uid"):
        parse_launch_spec(json.dumps(incomplete).encode())


@pytest.mark.parametrize("data", [b"", b"[]", b"\xff", f'{{"secret":"{SECRET}'.encode()])
def test_what_is_no_spec_is_refused_without_quoting_it(data: bytes) -> None:
    with pytest.raises(LaunchSpecError) as caught:
        parse_launch_spec(data)
    assert SECRET not in str(caught.value)
    assert caught.value.__cause__ is None


def test_a_spec_shows_neither_secret_nor_environment() -> None:
    spec = parse(environment={"PASSWORD": "hunter2"})
    assert SECRET not in repr(spec)
    assert "hunter2" not in repr(spec)
    assert SECRET in json.dumps(asdict(spec))
