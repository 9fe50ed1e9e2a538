"""The log of the daemon: on standard error or in a file, as the configuration says; a reload may change all of it."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from mailrider.cli.setup import make_log
from mailrider.clock import SystemClock
from mailrider.errors import LocalError
from mailrider.model.daemon_event import LogLinesLost, LogNotReopened
from mailrider.observe.log import EventLog
from mailrider.observe.log_file import LogFile
from mailrider.observe.unblocked_stream import UnblockedStream

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration
    from mailrider.model.event import Emit, Event

LAST_LINES = 1.0  # seconds that a reader of standard error has for the last lines


class DaemonLog:
    """An `Emit`, and a stream for lines of workers. After `change`, whoever `ChoosesEvents` asks again."""

    def __init__(self, configuration: Configuration) -> None:
        """Raises `LocalError` if the file cannot be written."""
        self._stderr = UnblockedStream(sys.stderr.fileno(), SystemClock())
        self._stderr.on_recovery = lambda lines: self(LogLinesLost(lines))
        self._path: Path | None = None
        self._file: LogFile | None = None
        self._lost = 0  # in files that are closed
        self._log: EventLog | None = None
        self.change(configuration)

    @property
    def lost(self) -> int:
        """How many lines nobody got."""
        return self._stderr.lost + self._lost + (0 if self._file is None else self._file.lost)

    def change(self, configuration: Configuration) -> None:
        """Write as this configuration says. Raises `LocalError`, and all is as it was."""
        path = configuration.globals.log.path
        if path != self._path:
            file = None if path is None else LogFile(path)
            self._close_file()
            self._path, self._file = path, file
        debug = configuration.globals.debug
        log = make_log(configuration, debug=debug, quiet=False, stream=self._file or self._stderr)
        self._log = log if isinstance(log, EventLog) else None

    def reopen(self) -> None:
        """The file may have been moved away."""
        if self._file is not None:
            try:
                self._file.reopen()
            except LocalError as error:
                self(LogNotReopened(str(error)))

    def write(self, lines: str) -> None:
        """Whole lines of a worker."""
        (self._file or self._stderr).write(lines)

    def __call__(self, event: Event) -> None:
        if self._log is not None:
            self._log(event)

    def listener_for(self, kind: type[Event]) -> Emit | None:
        """See `fan_out`."""
        return None if self._log is None else self._log.listener_for(kind)

    def close(self) -> None:
        """These were the last lines."""
        self._stderr.finish(LAST_LINES)
        self._close_file()

    def _close_file(self) -> None:
        if self._file is not None:
            self._lost += self._file.lost
            self._file.close()
            self._file = None
