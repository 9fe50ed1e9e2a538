"""What is added to a message that a program hands to the library, and what is taken out of it. Pure.

RFC 5322 3.6 demands Date, and every server wants Message-ID; who submits mail for others adds them (RFC 6409 8.2, 8.3).
A message that was signed, or has travelled, is somebody else's: nothing is added to it.

Bcc is taken out (RFC 5322 3.6.3), as smtplib's `send_message` does, and whatever the message comes as: its addresses
would be seen by all recipients. In a message that has travelled it is what its author left in.
"""

from __future__ import annotations

from email.utils import format_datetime
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.header.fields import compose_field, is_too_long, lacks, without_bcc, without_empty
from mailrider.smtp.content import Content
from mailrider.smtp.prepend import prepend

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from mailrider.header.fields import HeaderFault
    from mailrider.model.domain import Domain

_TRAVELLED = "Received"
_SIGNED = "DKIM-Signature"
_EMPTY_LINE = b"\r\n"  # what the email package makes of a message in which there is nothing


def originate(content: Content, host: Domain | None, now: Callable[[], datetime], token: Callable[[], str]) -> Content:
    """The message with a Date (`now`) and a Message-ID (a `token` at `host`) where it has none, and without Bcc.

    Raises `InvalidValue` for a message that is empty, or whose header is too large to be looked at.
    """
    if not content.header_size and content.size <= len(_EMPTY_LINE):
        raise InvalidValue("the message is empty: it needs a header at least")
    if content.header_is_cut:
        raise InvalidValue(f"this is no message: {content.header_fault()}")
    lowered = b"\n" + content.header.lower()
    if _says(lowered, b"\nmessage-id:") and _says(lowered, b"\ndate:") and b"bcc" not in lowered:
        return content  # nothing is missing, as in most messages: no need to look closer
    if content.header_fields(_TRAVELLED):
        return content
    fault = content.header_fault()
    content = _without_bcc(content, fault)
    if fault is not None or content.header_fields(_SIGNED):
        return content
    added = ""
    if host is not None and lacks(content.header, "Message-ID"):
        added += compose_field("Message-ID", f"<{token()}@{host.ascii}>")
    if lacks(content.header, "Date"):
        added += compose_field("Date", format_datetime(now().replace(microsecond=0)))
    if added and (kept := without_empty(content.header)) != content.header:
        content = _with_header(content, kept)
    return prepend(content, added.encode())


def _says(lowered: bytes, line: bytes) -> bool:
    """True if there is a field that begins so, and something stands in its first line."""
    at = lowered.find(line)
    return at >= 0 and bool(lowered[at + len(line) : lowered.find(b"\n", at + 1)].strip(b"<> \t\r"))


def _without_bcc(content: Content, fault: HeaderFault | None) -> Content:
    """Behind a line that is no field others may read the body: it stays."""
    fields = content.header
    if fault is not None and not is_too_long(fields):
        fields = b"".join(fields.splitlines(keepends=True)[: (fault.line or 1) - 1])
    kept = without_bcc(fields)
    if kept is fields:
        return content
    return Content.inspect(kept + b"".join(content.chunks())[len(fields) :])


def _with_header(content: Content, header: bytes) -> Content:
    return Content.inspect(header + b"".join(content.chunks())[content.header_size :])
