"""The steps of the Dockerfile, run in an empty Debian as Docker would, and the daemon that they make.

Each stage is an overlay of the empty tree; pip and apt are told what they are told on this machine. The daemon
then runs as the user that the file names, without capabilities, on a root that is read-only but for its volume, and
delivers to the lab in a network of their own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.flow.packaging.test_container import CONTAINER, ROOT, STEPS, only
from tests.peers.conftest import leave_out
from tests.peers.process import private_directory, running, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

EMPTY = ROOT / ".peers" / "debian"
PATIENCE = 600  # seconds for a step: it may have to fetch packages
_RUN = """
set -eu
root=$1; shift
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$1,upperdir=$2,workdir=$3" "$root"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
exec chroot "$root" /bin/sh -euc "$4"
"""
_SERVE = """
set -eu
root=$1
mount --make-rprivate /
mount -t overlay overlay -o "lowerdir=$2,upperdir=$3,workdir=$4" "$root"
mount --bind "$5" "$root/etc/mailrider/mailrider.conf"
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount --bind "$6" "$root/var/lib/mailrider"
mount -t tmpfs -o uid=990,gid=990,mode=0755 tmpfs "$root/run/mailrider"
mount -t tmpfs tmpfs "$root/tmp"
mount --bind "$7" "$root/tmp"
mount -o remount,ro "$root"
shift 7
exec chroot "$root" setpriv --reuid 990 --regid 990 --clear-groups --bounding-set=-all --no-new-privs -- "$@"
"""
HERE, BESIDE = "172.18.0.2", "172.18.0.3"  # in a network like those of Docker
AUTHORITIES = "/var/local/authorities.pem"  # whom pip trusts here: what Debian has is for the image to install
_SETTINGS = ("/etc/apt", "/usr/share/keyrings", "/etc/ssl/certs", "/etc/pip.conf", "/etc/resolv.conf", "/etc/hosts")

pytestmark = pytest.mark.long


@dataclass
class Stage:
    """What the steps of one FROM have made: `top` is what they changed."""

    folder: Path

    @property
    def top(self) -> Path:
        return self.folder / "top"

    def make(self) -> None:
        for name in ("top", "work", "root"):
            (self.folder / name).mkdir(parents=True)

    def run(self, command: str) -> None:
        """A RUN, with the network of this machine."""
        places = (self.folder / "root", EMPTY, self.top, self.folder / "work")
        settings = {"PIP_CERT": AUTHORITIES} if "PIP_CERT" in os.environ else {}
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "DEBIAN_FRONTEND": "noninteractive"}
        done = subprocess.run(
            ["unshare", "--mount", "sh", "-c", _RUN, "step", *map(str, places), command],
            env=environment | settings,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        assert done.returncode == 0, f"{command}:\n{done.stdout[-2000:]}{done.stderr[-4000:]}"

    def copy(self, words: list[str], stages: dict[str, Stage]) -> None:
        """A COPY, from the checkout or another stage."""
        options = dict(each[2:].split("=", 1) for each in words if each.startswith("--"))
        *sources, target = [each for each in words if not each.startswith("--")]
        begin = stages[options["from"]].top if "from" in options else ROOT
        for source in sources:
            path = begin / source.lstrip("/")
            into = target.endswith("/")
            place = self.top / target.strip("/") / path.name if into else self.top / target.strip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            ignored = shutil.ignore_patterns("__pycache__")
            if path.is_dir():
                shutil.copytree(path, place, symlinks=True, ignore=ignored)
            else:
                shutil.copy(path, place)
            if "chmod" in options:
                place.chmod(int(options["chmod"], 8))

    def settings(self) -> None:
        """How this machine reaches Debian and the index of Python: no part of the image."""
        for each in filter(os.path.exists, _SETTINGS):
            place = self.top / each.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            if Path(each).is_dir():
                shutil.copytree(each, place, dirs_exist_ok=True)
            else:
                shutil.copy(each, place)
        if authorities := os.environ.get("PIP_CERT"):
            place = self.top / AUTHORITIES.lstrip("/")
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(authorities, place)


def build(folder: Path) -> Stage:
    """All steps up to ENTRYPOINT, in order."""
    stages: dict[str, Stage] = {}
    stage = Stage(folder)
    for number, (name, text) in enumerate(STEPS):
        match name:
            case "FROM":
                stage = Stage(folder / str(number))
                stage.make()
                stage.settings()
                stages[text.split()[-1]] = stage
            case "RUN":
                stage.run(text)
            case "COPY":
                stage.copy(text.split(), stages)
            case _:
                pass  # how it is run
    return stage


@dataclass
class Container:
    """A network with the lab in it, and the daemon from the image. `holder` is a process in it, `neighbour` one in the
    network of another container."""

    holder: int
    neighbour: int
    log: Path

    def run(self, *command: str | Path, check: bool = True, beside: bool = False) -> str:
        """A program of this machine in the container's network, or in that of the other one."""
        enter = ["nsenter", "--target", str(self.neighbour if beside else self.holder), "--net", "--"]
        done = subprocess.run([*enter, *command], capture_output=True, text=True, timeout=200, check=False)
        assert not check or done.returncode == 0, done.stdout + done.stderr + self.log.read_text()
        return done.stdout


