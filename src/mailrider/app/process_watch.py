"""What may go wrong with the process itself while it runs, and would be seen by its consequences only.

- It has no file descriptors left: the event loop then closes new connections without a word, and files cannot be
  opened. The log says so once, before the last one is gone, and once when there are enough again.
- The clock on the wall is set, or the machine slept: all moments in the log, in DNSSEC signatures and in certificates
  are compared with it.
"""

from __future__ import annotations

import errno
import os
import resource
from typing import TYPE_CHECKING, Final

from mailrider.app.timers import Timers
from mailrider.model.daemon_event import ClockJumped, OpenFilesEnough, OpenFilesShort

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock
    from mailrider.model.event import Emit

LOOK_AGAIN: Final = 10.0  # seconds
SHORT: Final = 0.9  # of the descriptors that we may have
ENOUGH: Final = 0.8
JUMP: Final = 30.0  # seconds: less is what NTP corrects, or a loaded machine


def count_open_files() -> tuple[int, int]:
    """How many descriptors this process has, and may have."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        return len(os.listdir("/dev/fd")), most
    except OSError as error:
        return most if error.errno in (errno.EMFILE, errno.ENFILE) else 0, most


class ProcessWatch:
    """Looks every ten seconds, until it is closed. `tells_clock`: of several processes one tells that it was set."""

    def __init__(
        self,
        clock: Clock,
        emit: Emit,
        *,
        tells_clock: bool,
        count_files: Callable[[], tuple[int, int]] = count_open_files,
    ) -> None:
        self._clock = clock
        self._emit = emit
        self._tells_clock = tells_clock
        self._count_files = count_files
        self._timers = Timers(clock)
        self._is_short = False
        self._offset = self._clock_offset()

    def open(self) -> None:
        """Look now, and again and again."""
        self._look_at_files()
        self._timers.repeat("look", LOOK_AGAIN, self._look)

    def close(self) -> None:
        """Look no more."""
        self._timers.cancel()

    def _look(self) -> None:
        self._look_at_files()
        before, self._offset = self._offset, self._clock_offset()
        seconds = self._offset - before
        if self._tells_clock and abs(seconds) > JUMP:
            self._emit(ClockJumped(seconds))

    def _look_at_files(self) -> None:
        count, most = self._count_files()
        if not self._is_short and count >= most * SHORT:
            self._is_short = True
            self._emit(OpenFilesShort(count, most))
        elif self._is_short and count < most * ENOUGH:
            self._is_short = False
            self._emit(OpenFilesEnough(count, most))

    def _clock_offset(self) -> float:
        return self._clock.now().timestamp() - self._clock.monotonic()
