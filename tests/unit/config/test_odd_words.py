"""Whatever stands behind a directive is taken, or is an error in the words of the file; never a fault of ours."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from mailrider.config import loads
from mailrider.config.kinds import ENDPOINTS, KINDS
from mailrider.config.settings import Globals
from mailrider.errors import ConfigError
from mailrider.settings.directive import Block, Section, directives_of
from tests.support.long_runs import LONG

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.settings.directive import Settings

WORDS = """
""|a|a b|a b c|a b c d|&|&x|[|[]|[::]|tcp://|tcp://[|tcp://[::1|tls://x#|tls://#|unix://|http://[|http://|http://x:99999/
-|-1|0|1|1 1|1e5|99999999999999999999999|1h1|none none|none|off|off off|rate|rate 1 1|concurrency|@|a@b|a@[|a@[1|"a b" c
/|//|0.0.0.0/0 x|::/129|1.2.3.4:|[1.2.3.4]:53|tls1.2|tls1.2 tls1.3 tls1.3|{ }|x { }|x { y }|plain|plain a|plain a b c
file|file /|file / json x|text json|recursive|recursive trust|1.2.3.4 trust trust|550|550 5|550 5.1|550 5.1.1 x y
250 2.0.0 x|550 4.0.0 x|xn--a|*|**|"*" reject|X "" reject|X reject|X : reject|quarantine|\u00fc|
"""
# How Python writes what nobody wrote in a file.
_PYTHON = re.compile(r"Settings\(|Options\(|object at 0x|<[A-Z]\w*\.|\('")


def blocks(prefix: str, cls: type[Settings], known: set[type[Settings]]) -> Iterator[tuple[str, type[Settings]]]:
    """Each block once: the lines that open it, and what may stand in it."""
    if cls in known:
        return
    known.add(cls)
    yield prefix, cls
    for name, each in directives_of(cls).items():
        if isinstance(each.type, Block):
            words = " x" if isinstance(each.type, Section) else ""
            yield from blocks(f"{prefix}{name}{words} {{\n", each.type.settings, known)


def every_block() -> Iterator[tuple[str, type[Settings]]]:
    known: set[type[Settings]] = set()
    yield from blocks("", Globals, known)
    for kind in KINDS.values():
        yield from blocks(f"{kind.name} some {{\n", kind.settings, known)
    for name, settings in ENDPOINTS.items():
        yield from blocks(f"{name} tcp://127.0.0.1:25 {{\n", settings, known)


def directives_to_try() -> Iterator[tuple[type[Settings], list[str]]]:
    """Of each block; a directive that stands alike in several blocks is tried in one of them, unless there is time."""
    known: set[tuple[str, str]] = set()
    for _, cls in EVERY_BLOCK:
        of_this = {(name, repr(each.type)) for name, each in directives_of(cls).items()}
        yield cls, [name for name, _ in sorted(of_this if LONG else of_this - known)]
        known |= of_this


EVERY_BLOCK = list(every_block())
NAMES = dict(directives_to_try())


def error_of(text: str) -> str:
    """Empty if it is taken."""
    try:
        loads(text)
    except ConfigError as error:
        return str(error)
    return ""


@pytest.mark.parametrize(("prefix", "cls"), EVERY_BLOCK, ids=[cls.__name__ for _, cls in EVERY_BLOCK])
def test_odd_words_are_taken_or_named(prefix: str, cls: type[Settings]) -> None:
    odd = WORDS.strip("\n").replace("\n", "|").split("|")
    texts = [f"{prefix}{name} {words}\n" + "}\n" * prefix.count("{") for name in NAMES[cls] for words in odd]
    assert [told for told in map(error_of, texts) if _PYTHON.search(told)] == []
