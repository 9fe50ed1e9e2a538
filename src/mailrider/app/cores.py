"""How many processors this process may use: what `workers auto` comes to.

The affinity of the process, and the quota of its control group: `cpu.max` of version 2, `cpu.cfs_quota_us` of version
1. A group that is bounded from above has the bounds of all groups that it is in; in a container the file of its own
group is at the root.
"""

from __future__ import annotations

import math
import os
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final

from mailrider.config.settings import AUTO
from mailrider.errors import ConfigError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from mailrider.config import Configuration

GROUPS: Final = Path("/sys/fs/cgroup")
OWN: Final = Path("/proc/self/cgroup")


def _read(path: Path) -> str:
    """The text of a file; empty if there is none."""
    try:
        return path.read_text("ascii", "replace")
    except OSError:
        return ""


def usable_cores(read: Callable[[Path], str] = _read) -> int:
    """How many processors this process may use; at least 1."""
    try:
        allowed = len(os.sched_getaffinity(0))
    except (AttributeError, OSError):  # no Linux
        allowed = os.cpu_count() or 1
    quotas = [quota for quota in _quotas(read) if quota is not None]
    return max(1, min([allowed, *map(math.ceil, quotas)]))


def count_workers(configuration: Configuration, usable: Callable[[], int] = usable_cores) -> int:
    """How many workers a configuration asks for, where so many processors are usable."""
    given = configuration.globals.workers
    return usable() if given == AUTO else given


def count_workers_again(
    new: Configuration, old: Configuration, running: int, usable: Callable[[], int] = usable_cores
) -> int:
    """The same at a reload, where so many are `running`. Raises `ConfigError` if it would be from 1, or to 1.

    Where both say `auto`, and only the processors have changed, it stays as near as it can.
    """
    workers = count_workers(new, usable)
    if (workers == 1) == (running == 1):
        return workers
    if new.globals.workers == old.globals.workers == AUTO:
        return 1 if running == 1 else 2
    raise ConfigError(
        f"workers: a change {'from' if running == 1 else 'to'} 1 needs a restart of the daemon, not a reload"
    )


def _quotas(read: Callable[[Path], str]) -> Iterator[float | None]:
    for folder in _folders(parse_groups(read(OWN), ""), GROUPS):
        yield parse_cpu_max(read(folder / "cpu.max"))
    for folder in _folders(parse_groups(read(OWN), "cpu"), GROUPS / "cpu"):
        yield parse_quota(read(folder / "cpu.cfs_quota_us"), read(folder / "cpu.cfs_period_us"))


def _folders(group: str, root: Path) -> Iterable[Path]:
    """The folders of a control group and of all groups around it, up to the root."""
    own = PurePosixPath(group.lstrip("/"))
    return [root / each for each in (own, *own.parents)] if ".." not in own.parts else [root]


def parse_groups(text: str, controller: str) -> str:
    """The group of a process, from cgroups(7)'s `ID:CONTROLLERS:PATH`; version 2 has no controllers there."""
    for line in text.splitlines():
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controller in controllers.split(","):
            return path
    return "/"


def parse_cpu_max(text: str) -> float | None:
    """How many processors `QUOTA PERIOD` stands for; None for `max`, and for what is neither."""
    quota, _, period = text.strip().partition(" ")
    return parse_quota(quota, period)


def parse_quota(quota: str, period: str) -> float | None:
    """The processors that a quota and its period stand for; version 1 has -1 for no bound: None."""
    try:
        processors = int(quota) / int(period)
    except (ValueError, ZeroDivisionError):
        return None
    return processors if processors > 0 else None
