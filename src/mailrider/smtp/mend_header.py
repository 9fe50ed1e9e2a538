"""Makes a message of what is nearly one. Pure; for submission, where the author is a client of ours.

A header is mended if it has a fault (`header.fields.header_fault`):

- a byte order mark, or a mailbox file's `From ` line, at the beginning goes away;
- a line that is no field, with fields behind it that belong to this header, continues the field before it: it was
  folded without the space that RFC 5322 2.2.3 asks for;
- any other line that is no field begins the body: the empty line is put before it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

_BOM: Final = b"\xef\xbb\xbf"
_MAILBOX_LINE = re.compile(rb"(?:>?From [^\r\n]*\r\n)+")
_FIELD = re.compile(rb"([!-9;-~]+)[ \t]*:")
# Names that a line of text hardly begins with by chance; a body that quotes a message has them again.
_USUAL: Final = frozenset(
    (
        *(b"from", b"sender", b"reply-to", b"to", b"cc", b"bcc", b"subject", b"date", b"message-id", b"in-reply-to"),
        *(b"references", b"return-path", b"mime-version", b"content-type", b"content-transfer-encoding"),
        *(b"content-disposition", b"x-mailer", b"x-priority", b"user-agent"),
    )
)


@dataclass(frozen=True, slots=True)
class Mended:
    """A header that can be read, what comes between it and the rest of the message, and in words what was changed.

    `between` is empty, or an empty line and what stood in the header and belongs to the body.
    """

    header: bytes
    between: bytes
    changes: tuple[str, ...]


def mend_header(header: bytes) -> Mended:
    """A header as `header_fields` takes it, but for faults, without them."""
    changes: list[str] = []
    if header.startswith(_BOM) and not header.startswith(_BOM + b"\0"):  # a NUL must not come to begin a line
        header = header.removeprefix(_BOM)
        changes.append("a byte order mark was removed")
    if mailbox := _MAILBOX_LINE.match(header):
        header = header[mailbox.end() :]
        changes.append("a mailbox file's From line was removed")
    lines = header.split(b"\r\n")[:-1]
    faults = [at for at, line in enumerate(lines) if not _is_part(line, at)]
    last = _last_of_header(lines, faults[0]) if faults and faults[0] else 0
    folded = [at for at in faults if at < last]
    for at in folded:
        lines[at] = b" " + lines[at]
    if folded:
        changes.append(f"{len(folded)} lines without a colon now continue the field before them")
    end = next((at for at in faults if at >= last), len(lines))
    if end < len(lines):
        changes.append("the empty line behind the header was missing")
    body = _joined(lines[end:])
    return Mended(_joined(lines[:end]), b"\r\n" + body if body else b"", tuple(changes))


def _is_part(line: bytes, at: int) -> bool:
    return _FIELD.match(line) is not None or (at > 0 and line.startswith((b" ", b"\t")))


def _last_of_header(lines: list[bytes], fault: int) -> int:
    """The last line of those behind the first fault that surely is a field of this header; 0 if none is."""
    known = {_name(line) for line in lines[:fault]}
    return max((at for at in range(fault + 1, len(lines)) if _name(lines[at]) in _USUAL - known), default=0)


def _name(line: bytes) -> bytes:
    field = _FIELD.match(line)
    return field[1].lower() if field else b""


def _joined(lines: list[bytes]) -> bytes:
    return b"".join(line + b"\r\n" for line in lines)
