"""Nodes to nodes: macros, snippets, imports and environment variables are put in their places.

- `$(name) = value ...` defines a macro, which holds from there on; `$(name)` uses it. As a whole argument it becomes as
  many arguments as it has values, within a longer one its values joined by spaces. An undefined one vanishes, and the
  node remembers its name.
- `{env:NAME}` is the variable's value, empty if it is not set. What a value contains is never expanded again.
- `{file:PATH}` is left for the directive that it is an argument of: only those that hold a secret take it.
- `(name) { ... }` defines a snippet, `import name` inserts it wherever its file puts it; or the file of that name. The
  macros that count are those at the import.

Bounds: import loops, blocks nested too deep, and texts that grow without end (a snippet that imports another twice,
which imports ...) are problems, found before memory is used up. Files are read through an argument.
"""

from __future__ import annotations

import os.path
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.config.nearest import did_you_mean
from mailrider.config.parser import MAX_NESTING, TOO_DEEP, Node, Word, parse
from mailrider.config.source import Position, Problems, Source, TooMuch
from mailrider.settings.types import show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

MAX_WORDS = 400_000  # names and arguments, as read and as expanded; no person writes so many
MAX_CHARACTERS = 32 * 1024 * 1024  # that all files and all expanded arguments may have together
MAX_FILE = 4 * 1024 * 1024  # octets of one file
MAX_IMPORTS = 20  # files and snippets that import each other: deeper is a mistake

_USE = re.compile(r"\{env:(?P<variable>[^{}]*)\}|\$\((?P<macro>[^()\s]+)\)")
_FILE = re.compile(r"\{file:(?P<path>[^{}]*)\}")
_DEFINITION = re.compile(r"\$\((?P<name>[^()\s]+)\)")
_SNIPPET = re.compile(r"\((?P<name>[^()\s]+)\)")


@dataclass(slots=True)
class Allowance:
    """What may still be read and made, over all files."""

    problems: Problems
    words: int = MAX_WORDS
    characters: int = MAX_CHARACTERS

    def word(self, position: Position, characters: int = 0) -> None:
        """One word more; raises `TooMuch` if that is too much."""
        self.words -= 1
        if self.words < 0:
            self._end(position, f"more than {MAX_WORDS} names and arguments, imports included")
        self.text(position, characters)

    def text(self, position: Position, characters: int) -> None:
        """Count so much more text; raises `TooMuch` if that is too much."""
        self.characters -= characters
        if self.characters < 0:
            self._end(position, f"more than {MAX_CHARACTERS} characters, imports and macros included")

    def _end(self, position: Position, message: str) -> None:
        self.problems.add(position, f"the configuration is too large: {message}")
        raise TooMuch


@dataclass(frozen=True, slots=True)
class _Place:
    """Where nodes are being put: how deep, through which import, and what is being imported."""

    nesting: int = 0
    top_level: bool = True
    imported_at: Position | None = None
    active: tuple[str, ...] = ()


