"""Timers by name: each has one moment, and a new one takes its place."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock, Timer


class Timers:
    """The timers of one owner."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._timers: dict[str, Timer] = {}

    def at(self, name: str, seconds: float, callback: Callable[[], object]) -> None:
        """Call it so many seconds from now, instead of what was to be called under that name."""
        if (earlier := self._timers.pop(name, None)) is not None:
            earlier.cancel()

        def due() -> None:
            del self._timers[name]
            callback()

        self._timers[name] = self._clock.call_at(self._clock.monotonic() + seconds, due)

    def repeat(self, name: str, seconds: float | None, callback: Callable[[], object]) -> None:
        """Call it every so many seconds; None: never."""
        if seconds is None:
            return

        def again() -> None:
            self.at(name, seconds, again)
            callback()

        self.at(name, seconds, again)

    def cancel(self) -> None:
        """Nothing is called any more."""
        for timer in self._timers.values():
            timer.cancel()
        self._timers.clear()
