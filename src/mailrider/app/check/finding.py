"""What was looked at, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(enum.StrEnum):
    """How bad it is.

    `error`: mail is refused, lost or late because of it. `warning`: it should be mended. `note`: somebody's choice, or
    a hint: a sane set-up may have notes for ever.
    """

    OK = "ok"
    NOTE = "note"
    WARNING = "warning"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `cure` says what to do."""

    level: Level
    subject: str
    text: str
    cure: str = ""


def ok(subject: str, text: str) -> Finding:
    """It is as it should be."""
    return Finding(Level.OK, subject, text)


def note(subject: str, text: str, cure: str = "") -> Finding:
    """See `Level`."""
    return Finding(Level.NOTE, subject, text, cure)


def warning(subject: str, text: str, cure: str = "") -> Finding:
    """See `Level`."""
    return Finding(Level.WARNING, subject, text, cure)


def error(subject: str, text: str, cure: str = "") -> Finding:
    """See `Level`."""
    return Finding(Level.ERROR, subject, text, cure)


def count(findings: Iterable[Finding], level: Level) -> int:
    """How many are of that level."""
    return sum(1 for each in findings if each.level is level)
