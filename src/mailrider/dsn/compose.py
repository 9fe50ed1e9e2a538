"""Delivery status notifications: what the sender of a message is told (RFC 3464, 6522, 6533; RFC 3461 6).

`compose` writes a whole message: first for a person (what happened, to whom, what to do), then for machines, then what
the message was. Pure: time, ids and names are arguments.

- Internationalized messages get the forms of RFC 6533, with UTF-8; all others are as old programs expect them.
- The message is returned as far as RET asks and `MAX_RETURNED` allows, its header otherwise.
- A message that was sent with REQUIRETLS is never returned beyond its header (RFC 8689 5); `redact` takes even that
  away, but for Message-ID and Date, so that a notification can go where the levels are not met.
- Text of remote servers comes bounded and without control characters (`model.reply`); whatever else is quoted is
  cleaned here.
"""

from __future__ import annotations

import enum
import hashlib
import textwrap
from dataclasses import dataclass
from email import policy
from email.header import decode_header, make_header
from email.parser import BytesParser
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from mailrider.dsn.advice import advice_for
from mailrider.model.envelope import Ret
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import clean_text

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
MAX_LINE: Final = 900  # octets of a machine-readable line: RFC 5322 2.1.1 has 998
WIDTH: Final = 76


class Action(enum.Enum):
    """What a notification tells (RFC 3464 2.3.3)."""

    FAILED = "failed"
    DELAYED = "delayed"
    RELAYED = "relayed"


@dataclass(frozen=True, slots=True)
class Told:
    """A recipient and what became of it. `until`: when it will be given up, for a delay. `was_tried`: just now."""

    recipient: Recipient
    action: Action
    outcome: Outcome
    until: datetime | None = None
    was_tried: bool = True


@dataclass(frozen=True, slots=True)
class Origin:
    """Who writes: our host name, and the domain of our address."""

    hostname: Domain
    domain: Domain


@dataclass(frozen=True, slots=True)
class Notification:
    """What there is to tell about one message; all of `told` have the same action.

    `content` None: it cannot be read any more; the notification goes out all the same. `id` makes the Message-ID.
    """

    envelope: Envelope
    told: tuple[Told, ...]
    arrived: datetime
    at: datetime
    id: str
    content: Content | None = None

    @property
    def action(self) -> Action:
        """What it tells."""
        return self.told[0].action


def compose(notification: Notification, origin: Origin) -> bytes:
    """The notification as a message, lines ending in CRLF. Its envelope is the caller's: from `<>` to the sender."""
    is_global = _is_global(notification)
    text = "\r\n".join(_letter(notification, origin)) + "\r\n"
    machine = "\r\n".join(_status(notification, origin, is_global=is_global)) + "\r\n"
    parts = [
        _part("text/plain; charset=utf-8", "Notification", text.encode()),
        _part(f"message/{'global-' if is_global else ''}delivery-status", "Delivery report", machine.encode()),
    ]
    returned = _returned(notification)
    if returned is not None:
        parts.append(returned)
    boundary = _boundary(notification.id, parts)
    delimiter = b"--" + boundary.encode()
    body = b"".join(delimiter + b"\r\n" + part for part in parts) + delimiter + b"--\r\n"
    header = "\r\n".join(_header(notification, origin, boundary))
    return f"{header}\r\n\r\n".encode() + b"This is a MIME message: a delivery status notification.\r\n\r\n" + body


def _is_global(notification: Notification) -> bool:
    """True if an address needs the forms of RFC 6533."""
    recipients = [each.recipient for each in notification.told]
    originals = [each.original for each in recipients if each.original is not None]
    return not (
        all(each.mailbox.is_ascii for each in recipients) and all(original.address.isascii() for original in originals)
    )


# --- For the mail program ------------------------------------------------------------------------

_SUBJECT: Final = {
    Action.FAILED: "Not delivered",
    Action.DELAYED: "Delayed, still trying",
    Action.RELAYED: "Passed on",
}


