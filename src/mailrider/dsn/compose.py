"""Delivery status notifications: what the sender of a message is told (RFC 3464, 6522, 6533; RFC 3461 6).

`compose` writes a whole message: first for a person (what happened, to whom, what to do), then for machines, then what
the message was. Pure: time, ids and names are arguments.

- Internationalized messages get the forms of RFC 6533, with UTF-8; all others are as old programs expect them.
- The message is returned as far as RET asks and `dsn.parts.MAX_RETURNED` allows, its header otherwise.
- A message that was sent with REQUIRETLS is never returned beyond its header (RFC 8689 5); `dsn.parts.redact` takes
  even that away, but for Message-ID and Date, so that a notification can go where the levels are not met.
- Text of remote servers comes bounded and without control characters (`model.reply`); whatever else is quoted is
  bounded and cleaned. What strangers chose (addresses, a subject, a reply) is never parsed as part of a header.
- Everything is 7-bit, so that every server takes it; only a notification that needs SMTPUTF8 anyway, because its
  recipient's address does, is written in UTF-8.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from mailrider.dsn.human_part import letter_lines
from mailrider.dsn.machine_part import status_report
from mailrider.dsn.notification import NotifiedAction, date_text
from mailrider.dsn.parts import boundary_between, part, returned_part
from mailrider.header.fields import compose_field
from mailrider.header.words import encode_words

if TYPE_CHECKING:
    from mailrider.dsn.notification import Notification, NotificationAuthor

# RFC 5322 3.6.4, as far as it can be copied into a header without a second look: printable, no space, not too long.
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}>")

_SUBJECT: Final = {
    NotifiedAction.FAILED: "Not delivered",
    NotifiedAction.DELAYED: "Delayed, still trying",
    NotifiedAction.RELAYED: "Passed on",
    NotifiedAction.EXPANDED: "Passed on to several",
    NotifiedAction.DELIVERED: "Delivered",
}


def compose(notification: Notification, origin: NotificationAuthor) -> bytes:
    """The notification as a message, lines ending in CRLF. Its envelope is the caller's: from `<>` to the sender."""
    utf8 = not notification.envelope.sender.is_ascii
    is_global = utf8 and _has_global_address(notification)
    text = "\r\n".join(letter_lines(notification, origin)) + "\r\n"
    machine = status_report(notification, origin, is_global=is_global)
    parts = [
        part("text/plain; charset=utf-8", "Notification", text.encode(), utf8=utf8),
        part(
            f"message/{'global-' if is_global else ''}delivery-status", "Delivery report", machine.encode(), utf8=utf8
        ),
    ]
    returned = returned_part(notification, utf8=utf8)
    if returned is not None:
        parts.append(returned)
    boundary = boundary_between(notification.id, parts)
    delimiter = b"--" + boundary.encode()
    body = b"".join(delimiter + b"\r\n" + each for each in parts) + delimiter + b"--\r\n"
    # RFC 2045 6.4: a multipart says 8bit if one of its parts does.
    encoding = "7bit" if body.isascii() else "8bit"
    header = _header(notification, origin, boundary, encoding)
    return f"{header}\r\n".encode() + b"This is a MIME message: a delivery status notification.\r\n\r\n" + body


def _has_global_address(notification: Notification) -> bool:
    """True if an address is shown as it is only in the forms of RFC 6533."""
    recipients = [each.recipient for each in notification.recipients]
    originals = [each.original for each in recipients if each.original is not None]
    return not (
        all(each.mailbox.is_ascii for each in recipients) and all(original.address.isascii() for original in originals)
    )


def _header(notification: Notification, origin: NotificationAuthor, boundary: str, encoding: str) -> str:
    whom = str(notification.recipients[0].recipient)
    more = len(notification.recipients) - 1
    what = "a notification" if notification.is_about_notification else "your message"
    subject = f"{_SUBJECT[notification.action]}: {what} to {whom}" + (f" and {more} more" if more else "")
    message_id = _message_id(notification)
    fields = [
        compose_field("From", f"Mail delivery system <MAILER-DAEMON@{origin.domain.ascii}>"),
        compose_field("To", f"<{notification.envelope.sender}>"),
        compose_field("Date", date_text(notification.at)),
        compose_field("Message-ID", f"<{notification.id}@{origin.hostname.ascii}>"),
        compose_field("Subject", *_subject_lines(subject, utf8=not notification.envelope.sender.is_ascii)),
        *(compose_field(name, message_id) for name in ("In-Reply-To", "References") if message_id),
        compose_field("Auto-Submitted", "auto-replied"),  # RFC 3834 5: so that no program answers
        compose_field("MIME-Version", "1.0"),
        compose_field(
            "Content-Type", "multipart/report; report-type=delivery-status;", f'boundary="{boundary}"', fold="\t"
        ),
        compose_field("Content-Transfer-Encoding", encoding),
    ]
    return "".join(fields)


def _subject_lines(text: str, *, utf8: bool) -> tuple[str, ...]:
    """In encoded words where it needs them; where the message is UTF-8 anyway (RFC 6532), only what looks like some."""
    return (text,) if utf8 and "=?" not in text else encode_words(text, used=len("Subject: "))


def _message_id(notification: Notification) -> str:
    """The Message-ID of the message, if it is one."""
    values = [] if notification.content is None else notification.content.header_fields("Message-ID")
    text = values[0].decode("ascii", "replace") if values else ""
    return text if _MESSAGE_ID.fullmatch(text) and "=?" not in text else ""
