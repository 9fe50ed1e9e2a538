"""The log: key=value lines for people, JSON for machines; on standard error.

`EventLog` is an `Emit`. It never fails and never stops mail: a line that cannot be written is lost. Details are written
under `debug` only, and nothing is formatted for a line that is not written.
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Any, TextIO

import structlog

from mailrider.model.text import json_line
from mailrider.observe.describe import DEBUG, ERROR, INFO, WARNING, describe

if TYPE_CHECKING:
    from mailrider.model.event import Event


class EventLog:
    """Writes events to `stream`; `style` is `text` or `json`."""

    def __init__(self, stream: TextIO | None = None, *, style: str = "text", debug: bool = False) -> None:
        self._debug = debug
        logger = _make_logger(stream or sys.stderr, style)
        self._write = {level: getattr(logger, level) for level in (DEBUG, INFO, WARNING, ERROR)}

    def __call__(self, event: Event) -> None:
        if event.is_detail and not self._debug:
            return
        try:
            line = describe(event)
            if line.level == DEBUG and not self._debug:
                return
            fields = dict(line.fields)
            if line.error is not None:
                fields["exc_info"] = line.error
            self._write[line.level](line.name, **fields)
        except Exception:
            # The disk is full, the pipe is gone, or a bug: mail matters more than its log.
            return


def _make_logger(stream: TextIO, style: str) -> Any:
    """A logger that is bound once: what structlog does for each line by default costs more than the line."""
    shared: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    if style == "json":
        shared.append(structlog.processors.JSONRenderer(lambda fields, **_: json_line(fields)))
    else:
        shared.append(_render_for_people)
    return structlog.wrap_logger(
        structlog.WriteLogger(stream), processors=shared, wrapper_class=structlog.BoundLogger, context_class=dict
    ).bind()


# An empty value, or one that holds what a reader takes for the end of it.
_NEEDS_QUOTES = re.compile(r"""\A\Z|[ "'=\\]""").search


def _render_for_people(_: Any, __: str, fields: Any) -> str:
    """`2026-11-21T02:30:00Z info delivered recipient=b@example.net mx=...`: values with spaces are quoted."""
    exception = fields.pop("exception", None)
    head = [fields.pop("timestamp"), fields.pop("level"), fields.pop("event")]
    line = " ".join([*head, *(f"{name}={_quoted(value)}" for name, value in fields.items())])
    # Nothing that an exception quotes can begin a line of the log.
    return "\n    ".join([line, *map(_printable, exception.split("\n"))]) if exception else line


def _quoted(value: object) -> str:
    text = str(value)
    if text.isprintable() and not _NEEDS_QUOTES(text):
        return text
    return '"' + _printable(text.replace("\\", "\\\\").replace('"', '\\"')) + '"'


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else f"\\x{ord(each):02x}" for each in text)
