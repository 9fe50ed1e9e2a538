"""What a server offers: the reply to EHLO as a value, and back (RFC 5321 4.1.1.1).

Unknown keywords are kept and mean nothing; a malformed parameter of a known one counts as not given.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Mapping

_KEYWORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]*")
_NUMBER = re.compile(r"[0-9]{1,20}")

# Characters of an EHLO reply that is worth keeping; real ones have some 300, and hostile ones must not fill memory.
MAX_REMEMBERED = 4096


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The extensions of one EHLO reply. `keywords` maps upper-case keywords to their parameters.

    `max_size` in octets, None for no fixed limit (RFC 1870 6: 0 says so too); `max_recipients` per transaction,
    `max_transactions` and recipients' domains `max_domains` per connection are RCPTMAX, MAILMAX and RCPTDOMAINMAX (RFC
    9422 4).
    """

    greeting: str = ""
    keywords: Mapping[str, str] = field(default_factory=dict, hash=False)
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
    max_domains: int | None = None
    auth: frozenset[str] = frozenset()


NO_CAPABILITIES = Capabilities()

# All that a server on this machine understands, apart from what needs settings: STARTTLS, AUTH, REQUIRETLS, limits.
FULL_OFFER: Final = Capabilities(
    keywords={"ENHANCEDSTATUSCODES": ""},
    pipelining=True,
    eight_bit_mime=True,
    smtputf8=True,
    chunking=True,
    dsn=True,
    size=True,
)


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
        max_domains=_number(limits.get("RCPTDOMAINMAX", "")),
        auth=frozenset(keywords.get("AUTH", "").upper().split()),
    )


def _number(text: str) -> int | None:
    """A positive decimal number, or None."""
    return (int(text) or None) if _NUMBER.fullmatch(text) else None


@lru_cache(maxsize=64)
def ehlo_reply(hostname: str, offer: Capabilities) -> Reply:
    """The reply to EHLO that announces `offer`; the inverse of `parse_capabilities`. An endpoint makes few of them."""
    limits = {
        "MAILMAX": offer.max_transactions,
        "RCPTMAX": offer.max_recipients,
        "RCPTDOMAINMAX": offer.max_domains,
    }
    words = {
        "PIPELINING": offer.pipelining,
        f"SIZE {offer.max_size or ''}": offer.size,
        "8BITMIME": offer.eight_bit_mime,
        "SMTPUTF8": offer.smtputf8,
        "CHUNKING": offer.chunking,
        "DSN": offer.dsn,
        "STARTTLS": offer.starttls,
        "REQUIRETLS": offer.requiretls,
        f"AUTH {' '.join(sorted(offer.auth))}": offer.auth,
        f"LIMITS {' '.join(f'{name}={limit}' for name, limit in limits.items() if limit)}": any(limits.values()),
    }
    lines = [line.strip() for line, offered in words.items() if offered]
    known = {line.partition(" ")[0] for line in words}
    lines += [f"{word} {text}".strip() for word, text in offer.keywords.items() if word not in known]
    return Reply(250, None, (hostname, *lines))
