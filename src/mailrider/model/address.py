"""Mail addresses: mailboxes and the reverse-path (RFC 5321 4.1.2, RFC 6531 3.3).

`Mailbox.parse` takes what people and SMTP clients write between the angle brackets; the value holds the local part
unquoted and is written back with quotes only where the grammar demands them. Source routes are accepted and dropped
(RFC 5321 appendix C). A mailbox without a domain parses (`postmaster`): whether it can be delivered is a decision of
routing, not of syntax.

Some mobile networks gave out addresses with dots where RFC 5321 4.1.2 has none (`a..b@`, `a.@`). They are taken
without quotes, as their owners write them, and written with quotes, which makes them legal on the wire.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from functools import lru_cache

from mailrider.errors import InvalidValue
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.text import UNSAFE

# Octets of the mailbox; 256 with the angle brackets: RFC 5321 4.5.3.1.3. The local part has no limit of its own, though
# RFC 5321 4.5.3.1.1 names 64: that is what all must take, and rewritten senders (VERP, SRS) are longer.
MAX_PATH = 254

DOTS = (".", "\u3002", "\uff0e", "\uff61")
"""All that UTS 46 takes for the dot of a domain."""
TRAILING_DOT = "a domain in an address does not end in a dot"
"""As it does in DNS; RFC 5321 4.1.2 has none there, and servers refuse it."""

# By what it is not: a set that reaches beyond the BMP takes re 4 ms to compile.
_NO_ATEXT = r"\x00-\x20\"(),:;<>@\[\\\]\x7f"  # nor a dot
_DOT_STRING = re.compile(rf"[^.{_NO_ATEXT}]+(?:\.[^.{_NO_ATEXT}]+)*")
# The same with dots wherever they please; there is something beside dots.
_UNQUOTED = re.compile(rf"\.*[^.{_NO_ATEXT}][^{_NO_ATEXT}]*")
# qtextSMTP or quoted-pairSMTP; no control characters, so a quoted local part can never carry a line end.
_QUOTED_STRING = re.compile(r'"((?:[^\x00-\x1f"\\\x7f]|\\[ -~])*)"')
_QUOTED_PAIR = re.compile(r"\\(.)")
_SOURCE_ROUTE = re.compile(r"(?:@[A-Za-z0-9.\-]+)(?:,@[A-Za-z0-9.\-]+)*:")


@dataclass(frozen=True, slots=True)
class Mailbox:
    """A mail address. `local_part` is unquoted; `domain` is None for an address without one.

    `is_ascii`: the local part needs no SMTPUTF8; the domain never does, it has A-labels. `text`: the address as it goes
    on the wire, with A-labels always, which RFC 6531 3.2 allows too; asked for far more often than an address is made.
    """

    local_part: str
    domain: Domain | AddressLiteral | None
    is_ascii: bool = field(init=False, repr=False, compare=False)
    text: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        local = self.local_part
        if UNSAFE.search(local):
            raise InvalidValue(f"control character in the local part {local[:100]!r}")
        quoted = quote_local_part(local)
        text = quoted if self.domain is None else f"{quoted}@{self.domain.ascii}"
        if len(text.encode()) > MAX_PATH:
            raise InvalidValue(f"address longer than {MAX_PATH} octets: {text[:100]!r}...")
        object.__setattr__(self, "is_ascii", local.isascii())
        object.__setattr__(self, "text", text)

    @classmethod
    def parse(cls, text: str) -> Mailbox:
        """An address as in a path, without its angle brackets. Raises `InvalidValue`."""
        return _parse_mailbox(text)

    def __str__(self) -> str:
        return self.text


def quote_local_part(local: str) -> str:
    """The local part, quoted if it is no dot-string (RFC 5321 4.1.2)."""
    if _DOT_STRING.fullmatch(local):
        return local
    return '"' + local.replace("\\", "\\\\").replace('"', '\\"') + '"'


@lru_cache(maxsize=16384)
def _parse_mailbox(text: str) -> Mailbox:
    if len(text) > MAX_PATH + MAX_PATH:  # room for a source route
        raise InvalidValue(f"address too long: {text[:100]!r}...")
    route = _SOURCE_ROUTE.match(text)
    rest = text[route.end() :] if route else text
    local, rest = _split_local_part(rest, text)
    if not rest:
        return Mailbox(local, None)
    domain_text = rest[1:]
    if not rest.startswith("@") or not domain_text:
        raise InvalidValue(f"not a mail address: {text[:300]!r}")
    if domain_text.endswith(DOTS):
        raise InvalidValue(f"not a mail address: {text[:300]!r} ({TRAILING_DOT})")
    domain = AddressLiteral.parse(domain_text) if domain_text.startswith("[") else Domain.parse(domain_text)
    return Mailbox(local, domain)


def _split_local_part(rest: str, text: str) -> tuple[str, str]:
    quoted = _QUOTED_STRING.match(rest)
    if quoted:
        return _QUOTED_PAIR.sub(r"\1", quoted[1]), rest[quoted.end() :]
    plain = _UNQUOTED.match(rest)
    if not plain:
        raise InvalidValue(f"not a mail address: {text[:300]!r}")
    return plain[0], rest[plain.end() :]


@dataclass(frozen=True, slots=True)
class ReversePath:
    """The sender of the envelope; `mailbox` is None for the null reverse-path `<>` of notifications.

    `text` is the path without its angle brackets, empty for the null path. `is_ascii`: it needs no SMTPUTF8. `is_null`:
    there is nobody to send a notification to.
    """

    mailbox: Mailbox | None
    text: str = field(init=False, repr=False, compare=False)
    is_ascii: bool = field(init=False, repr=False, compare=False)
    is_null: bool = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        mailbox = self.mailbox
        if mailbox is not None and mailbox.domain is None:
            raise InvalidValue(f"sender without a domain: {mailbox}")
        object.__setattr__(self, "text", "" if mailbox is None else mailbox.text)
        object.__setattr__(self, "is_ascii", mailbox is None or mailbox.is_ascii)
        object.__setattr__(self, "is_null", mailbox is None)

    @classmethod
    def parse(cls, text: str) -> ReversePath:
        """An address, or the empty string (or `<>`) for the null reverse-path. Raises `InvalidValue`."""
        if text in ("", "<>"):
            return NULL_PATH
        return cls(Mailbox.parse(text))

    @property
    def domain(self) -> Domain | AddressLiteral | None:
        """The sender's domain; None for the null path."""
        return None if self.mailbox is None else self.mailbox.domain

    def __str__(self) -> str:
        return self.text


NULL_PATH = ReversePath(None)
