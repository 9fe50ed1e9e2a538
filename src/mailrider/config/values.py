"""Arguments to values: one directive's line, read as its value type says, with errors at the words that are wrong."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, Any

from mailrider.config.nearest import did_you_mean
from mailrider.config.parser import Node
from mailrider.config.secrets import SECRET_WORDS
from mailrider.config.source import OpenProblems, Problems
from mailrider.settings.types import Unacceptable, ValueType, Words, show

if TYPE_CHECKING:
    from mailrider.config.parser import Word
    from mailrider.config.secret_values import SecretValues
    from mailrider.settings.directive import Directive


class Wrong(enum.Enum):
    """Stands for a value that could not be read; why has been told."""

    WRONG = enum.auto()


WRONG = Wrong.WRONG


def read_value(known: Directive, node: Node, problems: Problems, secrets: SecretValues | None = None) -> Any:
    """The value that a line gives to its directive, or `WRONG`; a `MissingSecret` if it cannot be looked up."""
    if known.secret:
        found = node if secrets is None else secrets.resolve(node)
        return _read_secret(known, found, problems) if isinstance(found, Node) else found
    file = next((word for word in node.arguments if word.file is not None), None)
    if file is not None:
        problems.add(
            file.position, f"{known.name} is not a secret: expected its value itself, not {{file:PATH}}", is_safe=True
        )
        return WRONG
    if known.name in SECRET_WORDS:
        problems = OpenProblems(problems)  # the name of a file, say: it may be told
    return _read(known, node, problems)


def _read_secret(known: Directive, node: Node, problems: Problems) -> Any:
    value = _read(known, node, Problems())
    if value is WRONG:
        where = node.arguments[0] if node.arguments else node.name
        problems.add(where.position, f"{known.name}: expected {known.type.expected}{_vanished(node)}", is_safe=True)
    return value


def _read(known: Directive, node: Node, problems: Problems) -> Any:
    if node.children is not None:
        problems.add(node.name.position, f"{known.name} takes no block, but {known.type.expected}")
        return WRONG
    if not node.arguments and not known.type.alone:
        problems.add(node.name.position, f"{known.name}: expected {known.type.expected}{_vanished(node)}")
        return WRONG
    match known.type.words:
        case Words.ONE if len(node.arguments) > 1:
            extra = node.arguments[1]
            problems.add(extra.position, f"{known.name} takes one argument; {show(extra.text)} is too much")
            return WRONG
        case Words.ONE:
            return _accept(known, known.type, node, node.arguments[:1], problems)
        case Words.LINE | Words.WORDS:
            return _accept(known, known.type, node, node.arguments, problems)
        case Words.EACH:
            return _items(known, node, problems)


def _items(known: Directive, node: Node, problems: Problems) -> Any:
    if len(node.arguments) == 1:
        return _accept(known, known.type, node, node.arguments, problems)
    item = known.type.item or known.type
    values = [_accept(known, item, node, (word,), problems) for word in node.arguments]
    return WRONG if WRONG in values else tuple(values)


def _accept(known: Directive, type: ValueType[Any], node: Node, words: tuple[Word, ...], problems: Problems) -> Any:
    texts = tuple(word.text for word in words)
    try:
        return type.accept(texts if type.words is Words.WORDS else " ".join(texts))
    except Unacceptable as error:
        near = next(filter(None, (did_you_mean(word.text, type.choices) for word in words)), "")
        problems.add(words[0].position, f"{known.name}: {error}{near}{_vanished(node)}")
        return WRONG


def _vanished(node: Node) -> str:
    if not node.undefined:
        return ""
    return f" ({', '.join(f'$({name})' for name in node.undefined)} is not defined, and so is nothing)"
