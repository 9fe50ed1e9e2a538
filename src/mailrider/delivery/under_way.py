"""The attempts that are under way for a queue, so that a stop knows what must not be cut off without a record.

An attempt that has sent nothing of the content and decided no recipient may simply be cancelled. One that sends is
waited for. One that has to be cut off in spite of that still reports: replies that were read stand, what a server may
have taken is in doubt.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mailrider.delivery.attempt import Attempt
    from mailrider.model.outcome import Outcome


class AttemptsUnderWay:
    """Attempts by the tasks in which they run. A task has one at a time."""

    def __init__(self) -> None:
        self._attempts: dict[asyncio.Task[Any] | None, Attempt] = {}

    async def run(self, attempt: Attempt) -> tuple[Outcome, ...]:
        """Run it, and know of it meanwhile."""
        task = asyncio.current_task()
        self._attempts[task] = attempt
        try:
            return await attempt.run()
        finally:
            del self._attempts[task]

    def is_sending(self, task: asyncio.Task[Any]) -> bool:
        """True if the task sends content, or waits for the reply to it."""
        attempt = self._attempts.get(task)
        return attempt is not None and attempt.is_sending

    def cut_off(self, task: asyncio.Task[Any]) -> bool:
        """End the task's attempt. True if it reports what it came to; False: it has no effect, and nothing was done."""
        attempt = self._attempts.get(task)
        if attempt is None or not attempt.has_effect:
            return False
        attempt.cut_off(task)
        return True