def _header(notification: Notification, origin: Origin, boundary: str) -> Iterator[str]:
    whom = str(notification.told[0].recipient)
    more = len(notification.told) - 1
    subject = f"{_SUBJECT[notification.action]}: your message to {whom}" + (f" and {more} more" if more else "")
    message_id = _field(notification, "Message-ID")
    yield f"From: Mail delivery system <MAILER-DAEMON@{origin.domain}>"
    yield f"To: <{notification.envelope.sender}>"
    yield f"Date: {format_datetime(notification.at)}"
    yield f"Message-ID: <{notification.id}@{origin.hostname}>"
    yield _encoded("Subject", subject, utf8=not notification.envelope.sender.is_ascii)
    if message_id:
        yield f"In-Reply-To: {message_id}"
        yield f"References: {message_id}"
    yield "Auto-Submitted: auto-replied"  # RFC 3834 5: so that no program answers
    yield "MIME-Version: 1.0"
    yield "Content-Type: multipart/report; report-type=delivery-status;"
    yield f'\tboundary="{boundary}"'


def _encoded(name: str, text: str, *, utf8: bool) -> str:
    """A header line; words beyond ASCII as RFC 2047 wants them, where the message is not UTF-8 anyway."""
    if text.isascii() or utf8:
        return f"{name}: {text}"
    folded: str = policy.SMTP.header_factory(name, text).fold(policy=policy.SMTP)
    return folded.removesuffix("\r\n")


def _field(notification: Notification, name: str) -> str:
    """A field of the message's header, if it can be quoted as it is: ASCII, one line, not too long."""
    if notification.content is None:
        return ""
    values = notification.content.header_fields(name)
    text = clean_text(values[0].decode("ascii", "replace")) if values else ""
    return text if text.isascii() and len(text) <= MAX_LINE else ""


# --- For a person --------------------------------------------------------------------------------

_OPENING: Final = {
    Action.FAILED: "Your message could not be delivered to {whom}. This is final: it will not be tried again.",
    Action.DELAYED: "Your message has not reached {whom} yet. You need not do anything: it will be tried again.",
    Action.RELAYED: "Your message to {whom} was passed on to a server that does not report further. "
    "You will hear more only if it could not deliver it.",
}


def _letter(notification: Notification, origin: Origin) -> Iterator[str]:
    count = len(notification.told)
    whom = str(notification.told[0].recipient) if count == 1 else f"these {count} recipients"
    yield from textwrap.wrap(_OPENING[notification.action].format(whom=whom), WIDTH)
    yield ""
    yield from _about(notification)
    for each in notification.told:
        yield ""
        yield f"  {each.recipient}"
        yield from _explain(each)
    yield ""
    yield f"-- Mail delivery system of {origin.hostname}"


def _about(notification: Notification) -> Iterator[str]:
    subject = "" if notification.envelope.requiretls else _subject(notification)
    if subject:
        yield f"Subject:  {subject}"
    yield f"Sent:     {format_datetime(notification.arrived)}"


def _subject(notification: Notification) -> str:
    values = [] if notification.content is None else notification.content.header_fields("Subject")
    if not values:
        return ""
    text = values[0].decode("utf-8", "replace")
    try:
        text = str(make_header(decode_header(text)))
    except (ValueError, LookupError):
        # Not what RFC 2047 wants: shown as it stands there.
        pass
    return clean_text(text)[:MAX_SUBJECT]


def _explain(told: Told) -> Iterator[str]:
    outcome = told.outcome
    label = {Action.FAILED: "Reason", Action.DELAYED: "Reason so far", Action.RELAYED: "Answer"}[told.action]
    yield from _paragraph(f"{label}: {outcome.reply.text} ({outcome.reply.code} {outcome.reply.status})")
    if outcome.in_doubt:
        yield from _paragraph("It may have arrived all the same: the connection was lost before the server's answer.")
    if told.action is Action.FAILED:
        yield from _paragraph(f"What you can do: {advice_for(outcome.reply.status)}")
    elif told.action is Action.DELAYED and told.until is not None:
        yield from _paragraph(f"It will be tried until {format_datetime(told.until)}.")


