"""Lines for a person. On a terminal a long one goes on below, further to the right; a pipe gets it in one line.

What strangers chose stands in many of them: no character in a line can move the cursor, or reorder the text.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Final

from rich.cells import cell_len
from rich.console import Console
from rich.text import Text

from mailrider.model.text import UNSAFE, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

HANGING: Final = 4  # columns by which the rest of a line is further to the right
LEAST: Final = 20  # columns that text has, whatever its indent


def print_line(line: Text | str, console: Console | None = None, *, hanging: int = HANGING) -> None:
    """Print it on standard output, or where `console` says."""
    console = console or Console(highlight=False)
    text = _harmless(line)
    for each in _fitting(text, console, hanging) if console.is_terminal else (text,):
        console.print(each, soft_wrap=True)


def print_commented(lines: Iterable[str], mark: str) -> None:
    """Print lines of a file, whose comments begin with `mark`. On a terminal these go on below, as comments; the others
    are for a machine, and stay as they are."""
    console = Console(highlight=False)
    for line in lines:
        if console.is_terminal and line.startswith(mark) and cell_len(line) > console.width:
            words = visible(line.removeprefix(mark))
            indent = len(words) - len(words.lstrip(" "))
            text = Text(words.lstrip(" "))
            width = max(console.width - len(mark) - indent - HANGING, LEAST)
            for number, piece in enumerate(text.divide(_breaks(text.plain, width + HANGING, width))):
                piece.rstrip()
                begin = mark + " " * (indent + (HANGING if number else 0))
                console.print(Text(begin).append_text(piece), soft_wrap=True)
        else:
            console.print(Text(visible(line)), soft_wrap=True)


def _harmless(line: Text | str) -> Text:
    if isinstance(line, str):
        return Text(visible(line))
    if UNSAFE.search(line.plain):
        line = line.copy()  # with its styles, which go by places
        line.plain = "".join(each if each in "\n\t" or not UNSAFE.match(each) else "\ufffd" for each in line.plain)
    return line


def takes_symbols(console: Console) -> bool:
    """True if more than ASCII may be printed there: not in the C locale."""
    asked_for = os.environ.get("LC_ALL") or os.environ.get("LC_CTYPE") or os.environ.get("LANG") or ""
    return console.encoding.lower().startswith("utf") and asked_for not in ("C", "POSIX")


def _fitting(text: Text, console: Console, hanging: int) -> Iterator[Text]:
    """The line, and what goes on below. Words are not broken: an address or a record can be copied."""
    for line in text.split("\n", allow_blank=True) if text.plain else (text,):
        indent = len(line.plain) - len(line.plain.lstrip(" "))
        width = max(console.width - indent - hanging, LEAST)
        if line.cell_len <= console.width:
            yield line
            continue
        rest = line[indent:]
        for number, piece in enumerate(rest.divide(_breaks(rest.plain, width + hanging, width))):
            piece.rstrip()
            yield Text(" " * (indent + (hanging if number else 0))).append_text(piece)


def _breaks(text: str, first: int, width: int) -> Iterator[int]:
    """Before which characters a line begins anew: those of words that would not end within the width, which is another
    one for the `first` line."""
    begin = 0
    for word in re.finditer(r"\S+", text):
        if word.start() > begin and cell_len(text[begin : word.end()]) > (width if begin else first):
            begin = word.start()
            yield begin
