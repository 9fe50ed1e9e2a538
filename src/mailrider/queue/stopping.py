"""How running attempts come to their end when a queue stops.

At once what has not begun to send, within a bound what has; what is cut off behind its final dot is recorded in doubt,
and everything else that is cut off counts as no try.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, TypeAlias

from mailrider.clock import Deadline

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

    from mailrider.clock import Clock
    from mailrider.queue.attempts import AttemptProgress

    Running: TypeAlias = Mapping[asyncio.Task[None], AttemptProgress]  # it changes as attempts end

GRACE: Final = 30.0  # seconds that a stop gives attempts that send, or wait for the reply to what they sent
RECORDING: Final = 5.0  # seconds that a stop gives what was cut off to be recorded


def cut_off(running: Running, *, sparing_awaited: bool) -> None:
    """End attempts: each is recorded if it had any effect, and else its job is given back as if nothing had been."""
    for task, progress in list(running.items()):
        if not (sparing_awaited and progress.is_awaited) and not progress.cut_off():
            task.cancel()


async def all_ended(running: Running) -> None:
    """Wait until they have come to their own end."""
    while running:
        await asyncio.wait(running)


async def end_within(grace: float, running: Running, clock: Clock) -> None:
    """Give them so many seconds, and end them then."""
    if await is_done_within(grace, all_ended(running), clock):
        return
    cut_off(running, sparing_awaited=False)
    if await is_done_within(RECORDING, all_ended(running), clock):
        return
    left = list(running)
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)


async def is_done_within(seconds: float, work: Awaitable[object], clock: Clock) -> bool:
    """Wait for it; False if it takes longer."""
    try:
        async with Deadline(clock, clock.monotonic() + seconds):
            await work
    except TimeoutError:
        return False
    return True