@dataclass(slots=True)
class Expander:
    """Expands one configuration, file by file. `read` gives a file's octets, or raises `OSError`."""

    problems: Problems
    environment: Mapping[str, str]
    read: Callable[[Path], bytes]
    allowance: Allowance
    _macros: dict[str, tuple[Word, ...]] = field(default_factory=dict)
    _snippets: dict[str, Node] = field(default_factory=dict)
    _files: dict[str, tuple[Node, ...] | None] = field(default_factory=dict)

    def expand(self, source: Source) -> tuple[Node, ...]:
        """All directives of a text."""
        key = os.path.normpath(source.directory / os.path.basename(source.name))
        return tuple(self._nodes(self._parse(source, None), _Place(active=(key,))))

    # --- Nodes ----------------------------------------------------------------------------------

    def _parse(self, source: Source, imported_at: Position | None) -> tuple[Node, ...]:
        self.allowance.text(Position(source, 0, imported_at), len(source.text))
        nodes = parse(source, self.problems, self.allowance.word, imported_at)
        for node in nodes:
            if name := _special(_SNIPPET, node):
                self._define_snippet(name, node)
        return nodes

    def _nodes(self, nodes: Iterable[Node], place: _Place) -> list[Node]:
        expanded: list[Node] = []
        for node in nodes:
            if node.name.quoted:
                expanded.append(self._node(node, place))
            elif node.name.text == "import":
                expanded += self._import(node, place)
            elif node.name.text.startswith("$("):
                self._define_macro(node, place)
            elif node.name.text.startswith("("):
                self._accept_snippet(node, place)
            else:
                expanded.append(self._node(node, place))
        return expanded

    def _node(self, node: Node, place: _Place) -> Node:
        name = self._put(node.name, node.name.text, place)
        arguments, undefined = self._arguments(node.arguments, place)
        children = node.children
        if children is not None:
            if place.nesting == MAX_NESTING:
                self.problems.add(name.position, TOO_DEEP)
                children = ()
            inside = _Place(place.nesting + 1, False, place.imported_at, place.active)
            children = tuple(self._nodes(children, inside))
        return Node(name, arguments, children, undefined)

    def _put(self, word: Word, text: str, place: _Place, file: str | None = None, unset: tuple[str, ...] = ()) -> Word:
        position = Position(word.position.source, word.position.offset, place.imported_at)
        self.allowance.word(position, len(text))
        return Word(text, position, word.quoted, file, unset)

    # --- Arguments ------------------------------------------------------------------------------

    def _arguments(self, words: Iterable[Word], place: _Place) -> tuple[tuple[Word, ...], tuple[str, ...]]:
        expanded: list[Word] = []
        undefined: list[str] = []
        for word in words:
            alone = None if word.quoted else _DEFINITION.fullmatch(word.text)
            if alone:
                values = self._macro(alone["name"], undefined)
                expanded += [self._put(word, value.text, place, unset=value.unset) for value in values]
            elif file := _FILE.fullmatch(word.text):
                expanded.append(self._put(word, word.text, place, file["path"]))
            else:
                if _FILE.search(word.text):
                    self._problem(word, place, "{file:PATH} stands by itself: it is a whole argument, or none")
                text, unset = self._text(word, undefined)
                expanded.append(self._put(word, text, place, unset=unset))
        return tuple(expanded), tuple(undefined)

    def _text(self, word: Word, undefined: list[str]) -> tuple[str, tuple[str, ...]]:
        unset: list[str] = []

        def replace(use: re.Match[str]) -> str:
            name = use["variable"]
            if name is None:
                words = self._macro(use["macro"], undefined)
                unset.extend(each for value in words for each in value.unset)
                value = " ".join(each.text for each in words)
            else:
                value = self.environment.get(name, "")
                unset.extend([name] if name not in self.environment else [])
            self.allowance.text(word.position, len(value))
            return value

        return _USE.sub(replace, word.text), tuple(unset)

    def _macro(self, name: str, undefined: list[str]) -> tuple[Word, ...]:
        values = self._macros.get(name)
        if values is None:
            undefined.append(name)
            return ()
        return values

    # --- Definitions ----------------------------------------------------------------------------

    def _define_macro(self, node: Node, place: _Place) -> None:
        name = _special(_DEFINITION, node)
        equals, *values = node.arguments or (None,)
        if name is None or equals is None or equals.quoted or equals.text != "=" or node.children is not None:
            self._problem(node.name, place, "expected a definition of a macro: $(name) = value ...")
        elif not place.top_level:
            self._problem(node.name, place, "macros are defined at the top level, not inside a block")
        elif not values:
            self._problem(node.name, place, f"the macro $({name}) has no value: expected $({name}) = value ...")
        else:
            words, _ = self._arguments(values, place)
            for word in words:
                if word.file is not None:
                    self._problem(word, place, "{file:PATH} stands where the secret is used, not in a macro")
            self._macros[name] = words

    def _define_snippet(self, name: str, node: Node) -> None:
        first = self._snippets.setdefault(name, node)
        if first is not node:
            self.problems.add(node.name.position, f"the snippet ({name}) is already defined, at {first.name.position}")

    def _accept_snippet(self, node: Node, place: _Place) -> None:
        if _special(_SNIPPET, node) is None or node.arguments or node.children is None:
            self._problem(node.name, place, "expected the definition of a snippet: (name) { ... }")
        elif not place.top_level:
            self._problem(node.name, place, "snippets are defined at the top level, not inside a block")

    def _problem(self, word: Word, place: _Place, message: str) -> None:
        self.problems.add(Position(word.position.source, word.position.offset, place.imported_at), message)

    # --- Imports --------------------------------------------------------------------------------

    def _import(self, node: Node, place: _Place) -> list[Node]:
        arguments, _ = self._arguments(node.arguments, place)
        if len(arguments) != 1 or not arguments[0].text or node.children is not None:
            self._problem(node.name, place, "expected the name of one snippet or file, and no block: import NAME")
            return []
        name = arguments[0]
        snippet = self._snippets.get(name.text)
        key = f"({name.text})" if snippet else os.path.normpath(name.position.source.directory / name.text)
        if key in place.active:
            loop = " -> ".join((*place.active[place.active.index(key) :], key))
            self.problems.add(name.position, f"this import never ends: {loop}")
            return []
        if len(place.active) > MAX_IMPORTS:
            self.problems.add(name.position, f"more than {MAX_IMPORTS} imports inside each other")
            return []
        nodes = snippet.children if snippet else self._file(key, name)
        # What a snippet holds is inside a block, wherever it is put; what a file holds is at that file's top level.
        inside = _Place(place.nesting, snippet is None, name.position, (*place.active, key))
        return self._nodes(nodes or (), inside)

    def _file(self, path: str, at: Word) -> tuple[Node, ...] | None:
        if path not in self._files:
            self._files[path] = self._load(Path(path), at)
        return self._files[path]

    def _load(self, path: Path, at: Word) -> tuple[Node, ...] | None:
        try:
            content = self.read(path)
        except FileNotFoundError:
            near = did_you_mean(at.text, self._snippets)
            self.problems.add(
                at.position, f"there is neither a snippet nor a file of that name: {show(str(path))}{near}"
            )
        except (OSError, ValueError) as error:  # ValueError: a name that no file can have
            reason = error.strerror if isinstance(error, OSError) else str(error)
            self.problems.add(at.position, f"cannot read {show(str(path))}: {reason}")
        else:
            source = decode(str(path), content, path.parent, self.problems, at.position)
            return self._parse(source, at.position) if source else None
        return None


