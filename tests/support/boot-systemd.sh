#!/bin/bash
# Boot systemd as pid 1 of namespaces of its own, on a copy-on-write view of this machine's root:
# boot-systemd.sh NAME DIRECTORY. Controllers of version 1 are handed to it below /NAME. Its log is on
# standard output. SIGRTMIN+4 to it (the process that `unshare` waits for) shuts it down.
set -euo pipefail
if [ "${3:-}" != inside ]; then
    exec unshare --mount --propagation private "$0" "$1" "$2" inside
fi
name=$1
root=$2/root
export root
mount -t tmpfs tmpfs "$2"
mkdir "$2/upper" "$2/work" "$root"
mount -t overlay -o "lowerdir=/,upperdir=$2/upper,workdir=$2/work" overlay "$root"

# Nothing of this machine's own services: a bus, and what that needs.
units=$root/etc/systemd/system
rm -rf "$units" && mkdir -p "$units"
printf '[Unit]\nRequires=dbus.service\nAfter=dbus.service\n' >"$units/carrel-test.target"
for unit in systemd-tmpfiles-setup systemd-tmpfiles-setup-dev systemd-tmpfiles-clean systemd-udevd \
    systemd-udev-trigger systemd-sysctl systemd-modules-load systemd-random-seed systemd-update-utmp \
    systemd-sysusers systemd-logind keyboard-setup console-setup apparmor networking; do
    ln -s /dev/null "$units/$unit.service"
done
ln -s /dev/null "$units/systemd-udevd-kernel.socket"
ln -s /dev/null "$units/systemd-udevd-control.socket"
: >"$root/etc/fstab"
rm -rf "$root/lib/systemd/system-generators" && mkdir "$root/lib/systemd/system-generators"

for place in /sys/fs/cgroup/*/; do
    mkdir -p "$place$name"
    if [ -e "$place$name/cpuset.cpus" ]; then
        cat "${place}cpuset.cpus" >"$place$name/cpuset.cpus"
        cat "${place}cpuset.mems" >"$place$name/cpuset.mems"
    fi
    echo $$ >"$place$name/cgroup.procs"
done

exec unshare --pid --fork --kill-child --mount --uts --ipc --cgroup bash -euc '
mount --make-rprivate /
cd "$root"
mount -t proc proc proc
mount -t sysfs -o ro sysfs sys
kinds=$(ls /sys/fs/cgroup)
mount -t tmpfs tmpfs sys/fs/cgroup
for kind in $kinds; do
    [ -d "/sys/fs/cgroup/$kind" ] || continue
    mkdir "sys/fs/cgroup/$kind"
    case $kind in
    systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$kind" ;;
    unified) mount -t cgroup2 cgroup2 "sys/fs/cgroup/$kind" ;;
    *) mount -t cgroup -o "$kind" cgroup "sys/fs/cgroup/$kind" ;;
    esac
done
mount -t tmpfs -o mode=755 tmpfs run
mkdir -p run/dbus run/lock
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
hostname carrel-test
mkdir -p old
pivot_root . old
umount -l old
exec env -i container=other PATH=/usr/sbin:/usr/bin:/sbin:/bin \
    /lib/systemd/systemd --system --unit=carrel-test.target --log-target=console --log-level=notice \
    --show-status=no
'
