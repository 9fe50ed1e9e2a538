"""A lock that every worker of a supervisor inherits: as long as one of them lives, no other supervisor begins."""

from __future__ import annotations

import fcntl
import os
from typing import TYPE_CHECKING, Final

from mailrider.errors import LocalError
from mailrider.files import PRIVATE_FILE, make_folder
from mailrider.model.daemon_event import EarlierWorkersAwaited

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from mailrider.clock import Clock
    from mailrider.model.event import Emit

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
    is_told = False
    while not _is_free(descriptor):
        if not is_told:
            emit(EarlierWorkersAwaited(str(path)))
            is_told = True
        if gives_up():
            os.close(descriptor)
            return None
        await clock.sleep(AGAIN)
    return descriptor


def _is_free(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
