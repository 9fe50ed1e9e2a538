"""Tells the service manager how the daemon is: sd_notify(3), and its watchdog."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


class Notifier:
    """Tells the service manager; silent where there is none."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._address = environment.get("NOTIFY_SOCKET", "")

    def say(self, *words: str) -> None:
        """Assignments such as `READY=1`. Never fails: a service manager that does not listen is its own problem."""
        self._send(words, 0)

    def say_alive(self) -> None:
        """For its watchdog. Never waits: the next time comes soon."""
        self._send(("WATCHDOG=1",), socket.MSG_DONTWAIT)

    def _send(self, words: tuple[str, ...], flags: int) -> None:
        if not self._address:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as opened:
                opened.connect(address)
                opened.send("\n".join(words).encode(), flags)
        except OSError:
            return


def watchdog_interval(environment: Mapping[str, str], pid: int) -> float | None:
    """Seconds between two `WATCHDOG=1`: half of what the manager waits for one (sd_watchdog_enabled(3)); None: it does
    not wait for any of this process."""
    if environment.get("WATCHDOG_PID", str(pid)) != str(pid):
        return None
    try:
        microseconds = int(environment.get("WATCHDOG_USEC", ""))
    except ValueError:
        return None
    return microseconds / 2e6 if microseconds > 0 else None
