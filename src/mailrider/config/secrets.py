"""Which lines of a configuration may hold a password, as far as it can be told before anything is understood.

An error shows the line in question, and quotes words of it. Where a password may be among them it must not, also if
the line is not what it was meant to be: a directive with a slip in its name or in a block where it does not belong, a
quote that is not closed, so that two lines have become one. So what counts is how a line looks; to hide one too many
does no harm.
"""

from __future__ import annotations

import re
from difflib import SequenceMatcher
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.settings.types import show

if TYPE_CHECKING:
    from collections.abc import Sequence

SECRET_WORDS: Final = frozenset({"auth", "credentials", "pass", "passwd", "password", "secret", "token"})
"""Names of directives that hold a secret, here or in other mail software; a test sees that all of ours are there."""
LIKENESS: Final = 0.75  # of 1, between such a name and a slip: what has one letter of four wrong
MAX_WORD: Final = 64  # characters: longer ones are no slips, and comparing costs their square
_NOT_SECRET: Final = frozenset({"mx_auth"})
_BORDER: Final = re.compile(r"[\s._:=-]+")
MAX_WORDS: Final = 1000  # of a directive that are looked for in a message
UNREAD: Final = ["password"] * (MAX_WORDS + 1)
"""Stands for text that nobody has looked through: anything may be in it."""
TELLING: Final = 3  # characters of a word that stands in no message by chance
HIDDEN: Final = "this directive is not right; no more of it is shown, since a password may be in it"


def may_hold_secret(words: Sequence[str]) -> bool:
    """Whether a password may be among the words of a line."""
    # A macro's value may be a password that another line uses.
    return any(word.startswith("$(") or _is_secret_word(word) for word in words[:1]) or any(
        map(_is_secret_word, set(words))
    )


def _is_secret_word(word: str) -> bool:
    # A quote that is never closed makes lines into one word, and a directive's name stands somewhere in it.
    parts = word.split(maxsplit=MAX_WORDS)
    return len(parts) > MAX_WORDS or any(map(_is_secret_part, parts))


def _is_secret_part(part: str) -> bool:
    folded = part.lower()
    if folded in _NOT_SECRET or len(folded) > MAX_WORD:
        return False
    return not SECRET_WORDS.isdisjoint(_BORDER.split(folded)) or _is_like_secret(folded)


@lru_cache(maxsize=1024)
def _is_like_secret(word: str) -> bool:
    return len(word) <= MAX_WORD and any(SequenceMatcher(None, word, each).ratio() >= LIKENESS for each in SECRET_WORDS)


def quotes_any(message: str, words: Sequence[str]) -> bool:
    """Whether a message repeats one of the words behind the first; of too many, it may."""
    if len(words) > MAX_WORDS:
        return True
    return any(_is_quoted(message, word) for word in words[1:] if word.lower() not in SECRET_WORDS)


def _is_quoted(message: str, word: str) -> bool:
    return show(word) in message or any(part in message for part in word.split() if len(part) >= TELLING)
