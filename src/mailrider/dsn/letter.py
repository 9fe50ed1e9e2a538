"""A notification as a person reads it: what happened, to whom, and what to do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.dsn.advice import advice_for
from mailrider.dsn.notification import NotifiedAction, date_text, wrapped
from mailrider.header.words import decode_words
from mailrider.model.reply import clean_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.dsn.notification import Notification, NotificationAuthor, Told

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


def letter(notification: Notification, origin: NotificationAuthor) -> Iterator[str]:
    """Its lines."""
    count = len(notification.told)
    whom = str(notification.told[0].recipient) if count == 1 else f"these {count} recipients"
    opening = _NOTIFICATION if notification.is_about_notification else _OPENING[notification.action]
    yield from wrapped(opening.format(whom=whom))
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
    yield f"Sent:     {date_text(notification.arrived)}"


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
        yield from _paragraph(f"It will be tried until {date_text(told.until)}.")


def _paragraph(text: str) -> list[str]:
    return wrapped(text, "    ", "      ")
