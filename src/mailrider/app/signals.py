"""The signals that a daemon obeys: those that come before it can obey them wait."""

from __future__ import annotations

import asyncio
import signal
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

OBEYED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def hold_back_sighup() -> Iterator[None]:
    """SIGHUP would end a process that does not obey it yet: it waits until `obeyed`.

    Whoever has come to the end of this ends the process with an exit code of its own: SIGHUP, one that waits too, does
    nothing any more.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def obeyed(tell: Callable[[signal.Signals], object]) -> Iterator[None]:
    """`tell` is called with each signal that comes, and came while it had to wait."""
    loop = asyncio.get_running_loop()
    for each in OBEYED:
        loop.add_signal_handler(each, tell, each)
    before = signal.pthread_sigmask(signal.SIG_UNBLOCK, OBEYED)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        for each in OBEYED:
            loop.remove_signal_handler(each)
