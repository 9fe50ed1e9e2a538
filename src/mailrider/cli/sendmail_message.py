"""What sendmail makes of its standard input: a message with a header, and the recipients that it names. Pure.

Programs hand in less than a message: lines that end in LF, no header at all, no From, a mailbox file's `From ` line on
top. Each of these is mended here, as sendmail does (a header by `smtp.mend_header`, as on submission, but before
recipients are looked for in it); nothing else is touched.
"""

from __future__ import annotations

import re
from typing import Final

from mailrider.errors import InvalidValue
from mailrider.header.addresses import parse_addresses
from mailrider.header.fields import header_fault, header_fields
from mailrider.header.mailboxes import compose_folded, mailbox
from mailrider.smtp.content import Content
from mailrider.smtp.mend_header import mend_header

_DOT_LINE = re.compile(rb"^\.\r?(?:\n|\Z)", re.MULTILINE)
MAX_NAME: Final = 200  # characters of a person's name


def read_message(octets: bytes, *, dot_ends: bool) -> Content:
    """The message in what was read. `dot_ends`: a line of a single dot ends it, as if it were typed."""
    if dot_ends and (dot := _DOT_LINE.search(octets)):
        octets = octets[: dot.start()]
    content = Content.inspect(octets)
    if not content.header or header_fault(content.header) is None:
        return content
    mended = mend_header(content.header)
    rest = b"".join(content.chunks())[content.header_size :]
    return Content.inspect(mended.header + mended.between + rest)


def recipients_in(header: bytes) -> list[str]:
    """The addresses of To, Cc and Bcc; of the Resent ones alone, if there are any (RFC 5322 3.6.6).

    Raises `InvalidValue` for a field of which it is not certain whom it names.
    """
    for prefix in ("Resent-", ""):
        values = [value for name in ("To", "Cc", "Bcc") for value in header_fields(header, prefix + name)]
        if values:
            found = [each.text for value in values for each in parse_addresses(value.decode("utf-8", "replace"))]
            if any("\ufffd" in each for each in found):
                raise InvalidValue("an address is neither ASCII nor UTF-8")
            return list(dict.fromkeys(found))
    return []


def from_field(header: bytes, address: str, full_name: str) -> bytes:
    """The From field to add; nothing if there is one."""
    if header_fields(header, "From"):
        return b""
    name = " ".join(full_name.split())[:MAX_NAME]
    return compose_folded("From", mailbox(name, address, used=len("From: "))).encode()
