"""The header of a message: its fields, found, judged and written. Pure (RFC 5322 2.2).

Only as much as delivery needs: no decoding, no addresses (`header.words`, `header.addresses`).

- `header_end` works on a message as it came: its lines may end in CRLF or in a bare LF. All else takes a mended
  header: each line ends in CRLF (`smtp.content`).
- The header is everything before the first empty line, which belongs to neither header nor body here; a message
  without an empty line is all header. What stands past `MAX_HEADER` octets is body here, whatever it looks like: since
  others read fields there, such a message is refused where it comes in (`smtp.content.Content.header_is_cut`).
- `is_too_long` bounds the number of lines: endpoints and signers refuse such a header before they look into it, since
  each line costs a step. Everything here takes time in proportion to the octets, whatever they are.
- Whatever we add to a message, or write a message of our own from, goes through `compose_field`: the one place that
  sees to it that no line of a field can hold a line end. Without that, whoever chooses an address, a subject or a reply
  could add fields and a body of his own to a message that we sign.

What an endpoint does to a header:

- Received is added to every message, at the top (RFC 5321 4.4; the words behind `with`: RFC 3848, RFC 6531 3.7.3);
- on submission Date and Message-ID are added if they are missing or empty (RFC 6409 8), and Bcc and Resent-Bcc are
  taken out: the envelope has those recipients, and nobody else shall read them (RFC 5322 3.6.3); addresses without a
  domain get one (`header.complete`);
- everything else stays, octet by octet, in its order: signatures cover it. Return-Path is for whoever delivers
  finally (RFC 5321 4.4), and not touched.
"""

from __future__ import annotations

import enum
import re
from dataclasses import dataclass
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.errors import LocalError
from mailrider.header.complete import complete_addresses
from mailrider.model.value import value

if TYPE_CHECKING:
    from datetime import tzinfo

    from mailrider.model.domain import Domain

MAX_HEADER = 1 << 20  # octets; real headers stay under 100 KiB, and a header is held in memory
MAX_LINES = 10_000  # a list of 5,000 recipients has fewer; a MiB of lines like `a:` has 262,144

# RFC 5322 2.2: printable ASCII but the colon; 4.5 (obsolete): white space may precede the colon.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
# What follows a field's name: all of its lines but the last line end.
_VALUE = re.compile(rb"[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*)")
# RFC 5322 3.6.3, with the lines that continue it; 3.6.6: Resent-Bcc is the same for whoever sends a message on.
_BCC = re.compile(rb"(?im)^(?:resent-)?bcc[ \t]*+:[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*")
# Those that a message is given if it has none, where there is nothing in them.
_EMPTY = re.compile(rb"(?im)^(?:date|message-id)[ \t]*+:(?:[<> \t]|\r\n[ \t])*\r\n(?![ \t])")
# A whole header: looking at it line by line costs four times as much. What one line matches, no other way matches it;
# so a fault at the end costs one look back at each line.
_WELL_FORMED = re.compile(rb"(?:[!-9;-~]++[ \t]*+:.*+\n(?:[ \t].*+\n)*)+")

MAX_LINE: Final = 998  # octets without CRLF: RFC 5322 2.1.1

_LONGEST: Final = MAX_LINE - 80  # room for the longest name, or for what a folded line begins with
_SHORT: Final = _LONGEST // 4  # characters that cannot be more octets than that
_FOLDS: Final = (" ", "\t")
_FIELD_NAME = re.compile(r"[!-9;-~]{1,76}")  # RFC 5322 2.2

_RECEIVED = re.compile(rb"\n(?i:received)[ \t]*:")  # it begins with an octet that is quickly found


# Found and judged -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HeaderFault:
    """Why a header cannot be read. `line` counts from 1; None: there is no header at all."""

    line: int | None
    reason: str

    def __str__(self) -> str:
        return f"no header: {self.reason}" if self.line is None else f"header line {self.line}: {self.reason}"


