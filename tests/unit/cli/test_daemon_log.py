"""The log of the daemon, which a reload may change."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from mailrider.cli.daemon_log import DaemonLog
from mailrider.config import load
from mailrider.errors import LocalError
from mailrider.model.daemon_event import DaemonStopping
from mailrider.model.event import DEBUG, ConnectionReused
from mailrider.observe.metrics import FanOut

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration


def configured(tmp_path: Path, *lines: str) -> Configuration:
    path = tmp_path / "mailrider.conf"
    path.write_text("\n".join(["hostname mx.here.test", *lines]))
    return load(str(path))


def names(path: Path) -> list[str]:
    """Of the events in a log of lines."""
    return [line.split()[2] for line in path.read_text().splitlines()]


def test_after_a_reload_it_is_written_where_the_new_configuration_says(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    log = DaemonLog(configured(tmp_path, f"log file {first}"))
    log(DaemonStopping("one"))
    log.change(configured(tmp_path, f"log file {second} json"))
    log(DaemonStopping("two"))
    log.write("of a worker\n")
    log.change(configured(tmp_path, "log off"))
    log(DaemonStopping("three"))
    assert names(first) == ["daemon_stopping"]
    told, of_a_worker = second.read_text().splitlines()
    assert '"event": "daemon_stopping"' in told
    assert of_a_worker == "of a worker"
    log.close()


def test_where_the_new_file_cannot_be_written_the_old_one_goes_on(tmp_path: Path) -> None:
    log = DaemonLog(configured(tmp_path, f"log file {tmp_path}/old"))
    with pytest.raises(LocalError):
        log.change(configured(tmp_path, f"log file {tmp_path}/missing/new"))
    log(DaemonStopping("one"))
    assert names(tmp_path / "old") == ["daemon_stopping"]
    log.close()


def test_debug_holds_from_the_reload_on_that_turns_it_on_and_to_the_one_that_turns_it_off(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DaemonLog(configured(tmp_path, f"log file {path}"))
    told = FanOut(log)
    assert ConnectionReused.level is DEBUG
    for more in ([], ["debug yes"], []):
        log.change(configured(tmp_path, f"log file {path}", *more))
        told.ask_again()
        told.emit(ConnectionReused("mx.a.test", "192.0.2.1", 1))
    assert names(path) == ["connection_reused"]
    log.close()


def test_a_file_that_was_moved_away_is_begun_anew_or_goes_on_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "log"
    log = DaemonLog(configured(tmp_path, f"log file {path}"))
    path.rename(tmp_path / "log.1")
    log.reopen()
    log(DaemonStopping("one"))
    assert names(path) == ["daemon_stopping"]
    path.rename(tmp_path / "log.2")
    path.mkdir()
    log.reopen()
    assert names(tmp_path / "log.2") == ["daemon_stopping", "log_not_reopened"]
    log.close()


def disk_full(*_: object) -> int:
    raise OSError(errno.ENOSPC, "No space left on device")


def test_lines_that_were_lost_in_a_file_are_counted_when_it_is_closed_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = DaemonLog(configured(tmp_path, f"log file {tmp_path}/log"))
    assert log.lost == 0
    with monkeypatch.context() as patch:
        patch.setattr(os, "write", disk_full)
        for _ in range(3):
            log(DaemonStopping("one"))
    log.change(configured(tmp_path))
    assert log.lost == 3
    log.close()
