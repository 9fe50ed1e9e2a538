"""What the service manager is told."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from mailrider.app.notify import Notifier, watchdog_interval

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize(
    ("environment", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "30000000"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "7"}, 15.0),
        ({"WATCHDOG_USEC": "30000000", "WATCHDOG_PID": "8"}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
    ids=["no watchdog", "half of its time", "of this process", "of another process", "no number", "switched off"],
)
def test_how_often_the_watchdog_is_told(environment: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environment, 7) == seconds


def test_a_manager_that_does_not_read_is_told_what_matters_and_nobody_waits_for_the_rest(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        notifier = Notifier({"NOTIFY_SOCKET": str(tmp_path / "notify")})
        notifier.say("READY=1", "STATUS=2 workers")
        for _ in range(1000):
            notifier.say_alive()
        assert manager.recv(100) == b"READY=1\nSTATUS=2 workers"
        assert manager.recv(100) == b"WATCHDOG=1"


def test_an_abstract_socket_has_a_name_too() -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0mailrider-test-notify")
        Notifier({"NOTIFY_SOCKET": "@mailrider-test-notify"}).say("READY=1")
        assert manager.recv(100) == b"READY=1"


@pytest.mark.parametrize("environment", [{}, {"NOTIFY_SOCKET": "/nowhere/at/all"}])
def test_without_a_manager_nothing_happens(environment: dict[str, str]) -> None:
    Notifier(environment).say("READY=1")
