"""Who a recipient is that a client names, and which of them are taken from strangers. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.endpoint.pipeline.check import Forwarding
from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Notify, Recipient
from mailrider.model.reply import Reply
from mailrider.settings.pipeline import decide

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from mailrider.endpoint.aliases import AliasMember
    from mailrider.model.address import ReversePath
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


def forward(
    named: Sequence[Recipient], expanded: Mapping[Mailbox, Sequence[AliasMember]], *, has_sender: bool
) -> tuple[list[Recipient], Forwarding]:
    """Put the addresses of aliases in their places, with what RFC 3461 5.2.7 lets them have of the sender's wishes.

    - one address gets all of them (5.2.7.2);
    - several get all but SUCCESS, of which the sender is told now (5.2.7.3, the third way);
    - with an owner, who is the sender then, they get none (5.2.7.1). A notification has no sender, and gets none.
    """
    recipients: list[Recipient] = []
    owners: dict[Mailbox, ReversePath | None] = {}
    passed_on: list[Recipient] = []
    lists: list[Recipient] = []
    for each in named:
        members = expanded.get(each.mailbox)
        if members is None:
            owners.setdefault(each.mailbox, None)
            recipients.append(each)
            continue
        is_one = len(members) == 1
        for member in members:
            owner = None if is_one or not has_sender else member.owner
            owners.setdefault(member.mailbox, owner)
            notify = each.notify if is_one or each.notify is None else each.notify & ~Notify.SUCCESS
            wishes = Recipient(member.mailbox, notify, each.original)
            recipients.append(wishes if owner is None else Recipient(member.mailbox))
        if not is_one and each.notify is not None and Notify.SUCCESS in each.notify:
            has_owner = has_sender and all(member.owner is not None for member in members)
            (lists if has_owner else passed_on).append(each)
    with_owner = {mailbox: owner for mailbox, owner in owners.items() if owner is not None}
    return recipients, Forwarding(with_owner, tuple(passed_on), tuple(lists))


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
