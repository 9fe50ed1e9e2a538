"""What `workers auto` comes to."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.app import cores
from mailrider.app.check.finding import Level
from mailrider.app.check.local import check_workers
from mailrider.app.cores import (
    count_workers,
    count_workers_again,
    parse_cpu_max,
    parse_groups,
    parse_quota,
    usable_cores,
)
from mailrider.errors import ConfigError
from tests.unit.config.reading import read

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration


@pytest.mark.parametrize(
    ("text", "processors"),
    [
        ("max 100000\n", None),
        ("150000 100000\n", 1.5),
        ("50000 100000", 0.5),
        ("", None),
        ("200000", None),
        ("x y", None),
        ("1 0", None),
    ],
)
def test_cpu_max_is_a_quota_and_a_period(text: str, processors: float | None) -> None:
    assert parse_cpu_max(text) == processors


@pytest.mark.parametrize(
    ("quota", "period", "processors"), [("-1", "100000", None), ("250000", "100000", 2.5), ("", "", None)]
)
def test_version_1_has_two_files(quota: str, period: str, processors: float | None) -> None:
    assert parse_quota(quota, period) == processors


@pytest.mark.parametrize(
    ("text", "controller", "group"),
    [
        ("0::/system.slice/mailrider.service\n", "", "/system.slice/mailrider.service"),
        ("5:cpu,cpuacct:/docker/x\n0::/y\n", "cpu", "/docker/x"),
        ("5:cpu,cpuacct:/docker/x\n0::/y\n", "", "/y"),
        ("0::/\n", "cpu", "/"),
        ("", "", "/"),
    ],
)
def test_the_group_of_a_process(text: str, controller: str, group: str) -> None:
    assert parse_groups(text, controller) == group


@pytest.mark.parametrize(
    ("files", "allowed", "workers"),
    [
        ({}, 4, 4),
        ({"/sys/fs/cgroup/cpu.max": "150000 100000"}, 4, 2),
        ({"/sys/fs/cgroup/cpu.max": "10000 100000"}, 4, 1),
        ({"/sys/fs/cgroup/cpu.max": "800000 100000"}, 4, 4),
        ({"/proc/self/cgroup": "0::/a/b", "/sys/fs/cgroup/a/cpu.max": "300000 100000"}, 4, 3),
        ({"/proc/self/cgroup": "0::/../b", "/sys/fs/cgroup/cpu.max": "300000 100000"}, 4, 3),
        (
            {
                "/proc/self/cgroup": "3:cpu:/a",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_quota_us": "200000",
                "/sys/fs/cgroup/cpu/a/cpu.cfs_period_us": "100000",
            },
            4,
            2,
        ),
    ],
    ids=["no groups", "rounded up", "at least one", "affinity is less", "a group above", "outside", "version 1"],
)
def test_the_least_of_affinity_and_all_quotas(
    files: dict[str, str], allowed: int, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: set(range(allowed)))
    assert usable_cores(lambda path: files.get(str(path), "")) == workers


def test_where_there_is_no_affinity_all_processors_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("os.sched_getaffinity")
    monkeypatch.setattr("os.cpu_count", lambda: 3)
    assert usable_cores(lambda _: "") == 3


def test_what_cannot_be_read_is_no_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1, 2})
    monkeypatch.setattr(cores, "OWN", tmp_path / "cgroup")
    monkeypatch.setattr(cores, "GROUPS", tmp_path)
    assert usable_cores() == 3


def asking(line: str) -> Configuration:
    return read(f"hostname a.test\n{line}\ntarget.queue queue {{\ntarget target.remote {{\n}}\n}}")


@pytest.mark.parametrize(("line", "workers"), [("", 1), ("workers 1", 1), ("workers 3", 3), ("workers auto", 8)])
def test_how_many_workers_are_asked_for(line: str, workers: int) -> None:
    assert count_workers(asking(line), lambda: 8) == workers


@pytest.mark.parametrize(
    ("old", "new", "running", "usable", "workers"),
    [
        ("workers 2", "workers 3", 2, 8, 3),
        ("workers 1", "", 1, 8, 1),
        ("workers auto", "workers auto", 1, 8, 1),
        ("workers auto", "workers auto", 4, 1, 2),
        ("workers auto", "workers auto", 4, 6, 6),
    ],
)
def test_how_many_a_reload_asks_for(old: str, new: str, running: int, usable: int, workers: int) -> None:
    assert count_workers_again(asking(new), asking(old), running, lambda: usable) == workers


@pytest.mark.parametrize(
    ("old", "new", "running", "said"),
    [
        ("workers 1", "workers 2", 1, "from 1"),
        ("workers 1", "workers auto", 1, "from 1"),
        ("workers 2", "workers 1", 2, "to 1"),
        ("workers auto", "workers 1", 8, "to 1"),
    ],
)
def test_one_process_and_several_are_a_matter_of_a_restart(old: str, new: str, running: int, said: str) -> None:
    with pytest.raises(ConfigError, match=f"a change {said} needs a restart of the daemon, not a reload"):
        count_workers_again(asking(new), asking(old), running, lambda: 8)


@pytest.mark.parametrize(
    ("line", "usable", "level", "text"),
    [
        ("workers auto", 3, Level.OK, "auto means 3 here"),
        ("workers 4", 2, Level.NOTE, "4 workers for 2 processors"),
    ],
)
def test_check_tells_of_the_number_of_workers(line: str, usable: int, level: Level, text: str) -> None:
    (finding,) = check_workers(asking(line), usable)
    assert finding.level is level
    assert text in finding.text


@pytest.mark.parametrize(("line", "usable"), [("", 1), ("workers 2", 2)])
def test_check_says_nothing_of_a_number_that_fits(line: str, usable: int) -> None:
    assert check_workers(asking(line), usable) == []
