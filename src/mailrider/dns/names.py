"""The names of one DNS message (RFC 1035 3.1, 4.1.4), each label read once.

A stranger's zone decides what stands in an answer. In 64 KiB there is room for thousands of names that all point into
one of 127 labels; read one by one they take half a second, in which the event loop stands. So what stands at a place is
remembered, and no more than `MAX_LABELS` are read of one message.
"""

from __future__ import annotations

import re
from typing import Final

MAX_LABELS: Final = 4000  # of one message, each pointer counts as one: a hundred MX hosts of forty labels
MAX_NAME: Final = 255  # octets: RFC 1035 2.3.4

_PLAIN = re.compile(rb"[A-Za-z0-9_-]+")


def _as_text(octet: int) -> str:
    """As zone files write it (RFC 1035 5.1)."""
    character = chr(octet).lower()
    if character in '"().;\\@$':
        return f"\\{character}"
    return character if 0x20 < octet < 0x7F else f"\\{octet:03d}"


_TEXT: Final = tuple(map(_as_text, range(256)))


class NameReader:
    """Reads the names of one message, each label once."""

    def __init__(self, message: bytes) -> None:
        self._message = message
        # By where a label begins: the rest of the name, its octets on the wire, and where that ends in the message.
        self._known: dict[int, tuple[str, int, int]] = {}
        self._left = MAX_LABELS

    def read(self, start: int) -> tuple[str, int]:
        """The name that begins there, and where the next field begins. Raises `ValueError` and `IndexError`.

        In lower case and without the last dot, as `Domain.ascii` has it; `.` is the root, and odd octets are escaped,
        so it is always ASCII.
        """
        message, known = self._message, self._known
        labels: list[tuple[int, bytes, int]] = []  # place, octets, number of the run
        ends: list[int] = []  # where each run of labels ends: behind the root, or behind a pointer
        place = lowest = start
        while True:
            found = known.get(place)
            if found is not None:
                break
            length = message[place]
            if length == 0:
                found = "", 1, place + 1
            elif length >= 0xC0:
                target = (length & 0x3F) << 8 | message[place + 1]
                if target >= lowest:
                    raise ValueError("a name points at itself or at what comes later")
                ends.append(place + 2)
                place = lowest = target
                continue
            elif length >= 0x40:
                raise ValueError(f"a label of a kind that is not known: {length}")
            else:
                label = message[place + 1 : place + 1 + length]
                labels.append((place, label, len(ends)))
                if len(labels) * 2 > MAX_NAME or len(label) < length:
                    raise ValueError("a name is too long")
                place += 1 + length
                continue
            break
        ends.append(found[2])
        return self._put_together(start, labels, ends, found)

    def _put_together(
        self, start: int, labels: list[tuple[int, bytes, int]], ends: list[int], found: tuple[str, int, int]
    ) -> tuple[str, int]:
        self._left -= len(labels) + len(ends) - 1
        if self._left < 0:
            raise ValueError(f"more than {MAX_LABELS} labels in one message")
        text, size, _ = found
        for place, label, run in reversed(labels):
            shown = label.decode().lower() if _PLAIN.fullmatch(label) else "".join([_TEXT[octet] for octet in label])
            text = f"{shown}.{text}" if text else shown
            size += 1 + len(label)
            if size > MAX_NAME:
                raise ValueError("a name is too long")
            self._known[place] = text, size, ends[run]
        if not labels or labels[0][0] != start:  # it begins with a pointer, to which another may point
            self._known[start] = text, size, ends[0]
        return text or ".", ends[0]
