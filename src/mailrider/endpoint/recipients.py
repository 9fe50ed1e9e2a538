"""Who a recipient is that a client names, and which of them are taken from strangers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import decide

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailrider.model.envelope import Recipient
    from mailrider.settings.pipeline import PipelineSettings

ROUTE: Final = Reply.make(550, "5.7.1", "Addresses with a route in them are not taken")
_ROUTING: Final = frozenset("%!@")


def is_route(mailbox: Mailbox) -> bool:
    """True for `a%b@x`, `x!a@b` and `"a@b"@x`: servers of old send that on to a place that x has not consented to."""
    return not _ROUTING.isdisjoint(mailbox.local_part)


def distinct(recipients: Sequence[Recipient]) -> Sequence[Recipient]:
    """Each of them once: who is named twice gets a message once, as he was named first."""
    if len(recipients) == 1:
        return recipients
    found: dict[Mailbox, Recipient] = {}
    for each in recipients:
        found.setdefault(each.mailbox, each)
    return tuple(found.values())


def postmaster_of(pipeline: PipelineSettings, hostname: Domain) -> Mailbox:
    """Whom `RCPT TO:<postmaster>` means (RFC 5321 4.5.1): the postmaster of the first domain that mail is taken for.

    A `destination postmaster` is for him as he was named; then comes our own name, then the domains of `destination`.
    """
    named = Mailbox("postmaster", None)
    explicit = any(match.fits(named) for rule in pipeline.destination for match in rule.matches)
    if explicit and not isinstance(decide(pipeline, named), Reply):
        return named
    own = Mailbox("postmaster", hostname)
    candidates = (Mailbox("postmaster", domain) for domain in (hostname, *_domains(pipeline)))
    return next((each for each in candidates if not isinstance(decide(pipeline, each), Reply)), own)


def _domains(pipeline: PipelineSettings) -> Iterator[Domain]:
    for rule in pipeline.destination:
        for match in rule.matches:
            try:
                yield Domain.parse(match.text.rpartition("@")[2])
            except InvalidValue:
                continue  # an address literal: it is nobody's domain