@contextlib.contextmanager
def _network(log: Path) -> Iterator[int]:
    """A process in a network of its own."""
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up; exec sleep 1000"]
    with running(command, log=log, ready=lambda: True) as process:
        wait_until(lambda: Path(f"/proc/{process.pid}/cmdline").read_text().startswith("sleep"), "the network")
        yield process.pid


@contextlib.contextmanager
def daemon(image: Stage, folder: Path) -> Iterator[Container]:
    """The daemon of the image, beside a lab whose servers are those of the world."""
    with contextlib.ExitStack() as stack:
        holder, neighbour = (stack.enter_context(_network(folder / name)) for name in ("here", "beside"))
        container = Container(holder, neighbour, folder / "daemon.log")
        link = f"ip link add c0 type veth peer name c0 netns {neighbour}".split()
        container.run(*link)
        for beside, address in ((False, HERE), (True, BESIDE)):
            container.run(*f"ip address add {address}/16 dev c0".split(), beside=beside)
            container.run(*["ip", "link", "set", "c0", "up"], beside=beside)
        enter = ["nsenter", "--target", str(holder), "--net", "--"]
        lab_log = folder / "lab.log"
        lab = [sys.executable, "-m", "mailrider", "lab", "--port", "25", "--dns-port", "53", "--https-port", "443"]
        stack.enter_context(
            running([*enter, *lab], log=lab_log, ready=lambda: "Ctrl-C ends it" in lab_log.read_text(errors="replace"))
        )
        server = re.findall(r"^    server (\S+)$", lab_log.read_text(), re.MULTILINE)[0]
        configuration, volume, tmp = folder / "mailrider.conf", folder / "volume", folder / "tmp"
        text = (CONTAINER / "mailrider.conf").read_text().replace("validate auto", f"server {server}")
        configuration.write_text(text.replace("outbound {", "outbound {\n    prohibited_addresses none", 1))
        configuration.chmod(0o644)
        for each in (volume, tmp):
            each.mkdir()
            os.chown(each, 990, 990)
        volume.chmod(0o700)
        log = container.log
        (served := Stage(folder / "served")).make()
        layers = f"{image.top}:{EMPTY}"
        places = (served.folder / "root", layers, served.top, served.folder / "work", configuration, volume, tmp)
        entry = json.loads(only("ENTRYPOINT")) + json.loads(only("CMD"))
        command = [*enter, "unshare", "--mount", "sh", "-c", _SERVE, "serve", *map(str, places), *entry]
        process = stack.enter_context(
            running(command, log=log, ready=lambda: "daemon_ready" in log.read_text(errors="replace"))
        )
        yield container
        os.killpg(process.pid, getattr(signal, only("STOPSIGNAL")))
        wait_until(lambda: process.poll() is not None, "the daemon's end", within=60)
        assert process.returncode == 0, log.read_text()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    if not (EMPTY.parent / "debian.made").exists():
        leave_out("there is no empty Debian in .peers/debian (scripts/debian-peers makes it)")
    if "\t00000000\t" not in Path("/proc/net/route").read_text():
        leave_out("packages cannot be fetched: this network leads nowhere")
    with private_directory() as folder:
        yield build(folder)


SEND = """
import smtplib
with smtplib.SMTP("172.18.0.2", 2525) as client:
    message = "From: app@example.org\\r\\nSubject: x\\r\\n\\r\\nHello.\\r\\n"
    client.sendmail("app@example.org", ["friend@dane.test"], message)
"""


@pytest.mark.timeout(1800)
def test_the_image_delivers_with_dane_as_a_user_without_rights(image: Stage) -> None:
    with private_directory() as folder, daemon(image, folder) as container:
        status = container.run("cat", f"/proc/{_pid_of_daemon(container)}/status")
        assert re.search(r"^Uid:\t990\t990\t990\t990$", status, re.MULTILINE)
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE)
        container.run(sys.executable, "-c", SEND, beside=True)
        wait_until(lambda: "queue_delivered" in container.log.read_text(), "the delivery")
        assert re.search(
            r"queue_delivered .*recipient=friend@dane.test .*tls_level=authenticated authenticated_by=dane",
            container.log.read_text(),
        )
        healthy = image.top / "usr/local/bin/healthy"
        assert os.access(healthy, os.X_OK)
        container.run(sys.executable, healthy)
        assert (folder / "volume" / "outqueue" / "queue.db").stat().st_uid == 990


def _pid_of_daemon(container: Container) -> str:
    listening = container.run("ss", "-ltnpH", "sport = :2525")
    (pid,) = set(re.findall(r"pid=(\d+)", listening))
    return str(pid)


def test_what_was_fetched_to_build_it_does_not_stay(image: Stage) -> None:
    # What is gone is there as a device: that is how an overlay says it.
    assert not [each for each in (image.top / "var/lib/apt/lists").glob("*Packages*") if each.is_file()]
    assert not (image.top / "build").exists()
    assert shlex.split(only("ENTRYPOINT").strip("[]").replace(",", " "))[0] == "/usr/bin/mailrider"
