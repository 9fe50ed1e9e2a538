"""The way of a message through an endpoint, one tree: by its sender to a branch, by its recipients to their targets.

The `Router` is its root, each `Branch` is what holds for some senders, and `PipelineRoutes` are the blocks of a
pipeline with their targets. All is open when it is put together (`app.endpoints`): no settings are looked at here. A
stage is what the blocks say is done to a message: checks look at it, and it is signed. What always holds:

- all checks have spoken before any target is given the message;
- SMTP has one answer to a message: what the check of one `destination` refuses is refused for all its recipients, so
  that nobody gets what its sender is told was refused. LMTP has an answer for each;
- what one target took is never reported as refused. A target that delivers at once may say one thing of one recipient
  and another of the next, so over SMTP it gets one recipient a transaction (`companions`; the client comes again with
  the others). Queues take all or nothing, so one transaction may go to several; if a later one cannot take its part,
  the sender is told by the first one, which has;
- signing is the last thing that is done: whatever changed a message afterwards would break the signature.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from mailrider.endpoint.pipeline.check import PASSED, Arrival, examine, strictest
from mailrider.model.event import Bug, discard
from mailrider.model.handover import DIRECT, Handover
from mailrider.model.outcome import BROKEN, AttemptReport, Deferred, Delivered, outcome_for
from mailrider.model.reply import Reply
from mailrider.queue.store import StoreUnavailable
from mailrider.settings.pipeline import fitting

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping, Sequence

    from mailrider.delivery.limits.rules import Limiter
    from mailrider.dkim.sign import DKIMSigning
    from mailrider.endpoint.pipeline.check import Check, CheckResult, Forwarding
    from mailrider.model.address import Mailbox, ReversePath
    from mailrider.model.domain import Domain
    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Emit
    from mailrider.model.outcome import Outcome
    from mailrider.queue.work import Deliverer
    from mailrider.settings.pipeline import Match
    from mailrider.smtp.content import Content


NOT_TAKEN: Final = Reply.make(
    554, "5.3.0", "It could not be queued for this recipient, though it was for others; send it again to this one"
)
TOLD: Final = Reply.make(250, "2.0.0", "The sender is told that it could not be queued")


# RFC 5321 4.5.3.1.10: clients send it again for the recipients that were too many.
ON_ITS_OWN: Final = Reply.make(452, "4.5.3", "Send it to this recipient in a transaction of its own")


@runtime_checkable
class AllOrNoneDeliverer(Protocol):
    """A `Deliverer` that takes all recipients of a message, or none: a queue."""

    async def deliver(self, envelope: Envelope, content: Content, handover: Handover = DIRECT) -> AttemptReport:
        """See `Deliverer`; the outcomes are all of one kind."""

    def can_tell(self, sender: ReversePath) -> bool:
        """True if a notification may go to that sender."""

    async def tell_failed(self, envelope: Envelope, content: Content, reply: Reply) -> bool:
        """Notify the sender that these recipients do not get the message; True once that is durable, or unwanted."""

    async def tell_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> None:
        """Notify the sender that these recipients stand for others, who get the message (RFC 3461 5.2.7)."""


@dataclass(frozen=True, slots=True)
class RouteStage:
    """What is done to messages in a block: `checks` are its own, `signing` is that of all blocks around it as well."""

    checks: Sequence[Check] = ()
    signing: DKIMSigning | None = None


UNTOUCHED: Final = RouteStage()


@dataclass(frozen=True, slots=True)
class PipelineRoute:
    """What is done with mail for some recipients: a target gets it, or it is refused with a reply."""

    target: Deliverer | Reply
    stage: RouteStage = UNTOUCHED


@dataclass(frozen=True, slots=True)
class PipelineRoutes:
    """The routes of a pipeline: those for some recipients, and the one for all others."""

    destinations: Sequence[tuple[Sequence[Match], PipelineRoute]]
    others: PipelineRoute

    def of(self, mailbox: Mailbox) -> PipelineRoute:
        """The route of a recipient."""
        return fitting(self.destinations, mailbox, self.others) if self.destinations else self.others


@dataclass(slots=True)
class _Share:
    """The recipients, by their places in the envelope, that get the message in the same form from the same target.

    `owner`: who hears of failures there, instead of the sender. `is_copy`: another share has the message itself.
    """

    target: Deliverer
    stage: RouteStage
    indices: list[int]
    owner: ReversePath | None = None
    is_copy: bool = False

    def of(self, envelope: Envelope) -> Envelope:
        """The message for these recipients only."""
        recipients = tuple(envelope.recipients[index] for index in self.indices)
        if self.is_copy:
            envelope = replace(envelope, id="", origin=envelope.id)
        if self.owner is None:
            return replace(envelope, recipients=recipients)
        # RFC 3461 5.2.7.1: what the sender asked for ends at a list.
        return replace(envelope, sender=self.owner, recipients=recipients, ret=None, envid=None)

    def answer(self, envelope: Envelope, reply: Reply) -> dict[int, Outcome]:
        """What becomes of them if that is the reply."""
        return {index: outcome_for(envelope.recipients[index], reply) for index in self.indices}


class PipelineDeliverer:
    """A `Deliverer` that shares a message out. `answers_each`: each recipient has an answer of its own."""

    def __init__(self, routes: PipelineRoutes, emit: Emit = discard, *, answers_each: bool = False) -> None:
        self._routes = routes
        self._emit = emit
        self._answers_each = answers_each

    def deliver(
        self, envelope: Envelope, content: Content, handover: Handover = DIRECT, arrival: Arrival | None = None
    ) -> Coroutine[Any, Any, AttemptReport]:
        """One attempt at each target that is concerned, at the same time."""
        outcomes: dict[int, Outcome] = {}
        forwarding = None if arrival is None else arrival.forwarding
        shares = self._share_out(envelope, outcomes, {} if forwarding is None else forwarding.owners)
        if len(shares) > 1 or outcomes or shares[0].stage.checks or forwarding is not None:
            return self._deliver_shares(
                shares, outcomes, envelope, content, handover, arrival or Arrival(envelope.client)
            )
        # No task, and no other envelope, where all go the same way.
        target, signing = shares[0].target, shares[0].stage.signing
        return (
            target.deliver(envelope, content, handover)
            if signing is None
            else _deliver_signed(target, signing, envelope, content, handover)
        )

    async def _deliver_shares(
        self,
        shares: Sequence[_Share],
        outcomes: dict[int, Outcome],
        envelope: Envelope,
        content: Content,
        handover: Handover,
        arrival: Arrival,
    ) -> AttemptReport:
        findings = await self._examine(shares, envelope, content, arrival)
        passed: list[tuple[_Share, Envelope]] = []
        for share, found in zip(shares, findings, strict=True):
            if found.refusal is not None:
                outcomes.update(share.answer(envelope, found.refusal))
            else:
                passed.append((share, share.of(envelope)))
        signed = await _sign(content, {share.stage.signing for share, _ in passed})
        takes_all = all(isinstance(share.target, AllOrNoneDeliverer) for share, _ in passed)
        if len(passed) > 1 and takes_all and not self._answers_each:
            outcomes.update(await self._take_in_turn(passed, signed, handover))
            passed = []
        attempts = [share.target.deliver(some, signed[share.stage.signing], handover) for share, some in passed]
        # All of them come to their end, whatever becomes of one: nobody would hear of what goes on behind an exception.
        results = await asyncio.gather(*attempts, return_exceptions=True)
        if passed and not outcomes:
            _raise_if_no_store_gave(results)
        for (share, some), result in zip(passed, results, strict=True):
            report = self._broken(some, result) if isinstance(result, BaseException) else result
            outcomes.update(zip(share.indices, report, strict=True))
        whole = AttemptReport(tuple(outcomes[index] for index in range(len(envelope.recipients))))
        if arrival.forwarding is not None and all(isinstance(each, Delivered) for each in whole):
            await self._tell_passed_on(arrival.forwarding, shares, envelope, content)
        return whole

    def _broken(self, envelope: Envelope, error: BaseException) -> AttemptReport:
        """What becomes of recipients whose target raised, while others may have the message."""
        # Our own cancellation ends the wait itself, so one among the results is the target's, and nobody wanted it.
        self._emit(Bug("delivery to one of several targets", error, message=envelope.id or envelope.origin))
        reply = BROKEN
        if isinstance(error, StoreUnavailable):
            reply = Reply.make(error.code, error.enhanced, error.public)
        return AttemptReport(tuple(Deferred(each, reply) for each in envelope.recipients))

    async def _tell_passed_on(
        self, forwarding: Forwarding, shares: Sequence[_Share], envelope: Envelope, content: Content
    ) -> None:
        """Tell the sender of recipients that stand for others, by the first queue there is."""
        queues = (share.target for share in shares)
        queue = next((each for each in queues if isinstance(each, AllOrNoneDeliverer)), None)
        for recipients, to_list in ((forwarding.expanded, False), (forwarding.lists, True)):
            if queue is not None and recipients:
                try:
                    await queue.tell_passed_on(replace(envelope, recipients=recipients), content, to_list=to_list)
                except Exception as error:  # the message is taken all the same
                    self._emit(Bug("notification that an alias was passed on", error, message=envelope.id))

    def _share_out(
        self, envelope: Envelope, outcomes: dict[int, Outcome], owners: Mapping[Mailbox, ReversePath]
    ) -> list[_Share]:
        """Who gets it from where; what is decided already goes into `outcomes`."""
        shares: dict[tuple[int, int, ReversePath | None], _Share] = {}
        for index, recipient in enumerate(envelope.recipients):
            route = self._routes.of(recipient.mailbox)
            target, stage = route.target, route.stage
            if isinstance(target, Reply):
                outcomes[index] = outcome_for(recipient, target)
            else:
                # By identity: a target is one thing, though another may be set up just alike.
                owner = owners.get(recipient.mailbox) if owners else None
                key = (id(target), id(stage), owner)
                share = shares.setdefault(key, _Share(target, stage, [], owner, is_copy=bool(shares)))
                share.indices.append(index)
        return list(shares.values())

    def refusal(self, mailbox: Mailbox) -> Reply | None:
        """Why a recipient is refused; None if it is not."""
        target = self._routes.of(mailbox).target
        return target if isinstance(target, Reply) else None

    def companions(self, sender: ReversePath, first: Mailbox, another: Mailbox) -> bool:
        """True if both recipients can be in one transaction: whatever happens, one reply is true of both."""
        route, other = self._routes.of(first), self._routes.of(another)
        taking, also = route.target, other.target
        if isinstance(taking, Reply) or isinstance(also, Reply):
            return True  # it is refused anyway
        if not (isinstance(taking, AllOrNoneDeliverer) and isinstance(also, AllOrNoneDeliverer)):
            return False
        is_same = taking is also and route.stage is other.stage
        return is_same or taking.can_tell(sender)

    async def _take_in_turn(
        self,
        passed: Sequence[tuple[_Share, Envelope]],
        signed: Mapping[DKIMSigning | None, Content],
        handover: Handover,
    ) -> dict[int, Outcome]:
        """Give a message to several queues. If the first one cannot take its part, nobody has it, and all hear that."""
        outcomes: dict[int, Outcome] = {}
        first: tuple[AllOrNoneDeliverer, Content] | None = None
        for share, envelope in passed:
            target, content = share.target, signed[share.stage.signing]
            try:
                report = await target.deliver(envelope, content, handover)
            except Exception as error:
                if first is None:
                    raise  # nobody has it
                report = self._broken(envelope, error)
            refused = next((outcome for outcome in report if not isinstance(outcome, Delivered)), None)
            if refused is not None and first is None:
                return {
                    index: outcome_for(recipient, refused.reply)
                    for each, some in passed
                    for index, recipient in zip(each.indices, some.recipients, strict=True)
                }
            if refused is not None and first is not None and await first[0].tell_failed(envelope, first[1], NOT_TAKEN):
                report = AttemptReport(tuple(Delivered(each, TOLD) for each in envelope.recipients))
            elif first is None and isinstance(target, AllOrNoneDeliverer):
                first = target, content
            outcomes.update(zip(share.indices, report, strict=True))
        return outcomes

    async def _examine(
        self, shares: Sequence[_Share], envelope: Envelope, content: Content, arrival: Arrival
    ) -> Sequence[CheckResult]:
        """What holds for each share."""
        if not any(share.stage.checks for share in shares):
            return [PASSED] * len(shares)
        looks = [examine(share.stage.checks, share.of(envelope), content, arrival, self._emit) for share in shares]
        findings = await asyncio.gather(*looks)
        strict = strictest(findings)
        return findings if strict.refusal is None or self._answers_each else [strict] * len(shares)


def _raise_if_no_store_gave(results: Sequence[AttemptReport | BaseException]) -> None:
    """If no target could do anything for want of a store, it is as if there had been no attempt."""
    errors = [each for each in results if isinstance(each, StoreUnavailable)]
    if len(errors) == len(results):
        raise errors[0]


async def _deliver_signed(
    target: Deliverer, signing: DKIMSigning, envelope: Envelope, content: Content, handover: Handover
) -> AttemptReport:
    return await target.deliver(envelope, await signing.modify(content), handover)


async def _sign(content: Content, signings: set[DKIMSigning | None]) -> Mapping[DKIMSigning | None, Content]:
    """The message as each of them makes it."""
    return {each: content if each is None else await each.modify(content) for each in signings}


# The root of an endpoint ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Branch:
    """What holds for mail of some senders: the checks before its routes, and who is postmaster.

    A message that a check refuses is refused for all its recipients.
    """

    pipeline: PipelineDeliverer
    checks: Sequence[Check]
    postmaster: Mailbox
    emit: Emit

    def deliver(
        self, envelope: Envelope, content: Content, handover: Handover, arrival: Arrival
    ) -> Coroutine[Any, Any, AttemptReport]:
        """What passes the checks goes to the pipeline."""
        look = self._check if self.checks else self.pipeline.deliver
        return look(envelope, content, handover, arrival)

    async def _check(self, envelope: Envelope, content: Content, handover: Handover, arrival: Arrival) -> AttemptReport:
        found = await examine(self.checks, envelope, content, arrival, self.emit)
        if (refusal := found.refusal) is not None:
            return AttemptReport(tuple(outcome_for(each, refusal) for each in envelope.recipients))
        return await self.pipeline.deliver(envelope, content, handover, arrival)


@dataclass(slots=True, eq=False)
class Router:
    """The sink of an endpoint: the part of its pipeline that is the sender's, with limits, checks and signatures before
    it."""

    sources: Sequence[tuple[Sequence[Match], Branch]]
    others: Branch
    limiter: Limiter | None
    hostname: Domain
    emit: Emit
    answers_each: bool = False

    def _branch(self, sender: ReversePath) -> Branch:
        return fitting(self.sources, sender.mailbox, self.others) if self.sources else self.others

    def judge(self, sender: ReversePath, mailbox: Mailbox, first: Mailbox | None = None) -> Reply | None:
        """Why a recipient is refused; None if it is not. `first`: the one that the transaction has already."""
        pipeline = self._branch(sender).pipeline
        if (refusal := pipeline.refusal(mailbox)) is not None:
            return refusal
        if first is None or self.answers_each or pipeline.companions(sender, first, mailbox):
            return None
        return ON_ITS_OWN

    def postmaster(self, sender: ReversePath) -> Mailbox:
        """Whom `RCPT TO:<postmaster>` means."""
        return self._branch(sender).postmaster

    def deliver(self, envelope: Envelope, content: Content, arrival: Arrival) -> Coroutine[Any, Any, AttemptReport]:
        """See `MessageSink`."""
        branch = self._branch(envelope.sender)
        if self.limiter is None:
            return branch.deliver(envelope, content, DIRECT, arrival)
        return self._deliver_within(self.limiter, branch, envelope, content, arrival)

    async def _deliver_within(
        self, limiter: Limiter, branch: Branch, envelope: Envelope, content: Content, arrival: Arrival
    ) -> AttemptReport:
        domains = {each.mailbox.domain or self.hostname for each in envelope.recipients}
        with limiter.ticket(envelope, self.emit) as ticket:
            async with ticket.to(*domains) as held_back:
                if held_back is None:
                    passed = Handover(frozenset({limiter}))
                    return await branch.deliver(envelope, content, passed, arrival)
        return AttemptReport(tuple(Deferred(each, held_back.reply) for each in envelope.recipients))
