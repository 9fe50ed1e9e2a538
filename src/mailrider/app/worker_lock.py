"""A lock that every worker of a supervisor inherits: as long as one of them lives, nothing else begins to deliver."""

from __future__ import annotations

import fcntl
import os
import signal
from typing import TYPE_CHECKING, Final

from mailrider.errors import LocalError
from mailrider.files import PRIVATE_FILE, make_folder
from mailrider.model.daemon_event import DaemonStopping, EarlierWorkersAwaited

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.event import Emit

    Signals = asyncio.Queue[signal.Signals] | asyncio.Queue[signal.Signals | None]

LOCK: Final = "workers.lock"  # in the state directory
AGAIN: Final = 0.1  # seconds


async def take_lock(state_dir: Path, clock: Clock, emit: Emit, gives_up: Callable[[], bool]) -> int | None:
    """A descriptor that holds the lock, once nobody else does; None if `gives_up` says so. Raises `LocalError`."""
    path = state_dir / LOCK
    try:
        make_folder(state_dir)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, PRIVATE_FILE)
    except OSError as error:
        raise LocalError(f"cannot open {path}: {error.strerror}") from error
    if await _is_taken(descriptor, path, clock, emit, gives_up):
        return descriptor
    os.close(descriptor)
    return None


async def wait_for_earlier_workers(state_dir: Path, clock: Clock, emit: Emit, gives_up: Callable[[], bool]) -> bool:
    """Where one process serves now, until the workers of an earlier supervisor are gone; False if `gives_up` says so.
    The lock is not kept: only workers are waited for."""
    path = state_dir / LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return True  # there was no supervisor, or it was not of this user
    try:
        return await _is_taken(descriptor, path, clock, emit, gives_up)
    finally:
        os.close(descriptor)


async def _is_taken(descriptor: int, path: Path, clock: Clock, emit: Emit, gives_up: Callable[[], bool]) -> bool:
    """True once we have the lock, False if `gives_up` said so before."""
    is_told = False
    while not _is_free(descriptor):
        if not is_told:
            emit(EarlierWorkersAwaited(str(path)))
            is_told = True
        if gives_up():
            return False
        await clock.sleep(AGAIN)
    return True


def is_told_to_stop(told: Signals, emit: Emit) -> bool:
    """Whether a signal said so while earlier workers are waited for. A reload is left for afterwards: one, however
    often it was asked for."""
    caught = [told.get_nowait() for _ in range(told.qsize())]
    if signal.SIGHUP in caught:
        told.put_nowait(signal.SIGHUP)
    stop = next((each for each in caught if each is not None and each is not signal.SIGHUP), None)
    if stop is not None:
        emit(DaemonStopping(stop.name))
    return stop is not None


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
