"""An SPF record: its terms, parsed (RFC 7208 4.5, 4.6, 5, 6, 12). Pure.

A record with any mistake in its syntax is none at all: `parse_record` raises `SPFSyntax`, and whoever evaluates says
`permerror`, as receivers do.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import TYPE_CHECKING, Final

from mailrider.errors import InvalidValue

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RECORD: Final = 4096  # octets; the DNS answer has to fit into 450 to reach everybody (RFC 7208 3.4)
MAX_TERMS: Final = 200
VERSION: Final = "v=spf1"

_MECHANISM = re.compile(r"([-+?~]?)(all|include|a|mx|ptr|ip4|ip6|exists)(?![\w.-])(.*)", re.IGNORECASE)
_MODIFIER = re.compile(r"([a-z][a-z0-9_.-]*)=(.*)", re.IGNORECASE)
_LENGTHS = re.compile(r"(?:/([0-9]{1,3}))?(?://([0-9]{1,3}))?")
_VISIBLE = re.compile(r"[!-~]+")
_MACRO = re.compile(r"%(?:\{([slodiphcrtv])([0-9]*)(r?)([.+,/_=-]*)\}|([%_-])|)", re.IGNORECASE)


class SPFSyntax(InvalidValue):
    """The record is wrong."""


@dataclass(frozen=True, slots=True)
class SPFTerm:
    """One term that may match. `domain` is a domain-spec, macros and all; empty: the record's own domain is meant."""

    text: str
    qualifier: str
    name: str
    domain: str = ""
    network: IPv4Network | IPv6Network | None = None
    lengths: tuple[int, int] = (32, 128)


@dataclass(frozen=True, slots=True)
class SPFRecord:
    """The mechanisms in their order, and where to look if none matches."""

    mechanisms: tuple[SPFTerm, ...]
    redirect: str = ""


def find_records(texts: Sequence[bytes]) -> list[str]:
    """The SPF records among the TXT records of a domain (RFC 7208 4.5)."""
    found = [text.decode("ascii", "replace") for text in texts if len(text) <= MAX_RECORD]
    return [text for text in found if text.lower() == VERSION or text.lower().startswith(f"{VERSION} ")]


def parse_record(text: str) -> SPFRecord:
    """Raises `SPFSyntax`."""
    terms = [term for term in text.split(" ") if term][1:]
    if len(terms) > MAX_TERMS:
        raise SPFSyntax(f"it has more than {MAX_TERMS} terms")
    mechanisms: list[SPFTerm] = []
    modifiers: dict[str, str] = {}
    for term in terms:
        mechanism = _MECHANISM.fullmatch(term)
        modifier = _MODIFIER.fullmatch(term)
        if not _VISIBLE.fullmatch(term):
            raise SPFSyntax(f"not a term: {term[:80]!r}")
        if modifier is not None:
            name = modifier[1].lower()
            if name in modifiers and name in ("redirect", "exp"):
                raise SPFSyntax(f"{name}= is there twice")
            modifiers.setdefault(name, modifier[2])
        elif mechanism is not None:
            mechanisms.append(_parse_mechanism(term, mechanism[1] or "+", mechanism[2].lower(), mechanism[3]))
        else:
            raise SPFSyntax(f"not a term: {term[:80]!r}")
    redirect = modifiers.get("redirect", "")
    if "redirect" in modifiers:
        _check_domain_spec(redirect, "redirect")
    return SPFRecord(tuple(mechanisms), redirect)


def _parse_mechanism(text: str, qualifier: str, name: str, rest: str) -> SPFTerm:
    if name == "all":
        if rest:
            raise SPFSyntax(f"all takes nothing: {text[:80]!r}")
        return SPFTerm(text, qualifier, name)
    if name in ("ip4", "ip6"):
        return SPFTerm(text, qualifier, name, network=_parse_network(text, name, rest))
    domain, lengths = rest, (32, 128)
    if name in ("a", "mx"):
        domain, lengths = _split_lengths(text, rest)
    if domain.startswith(":"):
        domain = domain[1:]
        _check_domain_spec(domain, text)
    elif domain or name in ("include", "exists"):
        raise SPFSyntax(f"{name} needs a domain: {text[:80]!r}")
    return SPFTerm(text, qualifier, name, domain, lengths=lengths)


def _parse_network(text: str, name: str, rest: str) -> IPv4Network | IPv6Network:
    try:
        network = ip_network(rest.removeprefix(":"), strict=False)
    except ValueError as error:
        raise SPFSyntax(f"not a network: {text[:80]!r}") from error
    if not rest.startswith(":") or network.version != int(name[-1]) or "/" in rest.partition("/")[2]:
        raise SPFSyntax(f"not a network: {text[:80]!r}")
    length = rest.partition("/")[2]
    if length and not length.isdigit():  # a mask, as in 192.0.2.0/255.255.255.0
        raise SPFSyntax(f"not a network: {text[:80]!r}")
    return network


def _split_lengths(text: str, rest: str) -> tuple[str, tuple[int, int]]:
    """The domain, and the lengths of the networks around its addresses."""
    # A slash may stand in a macro: %{d/}; lengths are what stands behind the last brace.
    at = rest.find("/", rest.rfind("}") + 1)
    domain, slash = (rest, "") if at < 0 else (rest[:at], rest[at:])
    match = _LENGTHS.fullmatch(slash)
    if match is None:
        raise SPFSyntax(f"not a length of a network: {text[:80]!r}")
    four, six = int(match[1] or 32), int(match[2] or 128)
    if four > 32 or six > 128:
        raise SPFSyntax(f"not a length of a network: {text[:80]!r}")
    return domain, (four, six)


def _check_domain_spec(spec: str, text: str) -> None:
    if not spec or not all(_is_macro(match) for match in _MACRO.finditer(spec)):
        raise SPFSyntax(f"not a domain: {text[:80]!r}")


def _is_macro(match: re.Match[str]) -> bool:
    letter, digits, *_ = match.groups()
    if match[0] == "%" or (letter or "").lower() in ("c", "r", "t"):  # these three are for explanations only
        return False
    return digits in (None, "") or 0 < int(digits[:6]) <= 127


def expand(spec: str, values: dict[str, str]) -> str:
    """A domain-spec with its macros replaced (RFC 7208 7.3); of what is too long, the first labels go."""

    def replaced(match: re.Match[str]) -> str:
        letter, digits, reverse, delimiters, literal = match.groups()
        if literal:
            return {"%": "%", "_": " ", "-": "%20"}[literal]
        parts = re.split(f"[{re.escape(delimiters or '.')}]", values[letter.lower()])
        if reverse:
            parts.reverse()
        return ".".join(parts[-int(digits) :] if digits else parts)

    name = _MACRO.sub(replaced, spec).rstrip(".")
    while len(name) > 253 and "." in name:
        name = name.partition(".")[2]
    return name
