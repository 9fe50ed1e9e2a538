"""What was looked at, and what came of it."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class Level(enum.StrEnum):
    """How bad a finding is.

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


ok = partial(Finding, Level.OK)
note = partial(Finding, Level.NOTE)
warning = partial(Finding, Level.WARNING)
error = partial(Finding, Level.ERROR)


def count(findings: Iterable[Finding], level: Level) -> int:
    """How many are of that level."""
    return sum(1 for each in findings if each.level is level)
