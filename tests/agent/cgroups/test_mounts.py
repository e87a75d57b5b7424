"""Where control groups are mounted, on machines of every kind."""

from pathlib import Path

from carrel_agent.cgroups.mounts import Mount, parse_mounts, read_mounts

HYBRID = """\
25 20 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
26 25 0:23 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
27 25 0:24 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
28 25 0:25 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
29 25 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
30 20 8:1 / /mnt/with\\040space rw - ext4 /dev/sda1 rw
"""
HYBRID_OWN = """\
3:cpu,cpuacct:/system.slice/agent.service
2:memory:/
1:name=systemd:/system.slice/agent.service
0::/system.slice/agent.service
"""


def test_both_versions_side_by_side() -> None:
    place = "system.slice/agent.service"
    assert parse_mounts(HYBRID, HYBRID_OWN) == [
        Mount(1, Path("/sys/fs/cgroup/cpu,cpuacct"), place, frozenset({"cpu", "cpuacct"})),
        Mount(1, Path("/sys/fs/cgroup/memory"), "", frozenset({"memory"})),
        Mount(2, Path("/sys/fs/cgroup/unified"), place),
    ]


def test_a_mount_that_shows_a_part_only() -> None:
    mountinfo = "27 25 0:24 /docker/ab /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"
    (mount,) = parse_mounts(mountinfo, "2:memory:/docker/ab/agent\n")
    assert mount.own_path == Path("/sys/fs/cgroup/memory/agent")
    (mount,) = parse_mounts(mountinfo, "2:memory:/docker/ab\n")
    assert mount.own_path == Path("/sys/fs/cgroup/memory")


def test_no_control_groups_at_all() -> None:
    assert parse_mounts("30 20 8:1 / / rw - ext4 /dev/sda1 rw\n", "") == []


def test_this_machine_can_be_read() -> None:
    for mount in read_mounts():
        assert mount.own_path.is_dir()