def is_expanded(text: str) -> bool:
    """True if an argument that holds this text is not read as it is written."""
    return bool(_USE.search(text) or _FILE.search(text))


def _special(pattern: re.Pattern[str], node: Node) -> str | None:
    """The name in `$(name)` or `(name)`, if that is what the directive's name is."""
    match = None if node.name.quoted else pattern.fullmatch(node.name.text)
    return match["name"] if match else None


def decode(
    name: str, content: bytes, directory: Path, problems: Problems, imported_at: Position | None = None
) -> Source | None:
    """The text of a file, or None if it is none."""
    if len(content) > MAX_FILE:
        message = f"the file is too large: more than {MAX_FILE} octets"
    else:
        try:
            text = content.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            source = Source(name, _lines(content.decode("utf-8-sig", "replace")), directory)
            offset = len(_lines(content[: error.start].decode("utf-8-sig")))
            message = f"the file is not UTF-8: the octet 0x{content[error.start]:02x} stands here"
            problems.add(Position(source, offset, imported_at), message)
            return None
        else:
            return Source(name, _lines(text), directory)
    if imported_at is None:
        problems.add_file(name, message)
    else:
        problems.add(imported_at, f"{show(name)}: {message}")
    return None


def _lines(text: str) -> str:
    return text.replace("\r\n", "\n")
