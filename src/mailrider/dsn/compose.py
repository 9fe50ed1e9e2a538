"""Delivery status notifications: what the sender of a message is told (RFC 3464, 6522, 6533; RFC 3461 6).

`compose` writes a whole message: first for a person (what happened, to whom, what to do), then for machines, then what
the message was. Pure: time, ids and names are arguments.

- Internationalized messages get the forms of RFC 6533, with UTF-8; all others are as old programs expect them.
- The message is returned as far as RET asks and `MAX_RETURNED` allows, its header otherwise.
- A message that was sent with REQUIRETLS is never returned beyond its header (RFC 8689 5); `redact` takes even that
  away, but for Message-ID and Date, so that a notification can go where the levels are not met.
- Text of remote servers comes bounded and without control characters (`model.reply`); whatever else is quoted is
  bounded and cleaned here. What strangers chose (addresses, a subject, a reply) is never parsed as part of a header.
- Everything is 7-bit, so that every server takes it; only a notification that needs SMTPUTF8 anyway, because its
  recipient's address does, is written in UTF-8.
"""

from __future__ import annotations

import base64
import binascii
import enum
import hashlib
import re
from dataclasses import dataclass
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from mailrider.dsn.advice import advice_for
from mailrider.header.fields import MAX_LINE, compose_field
from mailrider.header.words import decode_words, encode_words
from mailrider.model.envelope import OriginalRecipient, Ret
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import Reply, clean_text
from mailrider.smtp.commands import encode_original_recipient

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from datetime import datetime

    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.outcome import Outcome
    from mailrider.smtp.content import Content

MAX_RETURNED: Final = (
    128 * 1024
)  # octets: a returned message shall not become a burden of its own, nor be spam's vehicle
MAX_SUBJECT: Final = 120  # characters of the subject that are quoted
MAX_ENCODED: Final = (
    4096  # octets of the subject that are decoded for that: encoded words take up to twelve a character
)
MAX_VALUE: Final = 900  # octets of a machine-readable line: RFC 5322 2.1.1 has 998
MAX_EXPLAINED: Final = 100  # recipients of whom the person is told why; a program is told of all
WIDTH: Final = 76

# RFC 5322 3.6.4, as far as it can be copied into a header without a second look: printable, no space, not too long.
_MESSAGE_ID = re.compile(r"<[!-;=?-~]{1,500}>")


class NotifiedAction(enum.Enum):
    """What a notification tells (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"
    EXPANDED = "expanded"
    DELIVERED = "delivered"


_date = lru_cache(maxsize=16)(format_datetime)  # one notification has few


@dataclass(frozen=True, slots=True)
class Told:
    """A recipient and what became of it. `until`: when it will be given up, for a delay. `was_tried`: just now."""

    recipient: Recipient
    action: NotifiedAction
    outcome: Outcome
    until: datetime | None = None
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class NotificationAuthor:
    """Who writes: our host name, and the domain of our address."""

    hostname: Domain
    domain: Domain


@dataclass(frozen=True, slots=True)
class Notification:
    """What there is to tell about one message; all of `told` have the same action.

    `content` None: it cannot be read any more; the notification goes out all the same. `id` makes the Message-ID.
    `is_about_notification`: the message was one of ours, and who reads this is the postmaster.
    """

    envelope: Envelope
    told: tuple[Told, ...]
    arrived: datetime
    at: datetime
    id: str
    content: Content | None = None
    is_about_notification: bool = False

    @property
    def action(self) -> NotifiedAction:
        """What it tells."""
        return self.told[0].action


def compose(notification: Notification, origin: NotificationAuthor) -> bytes:
    """The notification as a message, lines ending in CRLF. Its envelope is the caller's: from `<>` to the sender."""
    utf8 = not notification.envelope.sender.is_ascii
    is_global = utf8 and _has_global_address(notification)
    text = "\r\n".join(_letter(notification, origin)) + "\r\n"
    machine = _status(notification, origin, is_global=is_global)
    parts = [
        _part("text/plain; charset=utf-8", "Notification", text.encode(), utf8=utf8),
        _part(
            f"message/{'global-' if is_global else ''}delivery-status", "Delivery report", machine.encode(), utf8=utf8
        ),
    ]
    returned = _returned(notification, utf8=utf8)
    if returned is not None:
        parts.append(returned)
    boundary = _boundary(notification.id, parts)
    delimiter = b"--" + boundary.encode()
    body = b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n"
    # RFC 2045 6.4: a multipart says 8bit if one of its parts does.
    encoding = "7bit" if body.isascii() else "8bit"
    header = _header(notification, origin, boundary, encoding)
    return f"{header}\r\n".encode() + b"This is a MIME message: a delivery status notification.\r\n\r\n" + body


