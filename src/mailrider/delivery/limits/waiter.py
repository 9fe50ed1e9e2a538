"""Who waits for limits: asks for one of each need, and enters when there is; this process counts, or the supervisor."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from mailrider.delivery.limits.lines import AskLater

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from mailrider.delivery.limits.lines import Need


class Counts(Protocol):
    """Who counts by the lines: `process_limits.ProcessLimits`, or `share_client.ShareClient`."""

    def take(self, needs: Sequence[Need], /) -> bool:
        """True if there was one of each to be had at once: it is in use from now on."""

    def ask(
        self,
        needs: Sequence[Need],
        answered: Callable[[AskLater | int], None],
        patience: float = 0.0,
        *,
        waits: Callable[[Need, float], None] | None = None,
    ) -> int:
        """Ask for one of each. `answered` is called once, unless the ask is withdrawn; perhaps before this returns.

        `waits` is told before what is in the way, and for how many seconds at least; 0: nobody knows.
        """

    def shorten(self, ask: int, first: int) -> None:
        """Ask only for the needs from that index on; harmless if the ask was answered."""

    def withdraw(self, ask: int) -> None:
        """Nobody waits for it any more; harmless if it was answered."""

    def leave(self, needs: Sequence[Need]) -> None:
        """One of each is not in use any more; what is a rate stays used."""


class LimitWaiter:
    """Somebody who wants one of each need, and may have to wait for it."""

    __slots__ = ("_ask", "_counts", "_needs", "_unneeded")

    def __init__(self, counts: Counts, needs: Sequence[Need]) -> None:
        self._counts = counts
        self._needs = needs
        self._ask: int | None = None  # while it waits
        self._unneeded = 0  # of the needs, from the first on: it was shortened before its ask had a number

    async def enter(
        self,
        patience: float = 0.0,
        waits: Callable[[Need, float], None] | None = None,
        entered: Callable[[], None] | None = None,
    ) -> AskLater | None:
        """Wait for one of each; None if they are there: `leave` is due. If it is cancelled nothing is held.

        `entered` is called in the moment in which it enters, before anybody else does. From then on `leave` is due,
        also if it is cancelled in that very turn.
        """
        if self._counts.take(self._needs):
            if entered is not None:
                entered()
            return None
        future: asyncio.Future[AskLater | None] = asyncio.get_running_loop().create_future()

        def answered(answer: AskLater | int) -> None:
            self._ask = None
            unneeded, self._needs = self._needs[: self._unneeded], self._needs[self._unneeded :]
            if unneeded and not isinstance(answer, AskLater):
                self._counts.leave(unneeded)
            if isinstance(answer, AskLater):
                if not future.done():
                    future.set_result(answer)
            elif future.done():  # cancelled in this turn
                self._counts.leave(self._needs)
            else:
                if entered is not None:
                    entered()
                future.set_result(None)

        ask = self._counts.ask(self._needs, answered, patience, waits=waits)
        if not future.done():
            self._ask = ask
            if self._unneeded:
                first, self._unneeded = self._unneeded, 0
                self.shorten(first)
        try:
            return await future
        except BaseException:
            self._ask = None
            self._counts.withdraw(ask)
            if entered is None and future.done() and not future.cancelled() and future.result() is None:
                self._counts.leave(self._needs)
            raise

    def shorten(self, first: int) -> None:
        """While it waits: its needs from that index on are enough."""
        if self._ask is None:
            self._unneeded = first
        else:
            self._needs = self._needs[first:]
            self._counts.shorten(self._ask, first)
