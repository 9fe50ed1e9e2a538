"""What a mail system costs while it works: processor time, private memory, and how often it says fsync.

A system is many processes, which come and go. So it runs in a control group of its own (v1 or v2): the kernel counts
the processor time of every process that was ever in it, those that are gone and their threads included.

    with confined(["master", "-c", "/etc/postfix"], ...) as group:
        group.cpu()              # seconds until now
        group.private_memory()   # octets now
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from bench.peers import MissingError
from tests.peers.process import running, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_V1, _V2 = Path("/sys/fs/cgroup/cpuacct"), Path("/sys/fs/cgroup")
_PRIVATE = re.compile(r"^Private_(?:Clean|Dirty|Hugetlb): +(\d+) kB", re.MULTILINE)
_SYNCS = re.compile(
    r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?(?:fsync|fdatasync|sync_file_range|syncfs|msync)$", re.MULTILINE
)
SYNC_CALLS = "fsync,fdatasync,sync_file_range,syncfs,msync"
SAMPLED = 0.25  # seconds between two looks at the memory


@dataclass(frozen=True, slots=True)
class ControlGroup:
    """Every process of a system, and all that they cost."""

    path: Path

    @classmethod
    def make(cls, name: str) -> ControlGroup:
        """A new one. Raises `MissingError` where the kernel has none, or this is not root."""
        parent = _V1 if _V1.is_dir() else _V2
        path = parent / f"mailrider-bench-{name}-{os.getpid()}-{time.monotonic_ns()}"
        try:
            path.mkdir()
        except OSError as error:
            text = f"no control group can be made in {parent} ({error.strerror}): this needs root"
            raise MissingError(f"{text}, and in a container cgroups that may be written") from error
        if not (path / "cgroup.procs").exists():
            path.rmdir()
            raise MissingError(f"{parent} is no control group: this needs cgroup v2, or v1 with cpuacct")
        return cls(path)

    def cpu(self) -> float:
        """Seconds of user and system time until now, of all that ever ran in it."""
        v1 = self.path / "cpuacct.usage"
        if v1.exists():
            return int(v1.read_text()) / 1e9
        usage = dict(line.split() for line in (self.path / "cpu.stat").read_text().splitlines())
        return int(usage["usage_usec"]) / 1e6

    def processes(self) -> list[int]:
        """Who is in it now."""
        return [int(line) for line in (self.path / "cgroup.procs").read_text().split()]

    def private_memory(self) -> int:
        """Octets that only these processes have: what would be free if they ended."""
        total = 0
        for process in self.processes():
            with contextlib.suppress(OSError):
                found = _PRIVATE.findall(Path(f"/proc/{process}/smaps_rollup").read_text())
                total += sum(map(int, found)) * 1024
        return total

    def end(self) -> None:
        """End what is left in it, and the group."""
        for process in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        wait_until(lambda: not self.processes(), f"the processes of {self.path.name}")
        self.path.rmdir()


@contextlib.contextmanager
def confined(
    command: Sequence[str],
    *,
    name: str,
    log: Path,
    ready: Callable[[], bool],
    environment: Mapping[str, str] | None = None,
    files: Mapping[Path, Path] | None = None,
) -> Iterator[ControlGroup]:
    """Run `command` in a control group of its own while the block lasts.

    `files`: which of the system's files it sees other ones instead of (in a mount namespace of its own).
    """
    group = ControlGroup.make(name)
    script = f"echo $$ > {group.path}/cgroup.procs\n"
    for target, source in (files or {}).items():
        script += f"mount --bind {source} {target} || exit 1\n"
    wrapped = ["unshare", "--mount", "--propagation", "private", "sh", "-c", script + 'exec "$@"', "sh", *command]
    try:
        with running(wrapped, log=log, ready=ready, environment=environment):
            yield group
    finally:
        group.end()


@contextlib.contextmanager
def peak_of(group: ControlGroup) -> Iterator[list[int]]:
    """The highest private memory while the block lasts, in the list's only place. Looking costs some time itself."""
    peak, over = [group.private_memory()], threading.Event()

    def look() -> None:
        while not over.wait(SAMPLED):
            peak[0] = max(peak[0], group.private_memory())

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield peak
    finally:
        over.set()
        thread.join()


def counting_syncs(command: Sequence[str], report: Path) -> list[str]:
    """The command under strace, which writes what it counted to `report` at the end."""
    return [*f"strace -f -qq -I 2 --seccomp-bpf -c -e trace={SYNC_CALLS} -o".split(), str(report), *command]


def syncs_in(report: Path) -> int:
    """How often anything was made durable, by the report of `counting_syncs`."""
    return sum(map(int, _SYNCS.findall(report.read_text())))
