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
from mailrider.header.fields import compose_field, is_too_long, without_bcc
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
    if b"\nmessage-id:" in lowered and b"\ndate:" in lowered and b"bcc" not in lowered:
        return content  # nothing is missing, as in most messages: no need to look closer
    if content.header_fields(_TRAVELLED):
        return content
    fault = content.header_fault()
    content = _without_bcc(content, fault)
    if fault is not None or content.header_fields(_SIGNED):
        return content
    added = ""
    if host is not None and not content.header_fields("Message-ID"):
        added += compose_field("Message-ID", f"<{token()}@{host.ascii}>")
    if not content.header_fields("Date"):
        added += compose_field("Date", format_datetime(now().replace(microsecond=0)))
    return prepend(content, added.encode())


def _without_bcc(content: Content, fault: HeaderFault | None) -> Content:
    """Behind a line that is no field others may read the body: it stays."""
    fields = content.header
    if fault is not None and not is_too_long(fields):
        fields = b"".join(fields.splitlines(keepends=True)[: (fault.line or 1) - 1])
    kept = without_bcc(fields)
    if kept is fields:
        return content
    return Content.inspect(kept + b"".join(content.chunks())[len(fields) :])
