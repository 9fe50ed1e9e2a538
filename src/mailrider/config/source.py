"""Where words come from, and what is wrong there.

A `Source` is one text with a name; a `Position` is a place in it, with the imports that led there. `Problems` collects
what is wrong, so that all of it can be told at once; a problem shows its line with the word in question marked.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

from mailrider.config.lexer import word_length
from mailrider.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

MAX_PROBLEMS = 1000  # shown; whoever has more of them does not read on
MAX_EXCERPT = 100  # characters of a line that a problem shows
MAX_TRAIL = 10  # imports that a problem shows
TAB = "\t"


@dataclass(frozen=True, eq=False)
class Source:
    """A text. `name` stands in errors; imports are relative to `directory`."""

    name: str
    text: str = field(repr=False)
    directory: Path

    @cached_property
    def _line_starts(self) -> list[int]:
        starts, at = [0], self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def locate(self, offset: int) -> tuple[int, int]:
        """Line and column of a character, from 1; a tab is one column."""
        line = bisect_right(self._line_starts, offset)
        return line, offset - self._line_starts[line - 1] + 1

    def line(self, number: int) -> str:
        """A line by its number, without its end."""
        starts = self._line_starts
        end = starts[number] - 1 if number < len(starts) else len(self.text)
        return self.text[starts[number - 1] : end]


@dataclass(frozen=True, slots=True)
class Position:
    """A character of a source; `imported_at` is the import directive that brought it here, if one did."""

    source: Source
    offset: int
    imported_at: Position | None = None

    def __str__(self) -> str:
        line, column = self.source.locate(self.offset)
        return f"{self.source.name}:{line}:{column}"

    @property
    def trail(self) -> tuple[str, ...]:
        """The imports that led here, innermost first."""
        trail: list[str] = []
        at = self.imported_at
        while at is not None and len(trail) < MAX_TRAIL:
            trail.append(str(at))
            at = at.imported_at
        return tuple(trail)


class Problems:
    """All that is wrong with a configuration."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, int, str], Problem] = {}  # the key keeps one problem from being told twice
        self._sources: dict[str, int] = {}  # in the order in which they were first seen
        self._left_out = 0

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, position: Position, message: str) -> None:
        """There is something wrong at this place."""
        source = position.source
        key = (source.name, position.offset, message)
        if key in self._found:
            return
        if len(self._found) >= MAX_PROBLEMS:
            self._left_out += 1
            return
        self._sources.setdefault(source.name, len(self._sources))
        line, column = source.locate(position.offset)
        width = word_length(source.text, position.offset)
        excerpt = _excerpt(source.line(line), column - 1, width)
        self._found[key] = Problem(message, source.name, line, column, excerpt, position.trail)

    def add_file(self, file: str, message: str) -> None:
        """A file as a whole is wrong."""
        self._sources.setdefault(file, len(self._sources))
        self._found[file, -1, message] = Problem(message, file)

    def in_order(self) -> tuple[Problem, ...]:
        """All of them, file by file, as they stand there."""
        found = sorted(
            self._found.values(), key=lambda problem: (self._sources[problem.file], problem.line, problem.column)
        )
        if self._left_out:
            found.append(Problem(f"and {self._left_out} more"))
        return tuple(found)


def _excerpt(line: str, start: int, width: int) -> str:
    """The line, or the part of a long one around `start`, and below it a mark under the word."""
    cut = max(0, start - MAX_EXCERPT // 2) if len(line) > MAX_EXCERPT else 0
    shown = line[cut : cut + MAX_EXCERPT]
    before = shown[: start - cut]
    indent = len(before) - len(before.lstrip()) if not cut else 0
    blank = "".join(TAB if char == TAB else " " * _columns(char) for char in before[indent:])
    marked = shown[len(before) : len(before) + width]
    mark = "^" * max(1, sum(map(_columns, marked)))
    return f"{_printable(shown[indent:])}\n{blank}{mark}"


def _printable(text: str) -> str:
    return "".join(char if char.isprintable() or char == TAB else "\ufffd" for char in text)


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
