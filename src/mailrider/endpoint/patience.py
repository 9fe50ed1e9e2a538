"""How long a client may take. One timer a connection: it is not moved for each command, but set again when it ends.

Each command has `read_timeout` in all, and so has every 64 KiB of content; while *we* work the time rests. So who is
silent, who sends one octet a second, and who does not read our replies is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.smtp.content import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock, Timer


class Patience:
    """The time of one client. `is_working`: we work, and the client waits. `is_over`: it has taken too long."""

    __slots__ = ("_clock", "_deadline", "_ended", "_progress", "_seconds", "_timer", "is_over", "is_working")

    def __init__(self, clock: Clock, seconds: float, ended: Callable[[], object]) -> None:
        """`ended` is called when the client has taken more than so many seconds; its time begins with `restart`."""
        self._clock = clock
        self._seconds = seconds
        self._ended = ended
        self._deadline = 0.0
        self._progress = 0  # octets of content since the time began
        self._timer: Timer | None = None
        self.is_working = False
        self.is_over = False

    def restart(self) -> None:
        """The client has got somewhere: its time begins anew."""
        self._progress = 0
        self._deadline = self._clock.monotonic() + self._seconds
        if self._timer is None:
            self._timer = self._clock.call_at(self._deadline, self._look_at_clock)

    def note_content(self, octets: int) -> None:
        """So many octets of content have arrived."""
        self._progress += octets
        if self._progress >= CHUNK:
            self.restart()

    def stop(self) -> None:
        """The connection has ended; nobody is told any more."""
        self._ended = _nothing  # no cycle is left behind
        if self._timer is not None:
            self._timer.cancel()

    def _look_at_clock(self) -> None:
        now = self._clock.monotonic()
        if self.is_working:
            self._deadline = now + self._seconds
        if now < self._deadline:
            self._timer = self._clock.call_at(self._deadline, self._look_at_clock)
            return
        self.is_over = True
        self._ended()


def _nothing() -> None:
    pass