def header_end(octets: bytes | bytearray, start: int = 0) -> int:
    """Where the empty line begins that ends the header of an unmended message; -1 if there is none.

    `start`: octets that an earlier call has seen already; only as many are looked at as `MAX_HEADER`.
    """
    if octets.startswith((b"\n", b"\r\n")):
        return 0
    start = max(0, start - 2)
    crlf = octets.find(b"\n\r\n", start, MAX_HEADER)
    bare = octets.find(b"\n\n", start, MAX_HEADER if crlf < 0 else crlf + 1)
    found = crlf if bare < 0 else bare
    return -1 if found < 0 else found + 1


def header_cut(octets: bytes | bytearray) -> int:
    """The size of the header of an unmended message in which `header_end` found no empty line."""
    if len(octets) <= MAX_HEADER:
        return len(octets)
    return octets.rfind(b"\n", 0, MAX_HEADER) + 1


def is_too_long(header: bytes) -> bool:
    """True for a header of more than `MAX_LINES` lines."""
    return header.count(b"\n") > MAX_LINES


def header_fields(header: bytes, name: str) -> list[bytes]:
    """The values of all fields of that name, in order, unfolded (RFC 5322 2.2.3) and trimmed."""
    wanted = name.lower().encode("ascii")
    # A search for octets costs a tenth of a regular expression that has to look at each line.
    lowered = b"\n" + header.lower()
    line = b"\n" + wanted
    values: list[bytes] = []
    at = lowered.find(line)
    while at >= 0:
        found = _VALUE.match(header, at + len(wanted))
        if found is not None:
            values.append(found[1].replace(b"\r\n", b"").strip())
        at = lowered.find(line, at + 1)
    return values


def header_fault(header: bytes) -> HeaderFault | None:
    """What is wrong with the header, or None if every line is a field or the continuation of one."""
    if is_too_long(header):
        return HeaderFault(MAX_LINES + 1, f"a header has no more than {MAX_LINES} lines")
    if _WELL_FORMED.fullmatch(header):
        return None
    if not header:
        return HeaderFault(None, "the message does not begin with a line like `Subject: hello`")
    lines = enumerate(header.split(b"\r\n")[:-1], 1)
    return next((_fault_of(number, line) for number, line in lines if not _is_part(number, line)), None)


def _is_part(number: int, line: bytes) -> bool:
    return _FIELD.match(line) is not None or (number > 1 and line.startswith((b" ", b"\t")))


def _fault_of(number: int, line: bytes) -> HeaderFault:
    if number > 1:
        return HeaderFault(number, f"{_quote(line)} is not a field, and no empty line ends the header before it")
    if line.startswith(b"From "):
        return HeaderFault(1, "a mailbox file's `From ` line is not a header field")
    return HeaderFault(None, f"the message begins with {_quote(line)}, not with a line like `Subject: hello`")


def _quote(line: bytes) -> str:
    shown = line[:60].decode("utf-8", "replace")
    return repr(shown + "..." if len(line) > 60 else shown)


def without_bcc(header: bytes) -> bytes:
    """The header without Bcc and Resent-Bcc, whose addresses nobody is to see; the same object if there is none."""
    return _BCC.sub(b"", header) if b"bcc" in header.lower() else header


# Written --------------------------------------------------------------------------------------------------------------


class UnsafeField(LocalError):
    """A field that must not be written: a mistake in our own code, found before it does harm."""


def compose_field(name: str, *lines: str, fold: str = " ") -> str:
    """A field with its line end: `lines` are its value; each but the first has a line of its own, begun with `fold`.

    Raises `UnsafeField` for a name that is none, for a line that holds CR, LF or NUL, for one that is too long, and for
    one of white space alone, which some readers take for the end of the header.
    """
    if not _FIELD_NAME.fullmatch(name):
        raise UnsafeField(f"not the name of a header field: {name[:100]!r}")
    text = "".join(lines)
    # Nearly every field passes here: nothing in it can end a line, and no line is too long or blank.
    is_plain = text.isascii() and text.isprintable() and len(text) <= _LONGEST and fold in _FOLDS
    if not is_plain or not all(lines) or any(map(str.isspace, lines)):
        _check_lines(name, lines, fold)
    return f"{name}:{' ' if lines and lines[0] else ''}" + f"\r\n{fold}".join(lines) + "\r\n"


