"""A real systemd as process 1 of a machine of its own: namespaces for processes, mounts, network, names and cgroups.

Its root is an overlay of ours, so that what is installed into it is gone with it. Nothing of the boot of a real machine
is started, and /proc/sys and /sys are read-only: the kernel is shared. Beside systemd only its journal runs. The
program under test is this checkout with this Python, at a place that every user can read, as in the guide.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import mailrider
from tests.peers.process import private_directory, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

SYSTEMD = Path("/usr/lib/systemd/systemd")
UNITS = Path(__file__).parents[2] / "packaging" / "systemd"

_NAMESPACES = ("--pid", "--mount", "--uts", "--ipc", "--cgroup", "--net", "--fork")
_BOOT = r"""
set -eu
home=$1 python=$2 packages=$3 sources=$4 units=$5
mount --make-rprivate /
mount -t tmpfs tmpfs "$home"
mkdir "$home/upper" "$home/work" "$home/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$home/upper,workdir=$home/work" "$home/root"
cd "$home/root"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null zero full random urandom tty; do
    touch "dev/$device"
    mount --bind "/dev/$device" "dev/$device"
done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mkdir -p opt/python opt/packages opt/sources
mount --bind "$python" opt/python
mount --bind "$packages" opt/packages
mount --bind "$sources" opt/sources
rm -rf etc/systemd/system usr/lib/systemd/system/*.wants var/lib/mailrider etc/mailrider usr/bin/mailrider
mkdir -p etc/systemd/system
printf '[Unit]\nDefaultDependencies=no\nWants=systemd-journald.service\n' >etc/systemd/system/default.target
cp "$units"/* etc/systemd/system/
cat >usr/bin/mailrider <<END
#!/bin/sh
export LD_LIBRARY_PATH=/opt/python/lib PYTHONPATH=/opt/sources:/opt/packages
exec /opt/python/$6 -m mailrider "\$@"
END
chmod 755 usr/bin/mailrider
ip link set lo up
mount --make-private "$home"
pivot_root . .
umount -l .
container=test exec chroot . /usr/lib/systemd/systemd --show-status=0
"""


@dataclass(frozen=True)
class Machine:
    """`init` is the process id of its systemd, as we see it."""

    init: int

    def run(self, *command: str, check: bool = True, input: str | None = None) -> subprocess.CompletedProcess[str]:
        """A command in there, as root, and what it said."""
        done = subprocess.run(
            ["nsenter", "--target", str(self.init), "--all", "--root", "--wd", *command],
            input=input,
            capture_output=True,
            text=True,
            timeout=200,
            check=False,
        )
        assert not check or done.returncode == 0, f"{command}: {done.stdout}{done.stderr}\n{self.journal()}"
        return done

    def python(self, script: str) -> str:
        """What a script prints."""
        return self.run(f"/opt/python/{_program()}", "-c", script).stdout

    def write(self, path: str, text: str) -> None:
        """A file in there."""
        self.run("sh", "-c", 'mkdir -p "${1%/*}" && cat >"$1"', "sh", path, input=text)

    def show(self, unit: str, name: str) -> str:
        """A property of a unit."""
        return self.run("systemctl", "show", "--value", "--property", name, unit).stdout.strip()

    def journal(self) -> str:
        """What the program and systemd said of it."""
        done = self.run("journalctl", "--no-pager", "--output=cat", "--unit=mailrider.*", check=False)
        return done.stdout[-6000:]


def _program() -> str:
    """This Python, from where it was installed."""
    return str(Path(sys.executable).resolve().relative_to(Path(sys.base_prefix).resolve()))


@contextlib.contextmanager
def start_systemd() -> Iterator[Machine]:
    """A machine, up while the block lasts."""
    with private_directory() as folder:
        (folder / "machine").mkdir()
        sources = Path(mailrider.__file__).resolve().parents[1]
        places = (folder / "machine", Path(sys.base_prefix).resolve(), sysconfig.get_path("purelib"), sources, UNITS)
        command = ["unshare", *_NAMESPACES, "--kill-child", "sh", "-c", _BOOT, "boot", *map(str, places), _program()]
        with running(command, log=folder / "log", ready=lambda: True) as process:
            children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
            wait_until(lambda: bool(children.read_text().split()), "the first process")
            machine = Machine(int(children.read_text().split()[0]))
            try:
                wait_until(lambda: _is_up(machine), "systemd")
            except Exception as error:
                error.add_note((folder / "log").read_text())
                raise
            try:
                yield machine
            finally:
                os.kill(machine.init, signal.SIGKILL)  # and all that runs in there


def may_start() -> bool:
    """False where even root may not make namespaces, as in a container."""
    return (
        subprocess.run(["unshare", *_NAMESPACES, "mount", "-t", "tmpfs", "tmpfs", "/mnt"], check=False).returncode == 0
    )


def _is_up(machine: Machine) -> bool:
    name = Path(f"/proc/{machine.init}/comm")
    if name.read_text() != "systemd\n":
        return False
    done = machine.run("systemctl", "is-active", "default.target", check=False)
    return done.stdout == "active\n"