def _has_global_address(notification: Notification) -> bool:
    """True if an address is shown as it is only in the forms of RFC 6533."""
    recipients = [each.recipient for each in notification.told]
    originals = [each.original for each in recipients if each.original is not None]
    return not (
        all(each.mailbox.is_ascii for each in recipients) and all(original.address.isascii() for original in originals)
    )


# --- For the mail program ------------------------------------------------------------------------

_SUBJECT: Final = {
    NotifiedAction.FAILED: "Not delivered",
    NotifiedAction.DELAYED: "Delayed, still trying",
    NotifiedAction.RELAYED: "Passed on",
    NotifiedAction.EXPANDED: "Passed on to several",
    NotifiedAction.DELIVERED: "Delivered",
}


def _header(notification: Notification, origin: NotificationAuthor, boundary: str, encoding: str) -> str:
    whom = str(notification.told[0].recipient)
    more = len(notification.told) - 1
    what = "a notification" if notification.is_about_notification else "your message"
    subject = f"{_SUBJECT[notification.action]}: {what} to {whom}" + (f" and {more} more" if more else "")
    message_id = _message_id(notification)
    fields = [
        compose_field("From", f"Mail delivery system <MAILER-DAEMON@{origin.domain.ascii}>"),
        compose_field("To", f"<{notification.envelope.sender}>"),
        compose_field("Date", _date(notification.at)),
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
    """That of the message, if it is one."""
    values = [] if notification.content is None else notification.content.header_fields("Message-ID")
    text = values[0].decode("ascii", "replace") if values else ""
    return text if _MESSAGE_ID.fullmatch(text) and "=?" not in text else ""


# --- For a person --------------------------------------------------------------------------------

_OPENING: Final = {
    NotifiedAction.FAILED: "Your message could not be delivered to {whom}. This is final: it will not be tried again.",
    NotifiedAction.DELAYED: "Your message has not reached {whom} yet. "
    "You need not do anything: it will be tried again.",
    NotifiedAction.RELAYED: "Your message to {whom} was passed on to a server that does not report further. "
    "You will hear more only if it could not deliver it.",
    NotifiedAction.EXPANDED: "Your message to {whom} was passed on to the addresses that this name stands for. "
    "You will hear more only if it could not be delivered to one of them.",
    NotifiedAction.DELIVERED: "Your message to {whom} has reached the list, and goes on to its members.",
}
_NOTIFICATION: Final = (
    "A notification of this server could not be delivered to {whom}, the sender of the message that it is about. You "
    "get it as the postmaster of this server, since nobody else will. It will not be tried again."
)


def _letter(notification: Notification, origin: NotificationAuthor) -> Iterator[str]:
    count = len(notification.told)
    whom = str(notification.told[0].recipient) if count == 1 else f"these {count} recipients"
    opening = _NOTIFICATION if notification.is_about_notification else _OPENING[notification.action]
    yield from _wrapped(opening.format(whom=whom))
    yield ""
    yield from _about(notification)
    for each in notification.told[:MAX_EXPLAINED]:
        yield ""
        yield f"  {each.recipient}"
        yield from _explain(each)
    if count > MAX_EXPLAINED:
        yield ""
        yield f"  and {count - MAX_EXPLAINED} more, who stand in the delivery report below"
    yield ""
    yield f"-- Mail delivery system of {origin.hostname}"


def _about(notification: Notification) -> Iterator[str]:
    subject = "" if notification.envelope.requiretls else _subject(notification)
    if subject:
        yield f"Subject:  {subject}"
    yield f"Sent:     {_date(notification.arrived)}"


def _subject(notification: Notification) -> str:
    values = [] if notification.content is None else notification.content.header_fields("Subject")
    if not values:
        return ""
    text = decode_words(values[0][:MAX_ENCODED].decode("utf-8", "replace"))
    return clean_text(text[:MAX_SUBJECT])


def _explain(told: Told) -> Iterator[str]:
    outcome = told.outcome
    label = {NotifiedAction.FAILED: "Reason", NotifiedAction.DELAYED: "Reason so far"}.get(told.action, "Answer")
    yield from _paragraph(f"{label}: {outcome.reply.text} ({outcome.reply.code} {outcome.reply.status})")
    if outcome.in_doubt:
        yield from _paragraph("It may have arrived all the same: the connection was lost before the server's answer.")
    if told.action is NotifiedAction.FAILED:
        yield from _paragraph(f"What you can do: {advice_for(outcome.reply.status)}")
    elif told.action is NotifiedAction.DELAYED and told.until is not None:
        yield from _paragraph(f"It will be tried until {_date(told.until)}.")


def _paragraph(text: str) -> list[str]:
    return _wrapped(text, "    ", "      ")


def _wrapped(text: str, first: str = "", others: str = "") -> list[str]:
    """The text on lines of bounded width, as far as it has spaces; `textwrap` takes ten times as long."""
    text = first + " ".join(text.split())
    lines: list[str] = []
    start = len(first)  # of the words: an indentation is no place to break
    while len(text) > WIDTH:
        cut = text.rfind(" ", start, WIDTH + 1)
        if cut < 0:
            cut = text.find(" ", WIDTH)
        if cut < 0:
            break
        lines.append(text[:cut])
        text, start = others + text[cut + 1 :], len(others)
    return [*lines, text]


# --- For machines --------------------------------------------------------------------------------


def _status(notification: Notification, origin: NotificationAuthor, *, is_global: bool) -> str:
    """RFC 3464 2.2 and 2.3: groups of fields with an empty line between them."""
    envelope = notification.envelope
    about = [
        *([] if envelope.envid is None else [_line("Original-Envelope-Id", envelope.envid)]),
        _line("Reporting-MTA", f"dns; {origin.hostname.ascii}"),
        _line("Arrival-Date", _date(notification.arrived)),
    ]
    groups = [about, *(list(_recipient(each, notification.at, is_global=is_global)) for each in notification.told)]
    return "\r\n".join("".join(group) for group in groups)


def _recipient(told: Told, at: datetime, *, is_global: bool) -> Iterator[str]:
    recipient, outcome = told.recipient, told.outcome
    if recipient.original is not None:
        yield _line("Original-Recipient", _typed_address(recipient.original, is_global=is_global))
    # RFC 6533 4: an address with UTF-8 is of the type utf-8.
    final = OriginalRecipient("rfc822" if recipient.mailbox.is_ascii else "utf-8", str(recipient))
    yield _line("Final-Recipient", _typed_address(final, is_global=is_global))
    yield _line("Action", told.action.value)
    yield _line("Status", _status_code(outcome))
    if outcome.mx is not None:
        yield _line("Remote-MTA", f"dns; {outcome.mx}")
    diagnosis = _wrapped(_literally(_ascii(_diagnosis(outcome), is_global=is_global))[:MAX_VALUE])
    yield compose_field("Diagnostic-Code", *diagnosis, fold="    ")
    if told.was_tried:
        yield _line("Last-Attempt-Date", _date(at))
    if told.action is NotifiedAction.DELAYED and told.until is not None:
        yield _line("Will-Retry-Until", _date(told.until))


def _typed_address(address: OriginalRecipient, *, is_global: bool) -> str:
    """As it is in the global form; in the other one of RFC 6533 3's 7-bit form, where that is needed."""
    text = address.address
    if not (is_global or text.isascii()):
        text = encode_original_recipient(address).partition(";")[2]
    return f"{address.address_type}; {text}"


def _diagnosis(outcome: Outcome) -> str:
    """RFC 3464 2.3.6: a server's reply as it gave it; or, under a type of ours, the reason that is ours."""
    reply, quoting = outcome.reply, f"{outcome.mx} said: "
    if outcome.mx is not None and reply.text.startswith(quoting):
        # `5.0.0` is what stands for an enhanced code where the server gave none, or a wrong one.
        enhanced = reply.enhanced if reply.enhanced and (reply.enhanced.subject or reply.enhanced.detail) else None
        return f"smtp; {Reply(reply.code, enhanced, (reply.text.removeprefix(quoting),))}"
    return f"x-mailrider; {reply}"


def _status_code(outcome: Outcome) -> str:
    """RFC 3464 2.3.4: its class follows from the action, whatever a server wrote."""
    status = outcome.reply.status
    match outcome:
        case Delivered():
            klass = 2
        case Deferred():
            klass = 4
        case Failed():
            klass = 5
    return f"{klass}.{status.subject}.{status.detail}"


def _ascii(text: str, *, is_global: bool) -> str:
    return text if is_global else text.encode("ascii", "replace").decode()


def _literally(text: str) -> str:
    """RFC 3464 2.1.1 lets readers decode encoded words here; a server's text has none, whatever it looks like."""
    return text.replace("=?", "= ?")


def _line(name: str, value: str) -> str:
    """A field on one line, bounded: an address must not be folded within its quotes."""
    text = value[:MAX_VALUE]
    while len(text.encode()) > MAX_VALUE:
        text = text[: len(text) * 3 // 4]
    return compose_field(name, text)


# --- What the message was ------------------------------------------------------------------------


def _returned(notification: Notification, *, utf8: bool) -> bytes | None:
    content = notification.content
    if content is None:
        return None
    # RFC 3461 4.3: RET is for failures; other notifications return the header only. RFC 8689 5: so does REQUIRETLS.
    is_full = (
        notification.envelope.ret is Ret.FULL
        and notification.action is NotifiedAction.FAILED
        and not notification.envelope.requiretls
        and content.size <= MAX_RETURNED
    )
    if not is_full:
        return _header_part(content.header, utf8=utf8)
    message = b"".join(content.chunks())
    # RFC 2046 5.2.1: message/rfc822 can't be encoded, and message/global can (RFC 6532 3.7).
    is_plain = not content.header_is_utf8 and _encoding(message, utf8=utf8) in ("7bit", "8bit")
    form = "message/rfc822" if is_plain else "message/global"
    return _part(form, "Undelivered message", message, utf8=utf8)


def _header_part(header: bytes, *, utf8: bool) -> bytes:
    if len(header) > MAX_RETURNED:
        header = header[: header.rfind(b"\n", 0, MAX_RETURNED) + 1]
    if header.isascii():
        return _part("text/rfc822-headers", "Header of the message", header, utf8=utf8)
    text = header.decode("utf-8", "replace").encode()
    if utf8:
        return _part("message/global-headers", "Header of the message", text, utf8=True)
    # RFC 6522 4: what is not 7-bit in it is encoded.
    return _part("text/rfc822-headers; charset=utf-8", "Header of the message", text, utf8=False)


def _part(content_type: str, description: str, body: bytes, *, utf8: bool) -> bytes:
    encoding = _encoding(body, utf8=utf8)
    if encoding == "encoded":
        is_text = content_type.startswith("text/")
        encoding = "quoted-printable" if is_text else "base64"
        body = _quoted_printable(body) if is_text else _base64(body)
    head = "".join(
        (
            compose_field("Content-Type", content_type),
            compose_field("Content-Description", description),
            compose_field("Content-Transfer-Encoding", encoding),
        )
    )
    # RFC 2046 5.1.1: the line end before a delimiter belongs to that, so what ends in one gets another.
    return head.encode() + b"\r\n" + body + b"\r\n"


def _encoding(body: bytes, *, utf8: bool) -> str:
    """What a part needs (RFC 2045 2.7, 2.8): `7bit`; `8bit` if the message may be; otherwise it has to be `encoded`."""
    if b"\0" in body or max(map(len, body.split(b"\n"))) > MAX_LINE + 1:  # with its CR
        return "encoded"
    if body.isascii():
        return "7bit"
    return "8bit" if utf8 else "encoded"


def _quoted_printable(body: bytes) -> bytes:
    return binascii.b2a_qp(body.replace(b"\r\n", b"\n")).replace(b"\n", b"\r\n")


def _base64(body: bytes) -> bytes:
    return base64.encodebytes(body).replace(b"\n", b"\r\n")


def _boundary(seed: str, parts: Sequence[bytes]) -> str:
    """A delimiter that stands in none of the parts."""
    attempt = 0
    while True:
        boundary = f"={attempt}={hashlib.sha256(f'{seed} {attempt}'.encode()).hexdigest()[:32]}"
        if not any(boundary.encode() in part for part in parts):
            return boundary
        attempt += 1


_BOUNDARY = re.compile(rb'\r\n\tboundary="(=[=0-9a-f]{1,60})"\r\n')


def redact(notification: bytes) -> bytes | None:
    """One of our notifications without anything of the message's header but Message-ID and Date (RFC 8689 5).

    None if it is no notification with a header to redact.
    """
    found = _BOUNDARY.search(notification, 0, notification.find(b"\r\n\r\n") + 2)
    if found is None:
        return None
    delimiter = b"--" + found[1]
    pieces = notification.split(delimiter)
    if len(pieces) != 5:  # before, three parts, and behind
        return None
    kept = b"".join(_kept_fields(_decoded(pieces[3])))
    pieces[3] = b"\r\n" + _header_part(kept, utf8=not notification.isascii())
    return delimiter.join(pieces)


def _decoded(part: bytes) -> bytes:
    """What one of our parts holds."""
    head, _, body = part.partition(b"\r\n\r\n")
    if head.endswith(b": quoted-printable"):
        return binascii.a2b_qp(body)
    return base64.b64decode(body) if head.endswith(b": base64") else body


def _kept_fields(header: bytes) -> Iterator[bytes]:
    keep = False
    for line in header.split(b"\r\n"):
        if not line.startswith((b" ", b"\t")):
            keep = line.lower().startswith((b"message-id:", b"date:"))
        if keep:
            yield line + b"\r\n"
