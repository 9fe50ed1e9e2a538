"""Trust anchors of our own validation: which keys of the root we believe (RFC 4033 2, RFC 7958).

They are static: those that this package ships, and those in files. Nothing here follows a change of the root's keys
by itself (RFC 5011); `missing_keys` says what the root has and we lack, so that somebody is told in time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

import dns.dnssec
import dns.exception
import dns.name
import dns.rdata
import dns.rdataclass
import dns.rdatatype
import dns.tokenizer

from mailrider.errors import LocalError
from mailrider.files import read_regular

if TYPE_CHECKING:
    from collections.abc import Iterable

# https://data.iana.org/root-anchors/root-anchors.xml: KSK-2024, which signs the root from October 2026.
SHIPPED: Final = ". IN DS 38696 8 2 683D2D0ACB8C9B712A1948B27F741219298D0A450D612C483AF444A4C0FB2B16"
DEBIAN_FILE: Final = Path("/usr/share/dns/root.key")  # Debian's package dns-root-data
RETIRED: Final = frozenset((20326,))  # KSK-2017: to be revoked in January 2027, and not to be believed any more
_SEP: Final = 0x0001  # RFC 4034 2.1.1
_REVOKED: Final = 0x0080  # RFC 5011 2.1
MAX_FILE: Final = 65536  # octets; an anchor file has a few lines

_UNREADABLE = (dns.exception.DNSException, ValueError, IndexError)


class AnchorFileError(LocalError):
    """A file with trust anchors that cannot be used."""

    public = "The trust anchors of DNSSEC cannot be read"


@dataclass(frozen=True, slots=True)
class Anchor:
    """One DS or DNSKEY record: `text` in zone-file form, as `. IN DS 38696 8 2 683D...`."""

    owner: str
    tag: int
    text: str

    def __str__(self) -> str:
        return f"key {self.tag} of {self.owner}"


def shipped_anchors() -> tuple[Anchor, ...]:
    """The anchors in this package, and those of Debian's `dns-root-data` where it is installed and readable."""
    try:
        installed = read_anchor_file(DEBIAN_FILE)
    except AnchorFileError:
        installed = ()
    return tuple(dict.fromkeys((*parse_anchors(SHIPPED), *installed)))


def read_anchor_file(path: Path) -> tuple[Anchor, ...]:
    """The anchors in a file. Raises `AnchorFileError`, which names the file and the line."""
    try:
        octets, _ = read_regular(path, MAX_FILE + 1)
    except OSError as error:
        raise AnchorFileError(f"{path}: {error.strerror}") from error
    if len(octets) > MAX_FILE:
        raise AnchorFileError(f"{path}: more than {MAX_FILE} octets; a file of trust anchors has a few lines")
    try:
        return parse_anchors(octets.decode("utf-8", "replace"))
    except AnchorFileError as error:
        raise AnchorFileError(f"{path}, {error}") from error


def parse_anchors(text: str) -> tuple[Anchor, ...]:
    """One DS or DNSKEY record a line, as `. IN DS 38696 8 2 683D...`; comments begin with `;`.

    Keys that are revoked (RFC 5011 2.1), retired, or not key signing keys are left out. Raises `AnchorFileError`.
    """
    anchors: dict[Anchor, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition(";")[0].split()
        if not words:
            continue
        try:
            anchor = _parse_record(words)
        except _UNREADABLE as error:
            expected = "expected a DS or DNSKEY record, as `. IN DS 38696 8 2 683D...`"
            raise AnchorFileError(f"line {number}: {expected}: {error}") from error
        if anchor is not None and anchor.tag not in RETIRED:
            anchors[anchor] = None
    return tuple(anchors)


def _parse_record(words: list[str]) -> Anchor | None:
    owner = dns.name.from_text(words[0])
    rest = [word for word in words[1:4] if not word.isdigit() and word.upper() != "IN"]  # without TTL and class
    rdtype = dns.rdatatype.from_text(rest[0])
    if rdtype not in (dns.rdatatype.DS, dns.rdatatype.DNSKEY):
        raise ValueError(f"a {rest[0]} record")
    data = " ".join(words[words.index(rest[0]) + 1 :])
    rdata = dns.rdata.from_text(dns.rdataclass.IN, rdtype, data, relativize=False)
    if rdtype == dns.rdatatype.DNSKEY and not _signs_keys(rdata):
        return None
    return Anchor(str(owner), _tag(rdata), f"{owner} IN {dns.rdatatype.to_text(rdtype)} {rdata}")


def _signs_keys(key: dns.rdata.Rdata) -> bool:
    flags = int(getattr(key, "flags", 0))
    return bool(flags & _SEP) and not flags & _REVOKED


def _tag(rdata: dns.rdata.Rdata) -> int:
    tag = getattr(rdata, "key_tag", None)
    return int(tag) if tag is not None else int(dns.dnssec.key_id(rdata))  # type: ignore[arg-type] # a DNSKEY, by now


def missing_keys(anchors: Iterable[Anchor], keys: Iterable[bytes]) -> tuple[int, ...]:
    """Tags of the root's key signing keys (DNSKEY rdata, as on the wire) that no anchor stands for."""
    known = {anchor.tag for anchor in anchors if anchor.owner == "."}
    missing: list[int] = []
    for octets in keys:
        try:
            key = dns.rdata.from_wire(dns.rdataclass.IN, dns.rdatatype.DNSKEY, octets, 0, len(octets))
        except _UNREADABLE:
            continue
        if _signs_keys(key) and _tag(key) not in known and _tag(key) not in RETIRED:
            missing.append(_tag(key))
    return tuple(sorted(missing))
