"""Time that several steps share."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.clock import Clock


class Budget:
    """The seconds that a candidate's address lookup and connects may take together.

    `with budget as deadline: ...` lets its time run for the block; `deadline` is a reading of the clock.
    `with budget.share(steps) as deadline: ...` is for the first of so many steps: it leaves time to the others.
    """

    __slots__ = ("_clock", "_left", "_since")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._left = seconds
        self._since = 0.0

    def __enter__(self) -> float:
        self._since = self._clock.monotonic()
        return self._since + self._left

    def __exit__(self, *_: object) -> None:
        self._left = max(0.0, self._left - (self._clock.monotonic() - self._since))

    @contextmanager
    def share(self, steps: int) -> Iterator[float]:
        """As the budget itself, with an even share of what is left: what a step does not use is the others'."""
        with self:
            yield self._since + self._left / steps
