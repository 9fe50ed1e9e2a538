"""Addresses without a domain in the header of a submitted message: they get that of `origin` (RFC 6409 8.2). Pure.

Programs of this machine write `From: root (Cron Daemon)` and `To: root`; beyond it nobody knows which root that is, no
domain can sign for it, and a reply goes nowhere. Nothing else in a field is changed, and a field that cannot be read
stays as it is: this looks for a single word where an address stands, and for no more.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from mailrider.model.domain import Domain

# Octets of such fields that are looked at, to the end of the field; each counts for some more. About 300 fields, or
# 700 addresses, and 15 ms at most (tests/unit/test_work.py).
MAX_OCTETS: Final = 20480
_EACH: Final = 64

# It begins with an octet that is quickly found.
_FIELD = re.compile(rb"\n(?i:(?:resent-)?(?:from|sender|reply-to|to|cc))[ \t]*+:(.*+(?:\n[ \t].*+)*)")
# Behind which, or in which, an `@` may stand that is not that of the address.
_SEVERAL = re.compile(rb'[,;"(]')
# RFC 5322 3.2: a quoted string, a quoted pair, a domain literal, a special, a word, white space; or what is none of it.
_TOKEN = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*"|\\.|\[[^\]\\]*+\]|[(),:;<>]|[^\s"\\()\[\],:;<>]++|\s++|.', re.DOTALL)
# What stands where an address does, and is a local part: an atom with dots, or a quoted string.
_LOCAL_PART = re.compile(rb'[A-Za-z0-9!#$%&\'*+/=?^_`{|}~.\-\x80-\xff]+|".*"', re.DOTALL)


@dataclass(slots=True)
class _FieldReader:
    """Goes through a field once, and notes where a domain is missing."""

    places: list[int] = field(default_factory=list)
    depth: int = 0  # of comments
    in_brackets: bool = False
    had_brackets: bool = False
    words: list[re.Match[bytes]] = field(default_factory=list)  # of the address under way

    def read(self, value: bytes) -> list[int]:
        """Where to insert it; nowhere, if the field makes no sense."""
        for token in _TOKEN.finditer(value):
            text = token[0]
            if text == b"(":
                self.depth += 1
            elif text == b")":
                self.depth -= 1
            elif not (self.depth or text.isspace() or self._take(token, text)):
                return []
            if self.depth < 0:
                return []
        if self.depth or self.in_brackets:
            return []
        self._end_address()
        return self.places

    def _take(self, token: re.Match[bytes], text: bytes) -> bool:
        """Something that is neither comment nor space; False where it cannot stand."""
        match text:
            case b"<" if not (self.in_brackets or self.had_brackets):
                self.in_brackets, self.words = True, []
            case b">" if self.in_brackets:
                self._note()
                self.in_brackets, self.had_brackets = False, True
            case b"," | b";" if not self.in_brackets:
                self._end_address()
            case b":" if not (self.in_brackets or self.had_brackets):
                self.words = []  # they were the name of a group
            case b"<" | b">" | b"," | b";" | b":" | b'"' | b"[" | b"]" | b"\\":
                return False
            case _:
                self.words.append(token)
        return True

    def _end_address(self) -> None:
        if not self.had_brackets:
            self._note()
        self.words, self.had_brackets = [], False

    def _note(self) -> None:
        if len(self.words) == 1:
            word = self.words[0]
            # A lone encoded word is a name whose address is missing (RFC 2047 5).
            if _LOCAL_PART.fullmatch(word[0]) and not word[0].startswith(b"=?"):
                self.places.append(word.end())


def complete_addresses(header: bytes, origin: Domain) -> bytes:
    """The header with `@origin` behind each address that has no domain; the same object if there is none."""
    pieces: list[bytes] = []
    done = seen = 0
    added = b"@" + origin.ascii.encode("ascii")
    for match in _FIELD.finditer(b"\n" + header):
        value = match[1]
        seen += len(value) + _EACH
        if seen > MAX_OCTETS:
            break
        if value.count(b"@") == 1 and not _SEVERAL.search(value) and b"@" in value.rpartition(b"<")[2]:
            continue  # one address, and it has a domain: nearly all fields
        for place in _FieldReader().read(value):
            at = match.start(1) - 1 + place
            pieces += (header[done:at], added)
            done = at
    return b"".join((*pieces, header[done:])) if pieces else header
