"""Header fields that we write ourselves. Pure.

Whatever we add to a message, or write a message of our own from, goes through `compose_field`: the one place that sees
to it that no line of a field can hold a line end. Without that, whoever chooses an address, a subject or a reply could
add fields and a body of his own to a message that we sign.
"""

from __future__ import annotations

import re
from typing import Final

from mailrider.errors import LocalError

MAX_LINE: Final = 998  # octets without CRLF: RFC 5322 2.1.1

_LONGEST: Final = MAX_LINE - 80  # room for the longest name, or for what a folded line begins with
_SHORT: Final = _LONGEST // 4  # characters that cannot be more octets than that
_FOLDS: Final = (" ", "\t")
_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 2.2


class UnsafeField(LocalError):
    """A field that must not be written: a mistake in our own code, found before it does harm."""


def compose_field(name: str, *lines: str, fold: str = " ") -> str:
    """A field with its line end: `lines` are its value; each but the first has a line of its own, begun with `fold`.

    Raises `UnsafeField` for a name that is none, for a line that holds CR, LF or NUL, for one that is too long, and for
    one of white space alone, which some readers take for the end of the header.
    """
    if not _NAME.fullmatch(name):
        raise UnsafeField(f"not the name of a header field: {name[:100]!r}")
    text = "".join(lines)
    # Nearly every field passes here: nothing in it can end a line, and no line is too long or blank.
    is_plain = text.isascii() and text.isprintable() and len(text) <= _LONGEST and fold in _FOLDS
    if not is_plain or not all(lines) or any(map(str.isspace, lines)):
        _check_lines(name, lines, fold)
    return f"{name}:{' ' if lines and lines[0] else ''}" + f"\r\n{fold}".join(lines) + "\r\n"


def _check_lines(name: str, lines: tuple[str, ...], fold: str) -> None:
    text = "".join(lines)
    # The line ends of ASCII, and NUL: others (U+0085, U+2028) end no line in a message.
    if "\r" in text or "\n" in text or "\0" in text or not all(lines[1:]) or fold.strip(" \t") or not fold:
        raise UnsafeField(f"not lines of the header field {name}: {text[:100]!r}")
    for line in lines:
        if line.isspace() or (len(line) > _SHORT and len(line.encode("utf-8", "replace")) > _LONGEST):
            raise UnsafeField(f"not a line of the header field {name}: {line[:100]!r}")
