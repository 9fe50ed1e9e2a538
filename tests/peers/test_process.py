"""Programs are started, awaited and stopped, and say why when they do not come up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import psutil
import pytest

from tests.peers.process import NotReadyError, accepts, running, wait_until
from tests.support.loopback import new_address

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path


def never() -> bool:
    return False


def test_a_program_that_gives_up_is_reported_with_its_last_words(tmp_path: Path) -> None:
    with pytest.raises(NotReadyError, match="ended with 3\nno such luck"):
        with running(["sh", "-c", "echo no such luck; exit 3"], log=tmp_path / "log", ready=never):
            pass


def test_what_a_program_started_ends_with_it(tmp_path: Path) -> None:
    born = tmp_path / "born"
    script = f"sleep 1000 & echo $! > {born}; wait"
    with running(["sh", "-c", script], log=tmp_path / "log", ready=lambda: born.exists() and bool(born.read_text())):
        child = psutil.Process(int(born.read_text()))
        assert child.is_running()
    wait_until(lambda: not child.is_running() or child.status() == psutil.STATUS_ZOMBIE, "the end of the child", 5)


def test_an_exception_in_the_block_stops_the_program_too(tmp_path: Path) -> None:
    started: list[subprocess.Popen[bytes]] = []

    def start_and_fail() -> None:
        with running(["sleep", "1000"], log=tmp_path / "log", ready=lambda: True) as process:
            started.append(process)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        start_and_fail()
    assert started[0].returncode is not None


def test_waiting_has_a_bound() -> None:
    with pytest.raises(NotReadyError, match=r"something: not within 0\.05 s"):
        wait_until(never, "something", within=0.05)


def test_nobody_accepts_where_nobody_listens() -> None:
    assert not accepts(new_address(), 2525)