def _check_lines(name: str, lines: tuple[str, ...], fold: str) -> None:
    text = "".join(lines)
    # The line ends of ASCII, and NUL: others (U+0085, U+2028) end no line in a message.
    if "\r" in text or "\n" in text or "\0" in text or not all(lines[1:]) or fold.strip(" \t") or not fold:
        raise UnsafeField(f"not lines of the header field {name}: {text[:100]!r}")
    for line in lines:
        if line.isspace() or (len(line) > _SHORT and len(line.encode("utf-8", "replace")) > _LONGEST):
            raise UnsafeField(f"not a line of the header field {name}: {line[:100]!r}")


# What an endpoint writes and takes out --------------------------------------------------------------------------------


class ReceivedDetail(enum.StrEnum):
    """What Received tells of the client."""

    FULL = "full"
    SHORT = "short"
    NONE = "none-of-client"


@value
class ReceivedInfo:
    """How a message came to us.

    `name` is what the client called itself, `client` its address literal or `local`; `recipient` is given only if
    there is no other (RFC 5321 7.6: others must not be disclosed). `tls` describes the channel, empty in clear.
    `detail` is how much of that is written down.
    """

    name: str
    client: str
    hostname: Domain
    protocol: str
    id: str
    at: datetime
    recipient: str = ""
    tls: str = ""
    detail: ReceivedDetail = ReceivedDetail.FULL


def received_field(info: ReceivedInfo) -> bytes:
    """The Received field, folded, with its line end."""
    date = _date(int(info.at.timestamp()), info.at.tzinfo)
    by = f"by {info.hostname.ascii} with {info.protocol} id {info.id}"
    if info.recipient:
        lines = (*_origin(info), by, f"for <{info.recipient}>;", date)
    else:
        lines = (*_origin(info), by + ";", date)
    return compose_field("Received", *lines, fold="\t").encode()


def _origin(info: ReceivedInfo) -> tuple[str, ...]:
    """The lines before `by`."""
    detail = info.detail
    if detail is ReceivedDetail.FULL:
        whole = f"from {info.name} ({info.client})"
        return (whole, f"({info.tls})") if info.tls else (whole,)
    if detail is ReceivedDetail.SHORT:
        return (f"from {info.client if info.client.startswith('[') else 'localhost'}",)
    # RFC 5321 4.4 asks for FROM; whoever hides his users does not want it (RFC 5322 3.6.7 does without).
    return ()


def submitted_header(header: bytes, info: ReceivedInfo, origin: Domain | None = None) -> bytes:
    """The header of a message that its author's program handed in, as it goes on; Received still to be added.

    `origin`: the domain of addresses that have none.
    """
    if origin is not None:
        header = complete_addresses(header, origin)
    added = b""
    if lacks(header, "Message-ID"):
        added += compose_field("Message-ID", f"<{info.id}@{info.hostname.ascii}>").encode()
    if lacks(header, "Date"):
        added += compose_field("Date", _date(int(info.at.timestamp()), info.at.tzinfo)).encode()
    if added:
        header = without_empty(header)
    return added + without_bcc(header)


def lacks(header: bytes, name: str) -> bool:
    """True if the header has no field of that name, or one that says nothing: `Message-ID: <>`, which others refuse."""
    return not any(value.strip(b"<> \t") for value in header_fields(header, name))


def without_empty(header: bytes) -> bytes:
    """The header without fields of the names Date and Message-ID that say nothing."""
    return _EMPTY.sub(b"", header)


def message_id_of(header: bytes) -> str:
    """What the header calls the message, for our log; empty if it says nothing."""
    found = header_fields(header, "Message-ID")
    return found[0][:MAX_LINE].decode("utf-8", "replace") if found else ""


@lru_cache(maxsize=16)  # many messages have one second
def _date(second: int, zone: tzinfo | None) -> str:
    return format_datetime(datetime.fromtimestamp(second, zone))


def count_received(header: bytes) -> int:
    """How many servers the message came through; too many mean a loop (RFC 5321 6.3)."""
    return len(_RECEIVED.findall(b"\n" + header))
