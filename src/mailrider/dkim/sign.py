"""DKIM signatures (RFC 6376, RFC 8301, RFC 8463): what is signed, in which form, and the field that says so.

The form is relaxed/relaxed (RFC 6376 3.4.2, 3.4.4), the one that survives what mail servers do to white space. The
body is read once, chunk by chunk, however large it is and however many signatures there are; nothing of it is kept.

What always holds:

- the octets that are signed are those that will be sent: a `Content` is mended as it is read;
- every field of `OVERSIGNED` is signed once more often than it is there, so that nobody can add another one to a
  signed message (RFC 6376 8.15);
- a message gets a signature only if it has one From field and all authors in it are of the signer's domain: it would
  say of others what only they can say;
- a message is signed once for a domain and selector, whatever stands in its way: in an endpoint, a queue and a target.
  Only a signature that is right counts: one that is there and wrong, or over, is passed over.

A message that cannot be signed (`Unsigned` says why) is passed on as it is: that is for the receiver to judge. Keys
are in `signing.keys`.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.dkim.fields import OVERSIGNED, SIGNED
from mailrider.dkim.record import parse_tags
from mailrider.errors import InvalidValue
from mailrider.header.addresses import parse_authors
from mailrider.header.fields import compose_field, message_id_of
from mailrider.model.domain import Domain
from mailrider.model.event import Event
from mailrider.model.text import cut
from mailrider.model.value import value
from mailrider.smtp.content import CHUNK
from mailrider.smtp.prepend import prepend

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from datetime import datetime, timedelta

    from mailrider.clock import Clock
    from mailrider.model.event import Emit
    from mailrider.smtp.content import Content, Octets
    from mailrider.x509.signing import SigningKey

INLINE: Final = 256 * 1024  # octets whose digest is made on the event loop: about a millisecond
INLINE_HEADER: Final = 16 * 1024  # octets of a header that is read on the event loop
MAX_HEADER: Final = 256 * 1024  # octets of a header that is signed: real ones stay under 100 KiB
MAX_SIGNATURES: Final = 20  # signatures of a message that are looked at: each costs as much as one name in h=
MAX_SIGNED: Final = 200  # fields in one signature: h= stays within what verifiers read
MAX_STAMP: Final = 12  # digits of a time in a signature: RFC 6376 3.5
MAX_NAMES: Final = 200  # octets of the names of authors that the log shows

_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:([^\r]*(?:\r\n[ \t][^\r]*)*)\r\n")
_WHITE = re.compile(rb"[ \t]+")
_SIGNATURE_ITSELF = re.compile(rb"((?:^|;)[ \t\r\n]*b[ \t\r\n]*=)[^;]*")  # RFC 6376 3.7: taken out of what is signed
_FOLDED: Final = 72  # characters of a line of the field that we write
_NEW_LINE: Final = "\r\n\t"


@value
class Unsigned(Event):
    """A message went on without a signature of this domain, and why. `message_id`: what its header calls it."""

    domain: str
    reason: str
    message_id: str = field(default="", kw_only=True)


class NotSignable(InvalidValue):
    """A message that is not signed; the text says why."""


# --- Canonical forms ----------------------------------------------------------------------------


def relaxed_field(name: bytes, value: bytes) -> bytes:
    """A field in relaxed form, without its line end (RFC 6376 3.4.2)."""
    return name.lower() + b":" + _WHITE.sub(b" ", value.replace(b"\r\n", b"")).strip(b" ")


class RelaxedBody:
    """A body in relaxed form (RFC 6376 3.4.4), chunk by chunk; its input is mended.

    White space and line ends at a chunk's end wait for what follows; they are remembered, not kept.
    """

    __slots__ = ("_begun", "_empty", "_held")

    def __init__(self) -> None:
        self._held = b""  # a CR, or white space, or both, that the next chunk may make vanish
        self._empty = 0  # line ends that count only if something follows
        self._begun = False

    def feed(self, chunk: Octets) -> Iterator[bytes]:
        """The octets to digest, in pieces of bounded size."""
        octets = self._held + bytes(chunk)
        if b"\t" in octets or b"  " in octets:
            octets = _WHITE.sub(b" ", octets)
        octets = octets.replace(b" \r\n", b"\r\n")
        whole = octets.removesuffix(b"\r").rstrip(b" ")
        self._held = octets[len(whole) :]
        solid = whole.rstrip(b"\r\n")
        line_ends = (len(whole) - len(solid)) // 2
        if not solid:
            self._empty += line_ends
            return
        yield from _line_ends(self._empty)
        yield solid
        self._empty = line_ends
        self._begun = True

    def finish(self) -> bytes:
        """What stands at the end: one line end, unless the body is empty."""
        return b"\r\n" if self._begun else b""


def _line_ends(count: int) -> Iterator[bytes]:
    while count:
        some = min(count, CHUNK // 2)
        count -= some
        yield b"\r\n" * some


def body_hash(content: Content) -> bytes:
    """The SHA-256 of a message's body in relaxed form. Blocks: 2 to 4 ms a MiB."""
    body = BodyHash(content)
    for piece in content.chunks():
        body.feed(piece)
    return body.finish()


