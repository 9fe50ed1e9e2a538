"""A notification as a program reads it: the fields of RFC 3464 2.2 and 2.3, in the forms of RFC 6533 where needed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.dsn.notification import NotifiedAction, date_text, wrapped
from mailrider.header.fields import compose_field
from mailrider.model.envelope import OriginalRecipient
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.smtp.commands import encode_original_recipient

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedRecipient
    from mailrider.model.outcome import Outcome

MAX_VALUE: Final = 900  # octets of a machine-readable line: RFC 5322 2.1.1 has 998


def status_report(notification: Notification, origin: NotificationAuthor, *, is_global: bool) -> str:
    """RFC 3464 2.2 and 2.3: groups of fields with an empty line between them."""
    envelope = notification.envelope
    about = [
        *([] if envelope.envid is None else [_line("Original-Envelope-Id", envelope.envid)]),
        _line("Reporting-MTA", f"dns; {origin.hostname.ascii}"),
        _line("Arrival-Date", date_text(notification.arrived)),
    ]
    groups = [
        about,
        *(list(_recipient(each, notification.at, is_global=is_global)) for each in notification.recipients),
    ]
    return "\r\n".join("".join(group) for group in groups)


def _recipient(notified: NotifiedRecipient, at: datetime, *, is_global: bool) -> Iterator[str]:
    recipient, outcome = notified.recipient, notified.outcome
    if recipient.original is not None:
        yield _line("Original-Recipient", _typed_address(recipient.original, is_global=is_global))
    # RFC 6533 4: an address with UTF-8 is of the type utf-8.
    final = OriginalRecipient("rfc822" if recipient.mailbox.is_ascii else "utf-8", str(recipient))
    yield _line("Final-Recipient", _typed_address(final, is_global=is_global))
    yield _line("Action", notified.action.value)
    yield _line("Status", _status_code(outcome))
    if outcome.mx is not None:
        yield _line("Remote-MTA", f"dns; {outcome.mx}")
    diagnosis = wrapped(_literally(_ascii(_diagnosis(outcome), is_global=is_global))[:MAX_VALUE])
    yield compose_field("Diagnostic-Code", *diagnosis, fold="    ")
    if notified.was_tried:
        yield _line("Last-Attempt-Date", date_text(at))
    if notified.action is NotifiedAction.DELAYED and notified.until is not None:
        yield _line("Will-Retry-Until", date_text(notified.until))


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
