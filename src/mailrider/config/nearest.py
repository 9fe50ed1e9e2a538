"""Did you mean: the known word that is nearest to an unknown one."""

from __future__ import annotations

from difflib import get_close_matches
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

MAX_WORD = 64  # characters; longer ones are no slips, and comparing costs their square
LIKENESS = 0.6  # of 1; below that a suggestion confuses more than it helps


def nearest(word: str, known: Iterable[str]) -> str | None:
    """The known word that is most like `word`, if any is like it."""
    if len(word) > MAX_WORD:
        return None
    by_folded = {each.lower(): each for each in known}
    for folded, each in by_folded.items():
        if folded.endswith(f".{word.lower()}"):  # queue: target.queue
            return each
    found = get_close_matches(word.lower(), by_folded, n=1, cutoff=LIKENESS)
    return by_folded[found[0]] if found else None


def did_you_mean(word: str, known: Iterable[str], *, prefix: str = "") -> str:
    """`; did you mean "x"?`, to be put behind an error; empty if nothing is near, or it is the word itself."""
    found = nearest(word, known)
    return f'; did you mean "{prefix}{found}"?' if found and prefix + found != word else ""
