"""What `mailrider check` says: one finding at a time."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at. `level` is `ok`, `note`, `warning` or `error`; `cure` says what to do."""

    level: str
    subject: str
    text: str
    cure: str = ""
