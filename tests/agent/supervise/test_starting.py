"""What a start is made to fit the runner that is tried."""

from pathlib import Path
from typing import Any

import pytest
from agent.supervise.test_states import record

from carrel_agent.cgroups.group import Group
from carrel_agent.errors import LimitUnenforceableError
from carrel_agent.process.launch_spec import LaunchSpec
from carrel_agent.runners.base import Launch, Runner
from carrel_agent.supervise.launching import LaunchError
from carrel_agent.supervise.starting import fitted, require_home
from carrel_shared.wire.limits import Limits

LIMITS = Limits(processes=10)
SPEC = LaunchSpec(  # noqa: S604 - its `shell` is a login shell
    uid=1234,
    gid=1234,
    groups=(1234,),
    user="alice",
    home="/home/alice",
    shell="/bin/sh",
    environment={},
    base_url="/user/alice/",
    hub_prefix="/hub/",
    secret="s" * 40,
    server_id="0123456789ab",
    cgroups=("/sys/fs/cgroup/of/another",),
)


class OfGroups:
    """A runner whose processes join control groups, or none."""

    def __init__(self, group: Group | None, refusal: str | None = None) -> None:
        self._group = group
        self._refusal = refusal

    def group(self, _server_id: str) -> Group | None:
        return self._group

    def refusal(self, _limits: Limits) -> str | None:
        return self._refusal


def fit(runner: Any, **fields: Any) -> tuple[Launch, Any]:
    made: Runner = runner
    return fitted(made, record(**fields), Launch(SPEC, 3, 4, LIMITS))


def test_a_second_runner_gets_its_own_group_and_not_the_firsts() -> None:
    place = Path("/sys/fs/cgroup/pids/x")
    group = Group(None, {"pids": (place, 1)})
    launch, joined = fit(OfGroups(group))
    assert launch.spec.cgroups == (str(place),)
    assert joined == group.place
    launch, joined = fit(OfGroups(None))
    assert launch.spec.cgroups == ()
    assert joined is None


def test_no_runner_is_a_way_around_limits() -> None:
    with pytest.raises(LimitUnenforceableError, match="cannot"):
        fit(OfGroups(None, "it cannot"), limits=LIMITS)
    advisory = LIMITS.model_copy(update={"advisory": True})
    fit(OfGroups(None, "it cannot"), limits=advisory)


async def test_a_home_has_to_be_there_and_a_directory(tmp_path: Path) -> None:
    await require_home(str(tmp_path))
    (tmp_path / "file").touch()
    for name, word in (("none", "does not exist"), ("file", "is no directory")):
        with pytest.raises(LaunchError, match=word):
            await require_home(str(tmp_path / name))
    with pytest.raises(LaunchError, match="does not exist"):
        await require_home(str(tmp_path / "file" / "below"))
