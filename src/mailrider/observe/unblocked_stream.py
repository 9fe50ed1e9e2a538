"""A stream that never makes its writer wait: mail goes on when nobody reads the log.

What cannot be written at once is kept in memory, as much as `MAX_KEPT`, and written as soon as it can be; lines beyond
that are lost, and counted. When the stream works again `on_recovery` is told how many they were.

The descriptor stays in its blocking mode, since others may share it. It is asked before each write whether it takes
`PIPE_BUF` octets: a pipe or socket that says so takes them without waiting (poll(2), pipe(7)).

A worker's log is a pipe to its supervisor. Should that be gone, the `spare` descriptor is written instead.
"""

from __future__ import annotations

import os
import select
from collections import deque
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.clock import Clock, Timer

MAX_KEPT: Final = 4 * 1024 * 1024  # octets that wait for a reader: some 20,000 lines
AGAIN: Final = 0.25  # seconds until a stuck stream is tried again


class UnblockedStream:
    """Writes text to a descriptor. `lost` lines so far."""

    def __init__(self, descriptor: int, clock: Clock, *, most: int = MAX_KEPT, spare: int | None = None) -> None:
        self.lost = 0
        self.on_recovery: Callable[[int], None] | None = None
        """Told of lines that were lost, once the stream works again."""
        self._descriptor = descriptor
        self._clock = clock
        self._most = most
        self._spare = spare
        self._waiting: deque[bytes] = deque()
        self._octets = 0
        self._untold = 0
        self._timer: Timer | None = None
        self._poll = select.poll()
        self._poll.register(descriptor, select.POLLOUT)

    def write(self, text: str) -> None:
        """One line, or a few that belong together. Never waits, and never fails."""
        data = text.encode("utf-8", "backslashreplace")
        if self._waiting:
            self._drain()
        if not self._waiting:
            data = self._put(data)
            if data:
                self._keep(data)
        elif self._octets + len(data) <= self._most:
            self._keep(data)
        else:
            lines = max(1, text.count("\n"))
            self.lost += lines
            self._untold += lines

    def finish(self, seconds: float) -> None:
        """Wait so long for a reader of what is left, at the end."""
        while self._waiting and self._is_ready(seconds):
            self._waiting[0] = self._put_some(self._waiting[0])
            if not self._waiting[0]:
                self._waiting.popleft()

    def _keep(self, data: bytes) -> None:
        self._waiting.append(data)
        self._octets += len(data)
        self._try_later()

    def _try_later(self) -> None:
        if self._timer is None:
            self._timer = self._clock.call_at(self._clock.monotonic() + AGAIN, self._try_again)

    def _try_again(self) -> None:
        self._timer = None
        self._drain()
        if self._waiting:
            self._try_later()

    def _drain(self) -> None:
        """Write what waits, as far as it is taken."""
        while self._waiting:
            data = self._waiting.popleft()
            self._octets -= len(data)
            rest = self._put(data)
            if rest:
                self._waiting.appendleft(rest)
                self._octets += len(rest)
                return
        untold, self._untold = self._untold, 0
        if untold and self.on_recovery is not None:
            self.on_recovery(untold)

    def _put(self, data: bytes) -> bytes:
        """Write it, as far as it is taken; returns the rest."""
        while data and self._is_ready(0):
            data = self._put_some(data)
        return data

    def _put_some(self, data: bytes) -> bytes:
        try:
            return data[os.write(self._descriptor, data[: select.PIPE_BUF]) :]
        except OSError as error:
            if isinstance(error, BrokenPipeError) and self._spare is not None:
                self._poll.unregister(self._descriptor)
                self._descriptor, self._spare = self._spare, None
                self._poll.register(self._descriptor, select.POLLOUT)
                return data
            # The reader is gone, or the disk is full: mail matters more than its log.
            self.lost += 1
            return b""

    def _is_ready(self, seconds: float) -> bool:
        return bool(self._poll.poll(seconds * 1000))
