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
    text = f"{name}: {lines[0]}" if lines and lines[0] else f"{name}:"
    whole = (text, *(fold + line for line in lines[1:]))
    for line in whole:
        if not _is_safe(line):
            raise UnsafeField(f"not a line of the header field {name}: {line[:100]!r}")
    return "\r\n".join(whole) + "\r\n"


def _is_safe(line: str) -> bool:
    # The line ends of ASCII, and NUL: others (U+0085, U+2028) end no line in a message.
    if "\r" in line or "\n" in line or "\0" in line or line.isspace() or not line:
        return False
    return len(line) * 4 <= MAX_LINE or len(line.encode("utf-8", "replace")) <= MAX_LINE
