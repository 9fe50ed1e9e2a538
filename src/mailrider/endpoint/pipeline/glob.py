"""Patterns as those of file names: `*` any text, `?` one character, `[abc]` one of these, whatever their case. Pure.

Unlike `fnmatch`, which makes one regular expression of it, the work is bounded by the length of the text times the
length of the longest part without a `*`, whatever the text is; and no single step of it takes long, so that a thread
that matches keeps no other from running. A part without `?` and `[` is searched for in linear time.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_STEP: Final = 1 << 20  # comparisons in one search: some milliseconds

_PIECE = re.compile(r"\*+|\[!?\]?[^\]]*\]|.", re.DOTALL)


@dataclass(frozen=True, slots=True)
class _Part:
    """What stands between two stars: `size` characters, as text or as a pattern."""

    size: int
    text: str
    pattern: re.Pattern[str] | None

    def fits_at(self, text: str, at: int) -> bool:
        """True if it stands there."""
        return text.startswith(self.text, at) if self.pattern is None else self.pattern.match(text, at) is not None

    def find(self, text: str, start: int) -> int:
        """Where it first stands; -1: nowhere."""
        if self.pattern is None:
            return text.find(self.text, start)
        window = max(1, _STEP // self.size)
        for begin in range(start, len(text) - self.size + 1, window):
            found = self.pattern.search(text, begin, begin + window + self.size - 1)
            if found is not None:
                return found.start()
        return -1


@dataclass(frozen=True, slots=True)
class Glob:
    """A pattern for a whole text."""

    parts: tuple[_Part, ...]

    @classmethod
    @lru_cache(maxsize=1024)
    def of(cls, pattern: str) -> Glob:
        """Parse a pattern."""
        parts: list[list[str]] = [[]]
        for piece in _PIECE.findall(pattern.casefold()):
            if piece.startswith("*"):
                parts.append([])
            else:
                parts[-1].append(piece)
        return cls(tuple(map(_part, parts)))

    def fits(self, text: str) -> bool:
        """True if the pattern describes all of the text."""
        text = text.casefold()
        first, *others = self.parts
        if not first.fits_at(text, 0):
            return False
        if not others:
            return len(text) == first.size
        *middle, last = others
        at = first.size
        for part in middle:
            found = part.find(text, at)
            if found < 0:
                return False
            at = found + part.size
        end = len(text) - last.size
        return end >= at and last.fits_at(text, end)


def _part(pieces: list[str]) -> _Part:
    text = "".join(pieces)
    if not any(piece == "?" or len(piece) > 1 for piece in pieces):
        return _Part(len(text), text, None)
    return _Part(len(pieces), text, re.compile("".join(map(_expression, pieces)), re.DOTALL))


def _expression(piece: str) -> str:
    return fnmatch.translate(piece)[:-2]  # without the end of the text, `\\Z` or `\\z`
