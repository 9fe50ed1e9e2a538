"""What a server need not be asked, since its offer says that it cannot be done: size, 8-bit content, UTF-8. Pure.

SIZE RFC 1870; 8BITMIME RFC 6152; SMTPUTF8 RFC 6531.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.smtp.steps import Decision

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.steps import ContentFacts


def refused_unasked(
    envelope: Envelope, recipients: Sequence[Recipient], content: ContentFacts, offered: Capabilities, *, strict: bool
) -> dict[int, Decision]:
    """What the server cannot be asked to do, by recipient (RFC 1870, 6152, 6531). `strict`: 8-bit needs 8BITMIME."""
    everybody = _refusal_for_all(envelope, content, offered, strict=strict)
    if everybody is None and offered.smtputf8:
        return {}
    refused: dict[int, Decision] = {}
    for index, recipient in enumerate(recipients):
        refusal = everybody or _refusal_for(recipient, envelope, content)
        if refusal is not None:
            refused[index] = Decision(TryResult.MAIL, refusal, is_ours=True)
    return refused


def _refusal_for_all(envelope: Envelope, content: ContentFacts, offered: Capabilities, *, strict: bool) -> Reply | None:
    if offered.max_size is not None and content.size > offered.max_size:
        text = f"The message has {content.size} octets, the next server takes {offered.max_size}"
        return Reply.make(552, "5.3.4", text)
    if content.eight_bit and strict and not offered.eight_bit_mime:
        return Reply.make(554, "5.6.3", "8-bit content, and the next server does not offer 8BITMIME")
    if not offered.smtputf8 and not envelope.sender.is_ascii:
        return Reply.make(550, "5.6.7", "Non-ASCII sender, and the next server does not offer SMTPUTF8")
    return None


def _refusal_for(recipient: Recipient, envelope: Envelope, content: ContentFacts) -> Reply | None:
    """For want of SMTPUTF8; the address counts first, since its owner knows of it."""
    if not recipient.mailbox.is_ascii:
        return Reply.make(553, "5.6.7", "The next server does not take non-ASCII addresses (SMTPUTF8)")
    if envelope.smtputf8 and content.header_is_utf8:
        return Reply.make(554, "5.6.9", "UTF-8 header, and the next server does not offer SMTPUTF8")
    return None
