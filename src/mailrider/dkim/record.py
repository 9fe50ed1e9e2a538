"""The TXT record that publishes a DKIM key (RFC 6376 3.6.1), and whether it is that of a key that we have.

Pure. What a zone's owner wrote never raises: `compare` says in words what is wrong with it.
"""

from __future__ import annotations

import base64
import re
from typing import TYPE_CHECKING, Final

from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

MAX_RECORD: Final = 8192  # octets; an RSA key of 4096 bits takes 750, one of 16384 bits 2,800
MAX_TAGS: Final = 50  # of a record or signature; RFC 6376 names 14

_TAG = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def record_name(domain: Domain, selector: str) -> Domain:
    """Where the record stands; `InvalidValue` if that name would be too long to exist."""
    return Domain.parse(f"{selector}._domainkey.{domain.ascii}")


def parse_tags(text: str) -> Mapping[str, str]:
    """A tag list (RFC 6376 3.2), with the white space around names and values gone; empty if it is none."""
    tags: dict[str, str] = {}
    fields = text.split(";", MAX_TAGS)
    for field in fields[:-1] if not fields[-1].strip() else fields:
        name, equals, value = field.partition("=")
        name = name.strip()
        if not equals or not _TAG.fullmatch(name) or name in tags:
            return {}
        tags[name] = value.strip()
    return tags


def compare(texts: Sequence[bytes], kind: str, public: str, *, subdomains: bool = False) -> str:
    """What keeps receivers from verifying with these TXT records what a key signs; empty if nothing does.

    `kind` is `rsa` or `ed25519`, `public` the key in base64, as its record has it. `subdomains`: it signs for
    authors of subdomains, too.
    """
    records = [tags for tags in _tags(texts) if tags.get("v", "DKIM1") == "DKIM1" and "p" in tags]
    if not records:
        return "there is no such record" if not texts else "the TXT record there is no DKIM key"
    if len(records) > 1:
        return f"{len(records)} records publish a key there, and receivers take any of them (RFC 6376 3.6.2.2)"
    (record,) = records
    published = "".join(record["p"].split())
    if not published:
        return "the record says that the key was revoked (p= is empty)"
    if record.get("k", "rsa") != kind:
        return f"the record is of a key of another kind: {record.get('k', 'rsa')[:20]}, not {kind}"
    if not _same(published, public):
        return "the record is of another key"
    return _limits(record, subdomains=subdomains)


def is_testing(texts: Sequence[bytes]) -> bool:
    """True if the record says that the domain is testing DKIM: receivers may ignore what it signs."""
    return any("y" in _words(each.get("t", "")) for each in _tags(texts) if "p" in each)


def allowed_services(texts: Sequence[bytes]) -> set[str]:
    """What the records let a key sign for, `*` for all (RFC 6376 3.6.1, `s=`)."""
    return {word for each in _tags(texts) for word in _words(each.get("s", "*"))}


def _tags(texts: Sequence[bytes]) -> list[Mapping[str, str]]:
    return [parse_tags(text.decode("ascii", "replace")) for text in texts if len(text) <= MAX_RECORD]


def _limits(record: Mapping[str, str], *, subdomains: bool) -> str:
    if "v" in record and next(iter(record)) != "v":
        return "v= is not the first tag of the record, and receivers may take it for none (RFC 6376 3.6.1)"
    if "h" in record and "sha256" not in _words(record["h"]):
        return "the record does not allow SHA-256 (h=)"
    if "s" in record and not {"*", "email"} & set(_words(record["s"])):
        return "the record is not for mail (s=)"
    if subdomains and "s" in _words(record.get("t", "")):
        return "the record does not allow authors of subdomains (t=s), and sign_subdomains is on"
    return ""


def _words(text: str) -> list[str]:
    return [word.strip() for word in text.split(":")]


def _same(published: str, public: str) -> bool:
    try:
        return base64.b64decode(published, validate=True) == base64.b64decode(public)
    except ValueError:
        return False
