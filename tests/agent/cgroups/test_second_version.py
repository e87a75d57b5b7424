"""Version 2 on a tree of ordinary files: which files are written, and with what."""

from pathlib import Path

import pytest

from carrel_agent.cgroups.controls import memory_kills
from carrel_agent.cgroups.group import Group, GroupError
from carrel_agent.cgroups.host import SUPERVISOR, ControlGroups, find_bases
from carrel_agent.cgroups.mounts import Mount
from carrel_shared.wire.limits import Limits

FILES = {
    "cgroup.procs": "",
    "cgroup.controllers": "cpuset cpu io memory pids",
    "cgroup.subtree_control": "",
    "memory.max": "max",
    "memory.swap.max": "max",
    "memory.current": "1000000",
    "memory.peak": "1500000",
    "memory.stat": "anon 600000\ninactive_file 300000\n",
    "memory.events": "low 0\nmax 12\noom 3\noom_kill 2\n",
    "cpu.max": "max 100000",
    "cpu.stat": "usage_usec 2500000\n",
    "pids.max": "max",
    "pids.current": "7",
    "pids.events": "max 4\n",
}
LIMITS = Limits(memory_bytes=1 << 30, cpu_cores=1.5, processes=100)


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hierarchy whose new directories have the kernel's files, as far as they are used."""
    real = Path.mkdir

    def mkdir(self: Path, *args: object, **kwargs: object) -> None:
        fresh = not self.exists()
        real(self, *args, **kwargs)  # type: ignore[arg-type]
        if fresh and self.is_relative_to(tmp_path):
            fill(self)

    def fill(directory: Path) -> None:
        for name, text in FILES.items():
            (directory / name).write_text(text)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    fill(tmp_path)
    return tmp_path


def as_root(tree: Path) -> ControlGroups:
    # What was written is what the file holds then, so the last controller that was enabled stays.
    (tree / "cgroup.controllers").write_text("memory")
    mount = Mount(2, tree, "user.slice/session-1.scope")
    groups = find_bases([mount], "carrel-1", privileged=True, companions=frozenset())
    assert (tree / "cgroup.subtree_control").read_text() == "+memory"
    return groups


def test_as_root_servers_are_beside_the_service_managers_groups(tree: Path) -> None:
    as_root(tree)
    assert (tree / "carrel-1" / "cgroup.subtree_control").read_text() == "+memory"


def whole_group(tree: Path) -> tuple[Path, Group]:
    place = tree / "server"
    group = Group(place, dict.fromkeys(("memory", "cpu", "pids"), (place, 2)))
    group.make()
    return place, group


def test_limits_are_written_and_taken_back(tree: Path) -> None:
    place, group = whole_group(tree)
    group.apply(LIMITS)
    assert (place / "memory.max").read_text().startswith(str(1 << 30))
    assert (place / "memory.swap.max").read_text().startswith("0")
    assert (place / "cpu.max").read_text() == "150000 100000"
    assert (place / "pids.max").read_text() == "100"
    group.apply(Limits())
    assert (place / "memory.max").read_text().startswith("max")
    assert (place / "cpu.max").read_text().startswith("max 100000")


def test_use_and_counts_are_read(tree: Path) -> None:
    place, group = whole_group(tree)
    usage = group.usage()
    assert (usage.memory_bytes, usage.memory_peak_bytes) == (700_000, 1_500_000)
    assert (usage.cpu_seconds, usage.processes) == (2.5, 7)
    counts = group.counts()
    assert (counts.memory_kills, counts.refused_processes) == (2, 4)
    assert memory_kills(place / "gone", 2) == 0


def test_a_group_is_found_again_by_what_the_journal_has(tree: Path) -> None:
    _, group = whole_group(tree)
    again = Group.at(type(group.place).model_validate_json(group.place.model_dump_json()))
    assert again.directories == group.directories
    assert again.usage() == group.usage()


def test_a_limit_the_kernel_refuses_is_named(tree: Path) -> None:
    place, group = whole_group(tree)
    (place / "cpu.max").unlink()
    with pytest.raises(GroupError, match="does not take the limit of cpu: No such file"):
        group.apply(LIMITS)


def test_without_root_a_delegated_group_is_left_for_a_leaf(tree: Path) -> None:
    own = tree / "agent.service"
    own.mkdir()
    (own / "cgroup.procs").write_text("10\n11\n")
    mount = Mount(2, tree, "agent.service")
    groups = find_bases([mount], "carrel-1", privileged=False, companions=frozenset({10, 11}))
    assert (own / SUPERVISOR / "cgroup.procs").read_text() == "11"
    assert groups.group("x").directories[0] == own / "carrel-1" / "x"
    # The next agent of that keeper is in the leaf already.
    again = Mount(2, tree, f"agent.service/{SUPERVISOR}")
    groups = find_bases([again], "carrel-1", privileged=False, companions=frozenset({10, 12}))
    assert groups.group("x").directories[0] == own / "carrel-1" / "x"


def test_a_group_with_others_in_it_is_not_ours_to_arrange(tree: Path) -> None:
    (tree / "cgroup.procs").write_text("10\n99\n")
    groups = find_bases(
        [Mount(2, tree, "")], "carrel-1", privileged=False, companions=frozenset({10})
    )
    assert groups.enforced == frozenset()
    refusal = groups.refusal(Limits(memory_bytes=1 << 30)) or ""
    assert "other processes are in the agent's control group" in refusal
    assert "advisory = true" in refusal
    assert groups.refusal(Limits(open_files=100)) is None


def test_a_controller_that_is_not_handed_on_is_told(tree: Path) -> None:
    (tree / "cgroup.controllers").write_text("cpu")
    (tree / "cgroup.subtree_control").unlink()
    groups = find_bases([Mount(2, tree, "")], "c", privileged=True, companions=frozenset())
    refusal = groups.refusal(LIMITS) or ""
    assert "cpu: " in refusal
    assert "does not hand it on" in refusal
    assert "memory: its kernel offers no memory controller" in refusal


@pytest.mark.parametrize(
    ("controllers", "first", "is_used"),
    [
        ("hugetlb", {"pids"}, False),
        ("hugetlb", {"memory"}, True),
        ("hugetlb memory", {"pids"}, True),
        ("hugetlb", set(), True),
    ],
)
def test_it_is_left_alone_where_the_first_version_does_all_that_it_could(
    tree: Path, tmp_path: Path, controllers: str, first: set[str], is_used: bool
) -> None:
    (tree / "cgroup.controllers").write_text(controllers)
    (tmp_path / "first").mkdir()
    mounts = [Mount(2, tree, "")]
    if first:
        mounts.append(Mount(1, tmp_path / "first", "", frozenset(first)))
    groups = find_bases(mounts, "carrel-1", privileged=True, companions=frozenset())
    assert (groups.group("server").place.unified is not None) == is_used
    assert (tree / "carrel-1").exists() == is_used
