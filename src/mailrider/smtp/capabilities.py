"""What a server offers: the reply to EHLO as a value (RFC 5321 4.1.1.1).

Unknown keywords are kept and mean nothing; a malformed parameter of a known one counts as not given.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.model.reply import Reply

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_NUMBER = re.compile(r"[0-9]{1,20}")

# Characters of an EHLO reply that is worth keeping; real ones have some 300, and hostile ones must not fill memory.
MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions of one EHLO reply. `keywords` maps upper-case keywords to their parameters.

    `max_size` in octets, None for no fixed limit (RFC 1870 6: 0 says so too); `max_recipients` per transaction and
    `max_transactions` per connection are RCPTMAX and MAILMAX (RFC 9422 4).
    """

    greeting: str = ""
    keywords: Mapping[str, str] = field(default_factory=dict)
    pipelining: bool = False
    eight_bit_mime: bool = False
    smtputf8: bool = False
    chunking: bool = False
    dsn: bool = False
    starttls: bool = False
    requiretls: bool = False
    size: bool = False
    max_size: int | None = None
    max_recipients: int | None = None
    max_transactions: int | None = None
    auth: frozenset[str] = frozenset()


NO_CAPABILITIES = Capabilities()


def parse_capabilities(reply: Reply) -> Capabilities:
    """The capabilities in a positive reply to EHLO or LHLO; a server's reply is parsed once, however often it comes."""
    is_small = sum(map(len, reply.lines)) <= MAX_REMEMBERED
    return _remembered(reply.lines) if is_small else _parse(reply.lines)


@lru_cache(maxsize=1024)
def _remembered(lines: tuple[str, ...]) -> Capabilities:
    return _parse(lines)


def _parse(lines: tuple[str, ...]) -> Capabilities:
    keywords: dict[str, str] = {}
    for line in lines[1:]:
        keyword, _, parameters = line.strip().partition(" ")
        if keyword[:5].upper() == "AUTH=":  # as written before AUTH had an RFC, by some servers still
            keyword, parameters = "AUTH", f"{keyword[5:]} {parameters}"
        if not _KEYWORD.fullmatch(keyword):
            continue
        keyword, parameters = keyword.upper(), parameters.strip()
        if keyword == "AUTH" and keyword in keywords:  # mechanisms on several lines count together
            keywords[keyword] += f" {parameters}"
        if keyword == "SIZE" and keyword in keywords:  # the server itself will say if it meant the smaller one
            keywords[keyword] = max(keywords[keyword], parameters, key=lambda each: _number(each) or math.inf)
        keywords.setdefault(keyword, parameters)
    limits = dict(word.upper().partition("=")[::2] for word in keywords.get("LIMITS", "").split())
    return Capabilities(
        greeting=lines[0].strip(),
        keywords=keywords,
        pipelining="PIPELINING" in keywords,
        eight_bit_mime="8BITMIME" in keywords,
        smtputf8="SMTPUTF8" in keywords,
        chunking="CHUNKING" in keywords,
        dsn="DSN" in keywords,
        starttls="STARTTLS" in keywords,
        requiretls="REQUIRETLS" in keywords,
        size="SIZE" in keywords,
        max_size=_number(keywords.get("SIZE", "")),
        max_recipients=_number(limits.get("RCPTMAX", "")),
        max_transactions=_number(limits.get("MAILMAX", "")),
        auth=frozenset(keywords.get("AUTH", "").upper().split()),
    )


def _number(text: str) -> int | None:
    """A positive decimal number, or None."""
    return (int(text) or None) if _NUMBER.fullmatch(text) else None