class BodyHash:
    """The hash of a body in relaxed form, fed piece by piece."""

    def __init__(self, content: Content) -> None:
        self._digest = hashlib.sha256()
        self._body = RelaxedBody()
        self._skip = content.header_size + 2  # the empty line

    def feed(self, piece: Octets) -> None:
        """Take the next octets of the message."""
        octets = bytes(piece)[self._skip :]
        self._skip = max(0, self._skip - len(piece))
        for some in self._body.feed(octets):
            self._digest.update(some)

    def finish(self) -> bytes:
        """The hash, behind the last piece."""
        self._digest.update(self._body.finish())
        return self._digest.digest()


# --- The header ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Header:
    """The fields of a message: for each name, in lower case, the values from top to bottom as they are."""

    values: Mapping[bytes, Sequence[bytes]]

    @classmethod
    def of(cls, content: Content) -> Header:
        """Raises `NotSignable` if it is not plain to every verifier what is a field, and where the header ends."""
        if content.header_size > MAX_HEADER:
            raise NotSignable(f"its header is larger than {MAX_HEADER} octets")
        if content.header_is_cut:
            raise NotSignable("its header is too large")
        if content.header_fault() is not None:
            raise NotSignable("its header is malformed")
        values: dict[bytes, list[bytes]] = {}
        for name, body in _FIELD.findall(content.header):
            values.setdefault(name.lower(), []).append(body)
        return cls(values)

    def count(self, name: str) -> int:
        """How many fields of that name there are."""
        return len(self.values.get(name.lower().encode(), ()))

    def names_to_sign(self, oversigned: Sequence[str], signed: Sequence[str]) -> list[str]:
        """The h= of a signature: each name as often as it is there, the oversigned ones once more."""
        counts = [(name, self.count(name) + 1) for name in oversigned] + [(name, self.count(name)) for name in signed]
        if sum(count for _, count in counts) > MAX_SIGNED:
            raise NotSignable(f"it has more than {MAX_SIGNED} fields to sign")
        return [each for name, count in counts for each in [name] * count]

    def canonical(self, names: Iterable[str]) -> bytes:
        """The fields of these names in relaxed form; of several of one name the last first (RFC 6376 5.4.2)."""
        left: dict[bytes, list[bytes]] = {}
        lines: list[bytes] = []
        for each in names:
            wanted = each.lower().encode()
            if values := left.setdefault(wanted, list(self.values.get(wanted, ()))):
                lines.append(relaxed_field(wanted, values.pop()) + b"\r\n")
        return b"".join(lines)

    def author_domains(self) -> set[Domain]:
        """The domains of all authors. Raises `NotSignable` unless there is one From field, and it can be read."""
        if self.count("From") != 1:
            raise NotSignable("it has no single From field")  # RFC 5322 3.6
        try:
            domains = [each.domain for each in parse_authors(self.values[b"from"][0].replace(b"\r\n", b""))]
        except InvalidValue as error:
            raise NotSignable(f"its From field cannot be read: {error}") from error
        if not all(isinstance(each, Domain) for each in domains):
            raise NotSignable("its From field has an address without a domain name")
        return {each for each in domains if isinstance(each, Domain)}


