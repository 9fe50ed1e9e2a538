"""Events for programs that use `logging`: `Remote(on_event=mailrider.log_to(logging.getLogger("mail")), ...)`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from mailrider.model.event import DEBUG
from mailrider.observe.describe import describe
from mailrider.observe.log import line_text

if TYPE_CHECKING:
    from mailrider.model.event import Emit, Event

_LEVELS = logging.getLevelNamesMapping()


def log_to(logger: logging.Logger | None = None) -> Emit:
    """An `on_event` that gives each event to a logger, "mailrider" if none is given: the text and level of our log.

    The record's `mailrider` has the fields of the line, for handlers that write JSON. Nothing is made into text for a
    level that the logger does not want.
    """
    logger = logger or logging.getLogger("mailrider")

    def log(event: Event) -> None:
        if event.level is DEBUG and not logger.isEnabledFor(logging.DEBUG):
            return
        line = describe(event)
        level = _LEVELS[line.level.upper()]
        if logger.isEnabledFor(level):
            extra = {"mailrider": {"event": line.name, **line.fields}}
            logger.log(level, "%s", line_text(line), extra=extra)

    return log
