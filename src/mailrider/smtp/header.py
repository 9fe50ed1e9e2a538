"""The header of a message: where it ends, its fields, and whether it is one at all (RFC 5322 2.2).

Only as much as delivery needs: no addresses, no dates, no decoding. All functions take bytes and are pure.

- `header_end` works on a message as it came: its lines may end in CRLF or in a bare LF.
- `header_fields`, `header_fault` and `without_bcc` take a mended header: each line ends in CRLF (`smtp.content`).

The header is everything before the first empty line, which belongs to neither header nor body here; a message without
an empty line is all header. What stands past `MAX_HEADER` octets is body, whatever it looks like.

`is_too_long` bounds the number of lines: endpoints and signers refuse such a header before they look into it, since
each line costs a step. Everything here takes time in proportion to the octets, whatever they are.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

MAX_HEADER = 1 << 20  # octets; real headers stay under 100 KiB, and a header is held in memory
MAX_LINES = 10_000  # a list of 5,000 recipients has fewer; a MiB of lines like `a:` has 262,144

# RFC 5322 2.2: printable ASCII but the colon; 4.5 (obsolete): white space may precede the colon.
_FIELD = re.compile(rb"[!-9;-~]+[ \t]*:")
# What follows a field's name: all of its lines but the last line end.
_VALUE = re.compile(rb"[ \t]*+:([^\r\n]*+(?:\r\n[ \t][^\r\n]*+)*)")
# RFC 5322 3.6.3, with the lines that continue it; 3.6.6: Resent-Bcc is the same for whoever sends a message on.
_BCC = re.compile(rb"(?im)^(?:resent-)?bcc[ \t]*+:[^\r\n]*+\r\n(?:[ \t][^\r\n]*+\r\n)*")
# A whole header: looking at it line by line costs four times as much. What one line matches, no other way matches it;
# so a fault at the end costs one look back at each line.
_WELL_FORMED = re.compile(rb"(?:[!-9;-~]++[ \t]*+:.*+\n(?:[ \t].*+\n)*)+")


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