# --- Signing ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signer:
    """Signs for one domain with one key. `subdomains`: authors may be of a subdomain, too (RFC 6376 3.10)."""

    domain: Domain
    selector: str
    key: SigningKey
    oversigned: tuple[str, ...] = OVERSIGNED
    signed: tuple[str, ...] = SIGNED
    expiry: timedelta | None = None
    subdomains: bool = False

    def speaks_for(self, authors: Iterable[Domain]) -> bool:
        """True if all authors are of this domain."""
        own, below = self.domain.ascii, f".{self.domain.ascii}"
        found = [each.ascii for each in authors]
        return bool(found) and all(each == own or (self.subdomains and each.endswith(below)) for each in found)

    def field(self, header: Header, digest: bytes, now: datetime) -> bytes:
        """The DKIM-Signature field of a message with this header and body hash."""
        names = header.names_to_sign(self.oversigned, self.signed)
        stamp = int(now.timestamp())
        until = f" x={stamp + int(self.expiry.total_seconds())};" if self.expiry else ""
        lines = (
            f"v=1; a={self.key.name}-sha256; c=relaxed/relaxed;",
            f"d={self.domain.ascii}; s={self.selector};",
            f"t={stamp};{until}",
            *_wrapped(names),
            f"bh={base64.b64encode(digest).decode()};",
            "b=",  # the last, so that nothing stands behind what a verifier takes away
        )
        octets = header.canonical(names) + relaxed_field(b"DKIM-Signature", _NEW_LINE.join(lines).encode())
        signature = base64.b64encode(self.key.sign(octets)).decode()
        first, *others = (signature[start : start + _FOLDED] for start in range(0, len(signature), _FOLDED))
        return compose_field("DKIM-Signature", *lines[:-1], lines[-1] + first, *others, fold="\t").encode()

    def has_signed(self, header: Header, digest: bytes, now: datetime) -> bool:
        """True if the message has a signature of this key for this domain and selector that is right, and not over."""
        found = header.values.get(b"dkim-signature", ())[:MAX_SIGNATURES]
        return any(self._is_own(value, header, digest, now) for value in found)

    def _is_own(self, value: bytes, header: Header, digest: bytes, now: datetime) -> bool:
        tags = parse_tags(value.decode("ascii", "replace"))
        if (tags.get("d", "").lower(), tags.get("s")) != (self.domain.ascii, self.selector):
            return False
        if tags.get("a") != f"{self.key.name}-sha256" or tags.get("c") != "relaxed/relaxed" or "l" in tags:
            return False
        until = tags.get("x", "")
        if until and not (
            until.isascii() and until.isdigit() and len(until) <= MAX_STAMP and int(until) > now.timestamp()
        ):
            return False
        names = [name.strip() for name in tags.get("h", "").split(":")]
        if "from" not in map(str.lower, names) or len(names) > MAX_SIGNED or not all(map(str.isascii, names)):
            return False
        octets = header.canonical(names) + relaxed_field(b"DKIM-Signature", _SIGNATURE_ITSELF.sub(rb"\1", value))
        try:
            signature = base64.b64decode(_without_space(tags.get("b", "")), validate=True)
            stated = base64.b64decode(_without_space(tags.get("bh", "")), validate=True)
        except ValueError:
            return False
        return stated == digest and self.key.has_signed(signature, octets)


def _without_space(text: str) -> str:
    return "".join(text.split())


def _wrapped(names: Sequence[str]) -> Iterator[str]:
    """The h= tag, on lines of bounded length, each but the last ending in a colon."""
    line = "h="
    for name in names[:-1]:
        if len(line) + len(name) >= _FOLDED:
            yield line
            line = ""
        line += f"{name}:"
    yield f"{line}{names[-1]};"


class DKIMSigning:
    """Signs messages with all signers that speak for their authors."""

    def __init__(self, signers: Sequence[Signer], clock: Clock, emit: Emit) -> None:
        self._signers = tuple(signers)
        self._clock = clock
        self._emit = emit

    def extended(self, signers: Iterable[Signer]) -> DKIMSigning:
        """The same with further signers; one for a domain and selector that is there already takes its place."""
        known = {(each.domain, each.selector): each for each in (*self._signers, *signers)}
        return DKIMSigning(tuple(known.values()), self._clock, self._emit)

    async def modify(self, content: Content) -> Content:
        """The message with its signatures before everything else; as it was, if it cannot be signed."""
        # What takes more than some milliseconds leaves the loop.
        is_small = content.size <= INLINE and content.header_size <= INLINE_HEADER
        try:
            if content.is_awaited:
                fields, names = await self._awaited_fields(content)
            else:
                fields, names = self._fields(content) if is_small else await asyncio.to_thread(self._fields, content)
        except NotSignable as refusal:
            domains = ", ".join(dict.fromkeys(each.domain.ascii for each in self._signers))
            self._emit(Unsigned(domains, str(refusal), message_id=message_id_of(content.header)))
            return content
        return prepend(content, fields, names)

    async def _awaited_fields(self, content: Content) -> tuple[bytes, tuple[str, ...]]:
        """As `_fields`, of content that has to be awaited."""
        header, chosen = await asyncio.to_thread(self._chosen, content)
        body = BodyHash(content)
        async for piece in content.pieces():
            await asyncio.to_thread(body.feed, piece)
        return await asyncio.to_thread(self._sign, header, chosen, body.finish())

    def _fields(self, content: Content) -> tuple[bytes, tuple[str, ...]]:
        """The DKIM-Signature fields, and who signs. Blocks. Raises `NotSignable`."""
        header, chosen = self._chosen(content)
        return self._sign(header, chosen, body_hash(content))

    def _chosen(self, content: Content) -> tuple[Header, Sequence[Signer]]:
        """The header, and who is to sign it."""
        header = Header.of(content)
        authors = header.author_domains()
        chosen = [each for each in self._signers if each.speaks_for(authors)]
        if not chosen:
            names = cut(", ".join(sorted(each.ascii for each in authors)), MAX_NAMES)
            raise NotSignable(f"no dkim is configured for the domain of its From field, {names}")
        for each in chosen:  # before the work of reading the body
            header.names_to_sign(each.oversigned, each.signed)
        return header, chosen

    def _sign(self, header: Header, chosen: Sequence[Signer], digest: bytes) -> tuple[bytes, tuple[str, ...]]:
        now = self._clock.now()
        missing = [each for each in chosen if not each.has_signed(header, digest, now)]
        names = tuple(f"{each.domain.ascii}/{each.selector}" for each in missing)
        return b"".join(each.field(header, digest, now) for each in missing), names
