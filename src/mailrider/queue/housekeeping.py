"""What a queue does now and then: it renews leases, settles what is late, and sees what nobody told it.

Another process says when it changed the store (`queue.sqlite.signals`); if that signal got lost, or if the wall clock
was set, mail is late, not lost.
"""

from __future__ import annotations

from collections import deque
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable
    from datetime import timedelta

    from mailrider.clock import Clock
    from mailrider.model.reply import Reply
    from mailrider.queue.retry import Rules
    from mailrider.queue.settler import CommitRetry, Committed, Settler
    from mailrider.queue.store import Store

TICK: Final = 5.0  # seconds between two questions whether another process changed the store
HOUSEKEEPING: Final = 60.0  # seconds between two renewals of leases and looks for what is late
LATE: Final = 200  # jobs that one step of the look for late ones settles
SKEW: Final = 2.0  # seconds by which the wall clock may differ from the steady one before it has jumped


@dataclass(slots=True, eq=False)
class Housekeeping:
    """That of one store. `down_because` says of a destination why it cannot be reached; None: it can."""

    store: Store
    rules: Rules
    settler: Settler
    commits: CommitRetry
    clock: Clock
    down_because: Callable[[str], Reply | None]
    _elapsed: float = 0.0
    _offset: float = 0.0
    only_renews: bool = False
    """Nothing is begun any more: leases are renewed, and what waits to be given back is."""

    def begin(self) -> None:
        """The store is open from now on."""
        self._offset = self._clock_offset()

    async def tick(self) -> AsyncGenerator[Committed | None, None]:
        """Wait for a moment, and do what is to be done: gives what was committed, and None where the store is to be
        looked through. Raises `StoreUnavailable`."""
        await self.clock.sleep(TICK)
        self._elapsed += TICK
        if self._elapsed >= HOUSEKEEPING:
            self._elapsed = 0.0
            if await self.store.keep_alive(self.clock.now()):
                yield None
            if self.only_renews:
                await self.commits.give_back(())
                return
            async with aclosing(self._settle_late()) as late:
                async for committed in late:
                    yield committed
            # What was leased for that no look could see; and if a signal got lost, mail is late, not lost.
            yield None
        if await self.store.changed_elsewhere() or self._clock_jumped():
            yield None

    # Where no attempt comes along ------------------------------------------------------------------------------------

    async def _settle_late(self) -> AsyncGenerator[Committed, None]:
        """Tell senders of delays, and give up, where no attempt comes along that would; gives what was committed."""
        rules = self.rules
        if rules.delay_warning:
            async for each in self._settle_older(rules.delay_warning, unwarned=True):
                yield each
        async for each in self._settle_older(rules.expire, unwarned=False):
            yield each

    async def _settle_older(self, age: timedelta, *, unwarned: bool) -> AsyncGenerator[Committed, None]:
        """Expired jobs whose destination can be reached are skipped: one last attempt settles them."""
        while True:
            now = self.clock.now()
            jobs = await self.store.claim_older(now - age, LATE, unwarned=unwarned)
            expired = [job for job in jobs if now >= job.created + self.rules.expire]
            left = [job for job in expired if self.down_because(job.destination) is None]
            waiting = deque(job for job in jobs if job not in left)
            try:
                while waiting:
                    reason = self.down_because(waiting[0].destination)
                    settling = await self.settler.late(waiting[0], now, self.store.content, reason)
                    settled = await self.commits.record(settling.settlement)
                    waiting.popleft()
                    committed = self.settler.committed(settling, settled)
                    if committed is not None:
                        yield committed
            finally:
                await self.commits.give_back([*left, *waiting])
            if len(jobs) < LATE or left:
                return

    # The clock --------------------------------------------------------------------------------------------------------

    def _clock_offset(self) -> float:
        return self.clock.now().timestamp() - self.clock.monotonic()

    def _clock_jumped(self) -> bool:
        """True if the wall clock was set: what is due is not what the timer believes."""
        offset = self._clock_offset()
        jumped, self._offset = abs(offset - self._offset) > SKEW, offset
        return jumped
