"""A notification as a person reads it: what happened, to whom, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.dsn.notification import NotifiedAction, date_text, wrapped
from mailrider.header.words import decode_words
from mailrider.model.reply import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedRecipient
    from mailrider.model.reply import EnhancedCode

MAX_SUBJECT: Final = 120  # characters of the subject that are quoted
MAX_ENCODED: Final = 4096  # octets of it that are decoded for that: encoded words take up to twelve a character
MAX_EXPLAINED: Final = 100  # recipients of whom the person is told why; a program is told of all

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

_CHECK_ADDRESS: Final = "Check the address for mistakes, and send the message again to the right one."
_CHECK_YOURS: Final = "Your own address was not accepted. Check the settings of your mail program."
_SECURE: Final = "You asked for secure transport all the way"
_OURS: Final = "If mail to other domains fails, too, the fault is here: tell your own postmaster."
_ASK: Final = "Ask the recipient by other means, or their postmaster, and quote the words above."

# What a person can do about a failure, by the subject and detail of its enhanced status code (RFC 3463, RFC 5248). A
# detail of None stands for all others of its subject.
_ADVICE: Final[dict[tuple[int, int | None], str]] = {
    (1, 1): _CHECK_ADDRESS,
    (1, 2): "Check the part of the address behind the @ for mistakes: that domain does not exist.",
    (1, 3): _CHECK_ADDRESS,
    (1, 6): "The recipient has moved: find out the new address.",
    (1, 7): _CHECK_YOURS,
    (1, 8): _CHECK_YOURS,
    (1, 10): "That domain takes no mail at all: find out another address.",
    (1, None): _CHECK_ADDRESS,
    (2, 1): "The mailbox is disabled. Find out another address of the recipient.",
    (2, 2): "The mailbox is full. Try again later, or tell the recipient by other means.",
    (2, 3): "The message is too large for this recipient: send it without attachments, or a link to them.",
    (3, 4): "The message is too large for this server: send it without attachments, or a link to them.",
    (4, 1): "No server of that domain could be reached. Try again later. " + _OURS,
    (4, 3): "That domain could not be looked up. Try again later. " + _OURS,
    (4, 4): "No server of that domain could be found. Check the address, or ask the recipient by other means.",
    (4, 6): "The mail goes round in a loop. Tell your postmaster.",
    (4, 7): "We tried for so long that we gave up. Try again later, or use other means. " + _OURS,
    (6, 7): "Their server cannot handle an address with such characters. Ask for one in plain letters.",
    (6, 9): "Their server cannot handle such characters in the header, as in the subject. Use plain letters.",
    (7, 10): f"{_SECURE}, and their servers cannot prove it. Nothing was sent in clear.",
    (7, 30): f"{_SECURE}, and their servers cannot promise it. Nothing was sent in clear.",
    (7, None): "Their server refused it by a rule of its own, for its sender or its content. " + _ASK,
}


def letter_lines(notification: Notification, origin: NotificationAuthor) -> Iterator[str]:
    """The lines of the letter."""
    count = len(notification.recipients)
    whom = str(notification.recipients[0].recipient) if count == 1 else f"these {count} recipients"
    opening = _NOTIFICATION if notification.is_about_notification else _OPENING[notification.action]
    yield from wrapped(opening.format(whom=whom))
    yield ""
    yield from _about(notification)
    for each in notification.recipients[:MAX_EXPLAINED]:
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
    yield f"Sent:     {date_text(notification.arrived)}"


def _subject(notification: Notification) -> str:
    values = [] if notification.content is None else notification.content.header_fields("Subject")
    if not values:
        return ""
    text = decode_words(values[0][:MAX_ENCODED].decode("utf-8", "replace"))
    return clean_text(text[:MAX_SUBJECT])


def _explain(notified: NotifiedRecipient) -> Iterator[str]:
    outcome = notified.outcome
    label = {NotifiedAction.FAILED: "Reason", NotifiedAction.DELAYED: "Reason so far"}.get(notified.action, "Answer")
    yield from _paragraph(f"{label}: {outcome.reply.text} ({outcome.reply.code} {outcome.reply.status})")
    if outcome.in_doubt:
        yield from _paragraph("It may have arrived all the same: the connection was lost before the server's answer.")
    if notified.action is NotifiedAction.FAILED:
        yield from _paragraph(f"What you can do: {advice_for(outcome.reply.status)}")
    elif notified.action is NotifiedAction.DELAYED and notified.until is not None:
        yield from _paragraph(f"It will be tried until {date_text(notified.until)}.")


def _paragraph(text: str) -> list[str]:
    return wrapped(text, "    ", "      ")


def advice_for(code: EnhancedCode) -> str:
    """What to do about a failure, in one or two sentences."""
    return _ADVICE.get((code.subject, code.detail)) or _ADVICE.get((code.subject, None)) or _ASK
