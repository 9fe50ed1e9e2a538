"""The log: key=value lines for people, JSON for machines; on standard error.

`EventLog` is an `Emit`. It never fails and never stops mail: a line that cannot be written is lost. Details are written
under `debug` only, and nothing is formatted for a line that is not written.

The lines are made here and by no logging library: two of them belong to each message that is relayed, and of what a
line cost with one (structlog), half was what it does around the line.
"""

from __future__ import annotations

import os
import re
import sys
import traceback
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

from mailrider.clock import SystemClock
from mailrider.model.event import DEBUG
from mailrider.model.text import json_line
from mailrider.observe.describe import LogLine, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailrider.clock import Clock
    from mailrider.model.event import Emit, Event

_CLOCK = SystemClock()


class Stream(Protocol):
    """Where lines go, each as soon as it is whole."""

    def write(self, text: str, /) -> object: ...


class EventLog:
    """Writes events to `stream`; `style` is `text` or `json`."""

    def __init__(
        self,
        stream: Stream | None = None,
        *,
        style: str = "text",
        debug: bool = False,
        clock: Clock = _CLOCK,
        journal: bool = False,
        worker: int | None = None,
    ) -> None:
        """`journal`: it is systemd's, which knows the time, and is told how grave a line is. `worker`: whose log this
        is, for each line to tell."""
        self._debug = debug
        self._stream: Stream = stream or sys.stderr
        self._render: Callable[[str, LogLine], str] = _for_machines if style == "json" else _for_people
        self._clock = clock
        self._journal = journal
        self._worker = worker

    def listener_for(self, kind: type[Event]) -> Emit | None:
        """See `fan_out`."""
        return None if kind.level is DEBUG and not self._debug else self

    def __call__(self, event: Event) -> None:
        if event.level is DEBUG and not self._debug:
            return
        try:
            line = describe(event)
            if line.level is DEBUG and not self._debug:
                return
            if self._worker is not None:
                line = LogLine(line.level, line.name, {**line.fields, "worker": self._worker}, line.error)
            now = self._clock.now().isoformat(timespec="microseconds").replace("+00:00", "Z")
            text = self._render(now, line)
            self._stream.write((for_journal(text, line.level, now) if self._journal else text) + "\n")
        except Exception:
            # The disk is full, the pipe is gone, or a bug: mail matters more than its log.
            return


def is_journal(environment: Mapping[str, str], descriptor: int) -> bool:
    """True if what is written there goes to systemd's journal: it says which stream it gave us (systemd.exec(5))."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return environment.get("JOURNAL_STREAM", "") == f"{found.st_dev}:{found.st_ino}"


# The priorities of syslog, as sd-daemon(3) wants them before a line.
_PRIORITIES: Final = {"debug": "<7>", "info": "<6>", "warning": "<4>", "error": "<3>"}


def for_journal(text: str, level: str, now: str) -> str:
    """A line without its time, with its priority; each further line (of a traceback) would be one of its own."""
    priority = _PRIORITIES[level]
    return priority + text.removeprefix(f"{now} ").replace("\n", f"\n{priority}")


def _for_people(now: str, line: LogLine) -> str:
    """`2026-11-21T02:30:00.000000Z info delivered recipient=b@example.net mx=...`: values with spaces are quoted."""
    return f"{now} {line.level} {line_text(line)}"


def line_text(line: LogLine) -> str:
    """A line without its time and its level; a field without a value is left out."""
    fields = [f"{name}={_quoted(_word(value))}" for name, value in line.fields.items() if value is not None]
    text = " ".join([line.name, *fields])
    # Nothing that an exception quotes can begin a line of the log.
    return text if line.error is None else "\n    ".join([text, *map(_printable, _trace(line.error).split("\n"))])


def _word(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _for_machines(now: str, line: LogLine) -> str:
    exception = {} if line.error is None else {"exception": _trace(line.error)}
    return json_line({**line.fields, "event": line.name, "level": line.level, "timestamp": now, **exception})


def _trace(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)).rstrip("\n")


# An empty value, or one that holds what a reader takes for the end of it.
_NEEDS_QUOTES = re.compile(r"""\A\Z|[ "'=\\]""").search


@lru_cache(maxsize=4096)  # hosts, levels and replies are always the same
def _quoted(text: str) -> str:
    if text.isprintable() and not _NEEDS_QUOTES(text):
        return text
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