def _paragraph(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ", break_on_hyphens=False)


# --- For machines --------------------------------------------------------------------------------


def _status(notification: Notification, origin: Origin, *, is_global: bool) -> Iterator[str]:
    """RFC 3464 2.2 and 2.3."""
    envelope = notification.envelope
    if envelope.envid is not None:
        yield _line("Original-Envelope-Id", envelope.envid)
    yield _line("Reporting-MTA", f"dns; {origin.hostname}")
    yield _line("Arrival-Date", format_datetime(notification.arrived))
    for each in notification.told:
        yield ""
        yield from _recipient(each, notification.at, is_global=is_global)


def _recipient(told: Told, at: datetime, *, is_global: bool) -> Iterator[str]:
    recipient, outcome = told.recipient, told.outcome
    original = recipient.original
    if original is not None:
        yield _line("Original-Recipient", f"{original.address_type}; {original.address}")
    # RFC 6533 4: an address with UTF-8 is of the type utf-8; it stands as it is in the global form.
    address_type = "rfc822" if recipient.mailbox.is_ascii or not is_global else "utf-8"
    yield _line("Final-Recipient", f"{address_type}; {recipient}")
    yield _line("Action", told.action.value)
    yield _line("Status", _status_code(outcome))
    if outcome.mx is not None:
        yield _line("Remote-MTA", f"dns; {outcome.mx}")
    yield _line("Diagnostic-Code", _ascii(_diagnosis(outcome), is_global=is_global))
    if told.was_tried:
        yield _line("Last-Attempt-Date", format_datetime(at))
    if told.action is Action.DELAYED and told.until is not None:
        yield _line("Will-Retry-Until", format_datetime(told.until))


def _diagnosis(outcome: Outcome) -> str:
    """RFC 3464 2.3.6: a server's reply as it gave it; or, under a type of ours, the reason that is ours."""
    reply, quoting = outcome.reply, f"{outcome.mx} said: "
    if outcome.mx is not None and reply.text.startswith(quoting):
        return f"smtp; {str(reply).replace(quoting, '', 1)}"
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


def _line(name: str, value: str) -> str:
    """A field, folded; what has no space to fold at stays long, but bounded."""
    lines = textwrap.wrap(
        f"{name}: {clean_text(value)[:MAX_LINE]}",
        WIDTH,
        subsequent_indent="    ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\r\n".join(lines)


# --- What the message was ------------------------------------------------------------------------


def _returned(notification: Notification) -> bytes | None:
    content = notification.content
    if content is None:
        return None
    # RFC 3461 4.3: RET is for failures; other notifications return the header only. RFC 8689 5: so does REQUIRETLS.
    is_full = (
        notification.envelope.ret is Ret.FULL
        and notification.action is Action.FAILED
        and not notification.envelope.requiretls
        and content.size <= MAX_RETURNED
    )
    if is_full:
        form = "message/rfc822" if content.header_is_ascii else "message/global"
        return _part(form, "Undelivered message", b"".join(content.chunks()))
    return _header_part(content.header)


def _header_part(header: bytes) -> bytes:
    if len(header) > MAX_RETURNED:
        header = header[: header.rfind(b"\n", 0, MAX_RETURNED) + 1]
    if header.isascii():
        return _part("text/rfc822-headers", "Header of the message", header)
    text = header.decode("utf-8", "replace").encode()
    return _part("message/global-headers", "Header of the message", text)


def _part(content_type: str, description: str, body: bytes) -> bytes:
    encoding = "7bit" if body.isascii() else "8bit"
    head = (
        f"Content-Type: {content_type}\r\nContent-Description: {description}\r\nContent-Transfer-Encoding: {encoding}"
    )
    # RFC 2046 5.1.1: the line end before a delimiter belongs to that, so what ends in one gets another.
    return head.encode() + b"\r\n\r\n" + body + b"\r\n"


def _boundary(seed: str, parts: Sequence[bytes]) -> str:
    """A delimiter that stands in none of the parts."""
    attempt = 0
    while True:
        boundary = f"={attempt}={hashlib.sha256(f'{seed} {attempt}'.encode()).hexdigest()[:32]}"
        if not any(boundary.encode() in part for part in parts):
            return boundary
        attempt += 1


def redact(notification: bytes) -> bytes | None:
    """One of our notifications without anything of the message's header but Message-ID and Date (RFC 8689 5).

    None if it is no notification with a header to redact.
    """
    message = BytesParser(policy=policy.SMTP).parsebytes(notification)
    boundary = message.get_boundary()
    if message.get_content_type() != "multipart/report" or boundary is None:
        return None
    delimiter = b"--" + boundary.encode()
    pieces = notification.split(delimiter)
    if len(pieces) != 5:  # before, three parts, and behind
        return None
    kept = b"".join(_kept_fields(pieces[3].partition(b"\r\n\r\n")[2]))
    pieces[3] = b"\r\n" + _header_part(kept)
    return delimiter.join(pieces)


def _kept_fields(header: bytes) -> Iterator[bytes]:
    keep = False
    for line in header.splitlines(keepends=True):
        if not line.startswith((b" ", b"\t")):
            keep = line.lower().startswith((b"message-id:", b"date:"))
        if keep:
            yield line
