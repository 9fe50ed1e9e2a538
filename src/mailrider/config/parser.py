"""Tokens to nodes: directives with arguments and blocks, each word with its position.

Pure: text in, nodes out, what is wrong into `Problems`; it always comes to an end and always returns what it could
understand, so that one mistake does not hide the others. Nothing is expanded here: `$(x)`, `{env:X}` and `import` are
words like others (`config.expand`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from mailrider.config.lexer import Token, TokenKind, tokens
from mailrider.config.source import Position, Problems, Source

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_NESTING = 255  # levels of blocks: the contract says so, and it keeps recursion below Python's limit
TOO_DEEP = f"blocks are nested more than {MAX_NESTING} levels deep"


@dataclass(frozen=True, slots=True)
class Word:
    """A name or an argument. `quoted`: it stood between quotes, so nothing in it is special.

    `file`: it was `{file:PATH}`, and is that path. `unset`: the environment variables in it that were not set.
    """

    text: str
    position: Position
    quoted: bool = False
    file: str | None = None
    unset: tuple[str, ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Node:
    """A directive. `children` is None without a block, and empty for `{ }`.

    `undefined` are the macros that were used in its arguments and are not defined, so that they vanished.
    """

    name: Word
    arguments: tuple[Word, ...] = ()
    children: tuple[Node, ...] | None = None
    undefined: tuple[str, ...] = ()


@dataclass(slots=True)
class _Frame:
    """A block that is being read: its directive, what it holds so far, and where its brace stands."""

    words: list[Word]
    brace: Position
    nodes: list[Node] = field(default_factory=list)


def parse(
    source: Source, problems: Problems, count: Callable[[Position], None], imported_at: Position | None = None
) -> tuple[Node, ...]:
    """The directives of a text. `count` is called for each word, and may raise to end an endless reading."""
    parser = _ConfigParser(source, problems, count, imported_at)
    for token in tokens(source.text):
        parser.take(token)
    return parser.finish()


class _ConfigParser:
    def __init__(
        self, source: Source, problems: Problems, count: Callable[[Position], None], imported_at: Position | None
    ) -> None:
        self._source = source
        self._imported_at = imported_at
        self._problems = problems
        self._count = count
        self._root: list[Node] = []
        self._open: list[_Frame] = []
        self._words: list[Word] = []
        self._too_deep = 0  # blocks that are open beyond the limit; what is in them is dropped
        self._after_block = False

    def take(self, token: Token) -> None:
        position = Position(self._source, token.offset, self._imported_at)
        match token.kind:
            case TokenKind.ERROR:
                self._count(position)
                self._problems.add(position, token.text)
            case TokenKind.END:
                self._end_directive()
                self._after_block = False
            case TokenKind.OPEN:
                self._open_block(position)
            case TokenKind.CLOSE:
                self._close_block(position)
            case TokenKind.WORD | TokenKind.STRING:
                self._word(Word(token.text, position, token.kind is TokenKind.STRING))

    def finish(self) -> tuple[Node, ...]:
        self._end_directive()
        while self._open:
            brace = self._open[-1].brace
            self._problems.add(brace, "this block is never closed: expected } before the end of the file")
            self._pop()
        return tuple(self._root)

    def _word(self, word: Word) -> None:
        if self._after_block:
            self._problems.add(word.position, "expected the end of the line behind }")
            self._after_block = False
        self._count(word.position)
        if not self._too_deep:
            self._words.append(word)

    def _end_directive(self) -> None:
        if self._words:
            self._add(Node(self._words[0], tuple(self._words[1:])))
            self._words = []

    def _open_block(self, position: Position) -> None:
        self._count(position)
        if self._too_deep:
            self._too_deep += 1
            return
        if not self._words:
            self._problems.add(position, "expected the name of a directive before {, on the same line")
            self._words = [Word("", position)]  # read on inside; a name that is empty is dropped with its block
        if len(self._open) == MAX_NESTING:
            self._problems.add(position, TOO_DEEP)
            self._too_deep = 1
            self._words = []
            return
        self._open.append(_Frame(self._words, position))
        self._words = []
        self._after_block = False

    def _close_block(self, position: Position) -> None:
        self._end_directive()
        self._after_block = True
        if self._too_deep:
            self._too_deep -= 1
        elif not self._open:
            self._problems.add(position, "there is no block to close here")
        else:
            self._pop()

    def _pop(self) -> None:
        frame = self._open.pop()
        name, *arguments = frame.words
        self._add(Node(name, tuple(arguments), tuple(frame.nodes)))

    def _add(self, node: Node) -> None:
        if node.name.text or node.name.quoted:
            (self._open[-1].nodes if self._open else self._root).append(node)
