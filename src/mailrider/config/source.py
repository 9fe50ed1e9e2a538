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

from mailrider.config.lexer import GLUED, UNCLOSED, Token, TokenKind, tokens, word_length
from mailrider.config.secrets import HIDDEN, UNREAD, may_hold_secret, quotes_any
from mailrider.errors import Problem

if TYPE_CHECKING:
    from pathlib import Path

MAX_PROBLEMS = 1000  # told; whoever has more of them does not read on, and neither do we
MAX_EXCERPT = 100  # characters of a line that a problem shows
MAX_TOKENS = 50_000  # of a text that are looked through for passwords; what is behind them is not shown
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

    @cached_property
    def _groups(self) -> tuple[list[int], list[list[str]]]:
        """Where groups of directives begin that braces alone keep apart, not the end of a line, and the words of each.

        As far as tokens tell: whether a brace was meant as one nobody knows yet.
        """
        starts: list[int] = [0]
        words: list[list[str]] = [[]]
        is_lost = False  # which quote belongs to which: from there on anything may have been meant to be quoted
        for number, token in enumerate(tokens(self.text)):
            if number == MAX_TOKENS:
                starts.append(token.offset)
                words.append(UNREAD)
                break
            if token.kind in (TokenKind.WORD, TokenKind.STRING):
                words[-1].append(token.text)
            elif token.text.startswith(UNCLOSED):  # the rest of the line is no token
                words[-1] += self.text[token.offset : self._line_end(token.offset)].split()
                is_lost = True
            elif token.kind is TokenKind.ERROR and token.text == GLUED:
                is_lost = True
            elif token.kind is TokenKind.END and not is_lost and "\\" not in self._line_ends_in(token):
                starts.append(token.offset + 1)
                words.append([])
        return starts, words

    def _line_ends_in(self, end: Token) -> str:
        """What ends the lines at that token; a backslash in a comment was meant to go on with the line."""
        before = self.text[end.offset - 1 : end.offset] if end.kind is TokenKind.END else ""
        return before + "".join(line[-1:] for line in end.text.split("\n")[:-1])

    @cached_property
    def _secret(self) -> dict[int, bool]:
        """Groups by number, and whether they may hold a password, of those that were asked for."""
        return {}

    def _line_end(self, offset: int) -> int:
        end = self.text.find("\n", offset)
        return end if end >= 0 else len(self.text)

    def _may_hold_secret(self, number: int) -> bool:
        if number not in self._secret:
            self._secret[number] = may_hold_secret(self._groups[1][number])
        return self._secret[number]

    def has_secret_in(self, message: str, offset: int) -> bool:
        """True if a password may be in the line of that character, and the message quotes any of its words."""
        starts, words = self._groups
        number = bisect_right(starts, offset) - 1
        return self._may_hold_secret(number) and quotes_any(message, words[number])

    def may_show_line(self, offset: int) -> bool:
        """False if a password may be in the line of that character."""
        return not self._may_hold_secret(bisect_right(self._groups[0], offset) - 1)

    def around(self, offset: int, length: int) -> tuple[str, int]:
        """The line of a character, or so much of a longer one, and where in that the character is."""
        start = max(self.text.rfind("\n", 0, offset) + 1, offset - length // 2)
        end = self.text.find("\n", offset, start + length)
        return self.text[start : end if end >= 0 else start + length], offset - start


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


class TooMuch(Exception):
    """There is more, or more is wrong, than makes sense to read; the problem has been noted."""


class Problems:
    """All that is wrong with a configuration, whose first file is `main`."""

    def __init__(self, main: str = "") -> None:
        self._found: dict[tuple[str, int, str], Problem] = {}  # the key keeps one problem from being told twice
        self._sources = {main: 0}  # in the order in which something was found in them
        self._too_many = False

    def __bool__(self) -> bool:
        return bool(self._found)

    def add(self, position: Position, message: str, *, is_safe: bool = False) -> None:
        """Note that something is wrong at this place. Raises `TooMuch` where there are too many problems.

        Where a password may be in the line it is not shown; and unless the message `is_safe`, it quotes none of it.
        """
        source = position.source
        if not is_safe and source.has_secret_in(message, position.offset):
            message = HIDDEN
        key = (source.name, position.offset, message)
        if key in self._found:
            return
        if len(self._found) >= MAX_PROBLEMS:
            self._too_many = True
            raise TooMuch
        self._sources.setdefault(source.name, len(self._sources))
        line, column = source.locate(position.offset)
        self._found[key] = Problem(
            message, source.name, line, column, _excerpt(source, position.offset), position.trail
        )

    def add_file(self, file: str, message: str) -> None:
        """A file as a whole is wrong."""
        self._sources.setdefault(file, len(self._sources))
        self._found[file, -1, message] = Problem(message, file)

    def in_order(self) -> tuple[Problem, ...]:
        """All of them, file by file, as they stand there."""
        found = sorted(
            self._found.values(), key=lambda problem: (self._sources[problem.file], problem.line, problem.column)
        )
        if self._too_many:
            found.append(Problem(f"there are more than {MAX_PROBLEMS} problems: the others were not looked for"))
        return tuple(found)


class OpenProblems(Problems):
    """For a directive that has the name of a secret one, and holds none: its messages go to `others` as they are."""

    def __init__(self, others: Problems) -> None:
        super().__init__()
        self._others = others

    def add(self, position: Position, message: str, *, is_safe: bool = True) -> None:
        """See `Problems`."""
        self._others.add(position, message, is_safe=is_safe)


def _excerpt(source: Source, offset: int) -> str:
    """The line of a character, and below it a mark under the word that begins there; empty if it is not to be seen."""
    if not source.may_show_line(offset):
        return ""
    line, at = source.around(offset, MAX_EXCERPT)
    indent = len(line) - len(line.lstrip(" \t"))
    before = line[min(indent, at) : at]
    blank = "".join(TAB if char == TAB else " " * _columns(char) for char in before)
    marked = line[at : at + word_length(line, at)]
    mark = "^" * max(1, sum(map(_columns, marked)))
    shown = "".join(char if char.isprintable() or char == TAB else "\ufffd" for char in line[min(indent, at) :])
    return f"{shown}\n{blank}{mark}"


def _columns(char: str) -> int:
    return 2 if unicodedata.east_asian_width(char) in "WF" else 1
