"""The transactions of an attempt at one next hop, and what the replies in them mean for each recipient."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

from mailrider.clock import NEVER
from mailrider.delivery.attempt_record import NO_EXTENSION, NOT_COUNTED, AttemptRecord
from mailrider.delivery.connection.transcript import transcript
from mailrider.delivery.connection.unusable import ConnectLater, Unusable, broken_reply, judgement_of_us
from mailrider.delivery.race import RaceLost
from mailrider.delivery.tally import FailedTry, Tally, Weight
from mailrider.errors import DeadlineExceeded
from mailrider.model.event import AddressFailed
from mailrider.model.outcome import TryResult
from mailrider.model.reply import MAX_QUOTE, Reply, quote_reply
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.smtp.client import InjectedPlaintext, OutOfStep
from mailrider.smtp.transaction import Transaction

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.job import AttemptRules, Connections, DestinationLike, Job, Lease
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate
    from mailrider.model.security import PeerEvidence, Refusal, Security
    from mailrider.model.tls_session import PoliciesSeen
    from mailrider.model.transcript import Transcript
    from mailrider.smtp.steps import Decision


_TLS_FIRST = frozenset({530})  # RFC 3207 4; it says nothing of the message where TLS was there, and has failed
_OUT_OF_SEQUENCE = frozenset({503})  # on a kept connection it can only mean that the session was forgotten


class AttemptTransactions:
    """Carries transactions out, one at a time. `answered_here`: whom the candidate has answered already."""

    def __init__(
        self,
        job: Job,
        tally: Tally,
        destination: DestinationLike,
        connections: Connections,
        rules: AttemptRules,
        clock: Clock,
        emit: Emit,
        *,
        lmtp: bool,
        session_codes: frozenset[int],
    ) -> None:
        """`session_codes`: see `Transaction`."""
        self.answered_here: set[int] = set()
        self.ends_at = NEVER
        """The moment after which no further transaction is begun."""
        self._job = job
        self._message = job.envelope.id
        self._tally = tally
        self._destination = destination
        self._connections = connections
        self._rules = rules
        self._clock = clock
        self._emit = emit
        self._lmtp = lmtp
        self._session_codes = session_codes
        self._under_way: tuple[Transaction, list[int], Lease] | None = None
        self._told: tuple[Transaction, Transcript | None] | None = None

    @property
    def record(self) -> AttemptRecord:
        """Where what did not work is written down."""
        own, next_hop = self._job.security.requirement, self._destination.next_hop
        return AttemptRecord(self._tally, next_hop, own, self._message, self._emit, self.policies_seen)

    @property
    def is_sending(self) -> bool:
        """True while content is sent, or the reply to it is waited for."""
        return self._under_way is not None and self._under_way[0].content_sent

    @property
    def has_effect(self) -> bool:
        """True if the one under way decided somebody, or the server may have the message."""
        return self._under_way is not None and (self.is_sending or bool(self._under_way[0].decisions))

    @property
    def peer_name(self) -> str:
        """The server of the one that is under way; empty if there is none."""
        return "" if self._under_way is None else self._under_way[2].session.peer.name

    @property
    def todo(self) -> list[int]:
        """The recipients that this candidate has not answered yet."""
        pending, answered = self._tally.pending, self.answered_here
        return [index for index in pending if index not in answered] if answered else list(pending)

    def policies_seen(self, candidate: Candidate) -> PoliciesSeen | None:
        """What TLS reports are told of the policies; None for what they are never told of."""
        # Reports about the delivery of reports would go on for ever (RFC 8460 5.3 names the header field).
        if not self._rules.reports_tls or self._job.content.header_fields("TLS-Report-Submitter"):
            return None
        return self._destination.policies_seen(candidate)

    async def try_address(self, call: ConnectRequest) -> bool:
        """True if there is no point in trying further addresses of this candidate."""
        todo = self.todo
        fresh = False
        while todo:
            try:
                lease, lost = await self._carry(call, todo, fresh=fresh)
            except RaceLost:
                return False  # it comes again, behind the others
            except ConnectLater as error:
                self._tally.defer_pending(NOT_COUNTED, self._clock.now() + timedelta(seconds=error.seconds))
                return True
            except Unusable as error:
                self.record.end_unusable(call, error)
                if error.stage is TryResult.TLS:
                    await self._destination.tls_failed()
                return isinstance(error.__cause__, InjectedPlaintext)
            if lease.judgement.refusal is not None:
                return await self._refused(call, lease, lease.judgement.refusal)
            if self._under_way is None:
                if lease.reused:
                    fresh = True  # a refusal for good rests on what the server says now
                    continue
                self.record.end_unqualified(call, NO_EXTENSION, lease.judgement.security)
                return True
            transaction, fresh = self._under_way[0], False
            if transaction.knows_no_chunks:
                todo, fresh = self._left_for_data(transaction, todo, lease), True
                continue
            if not transaction.reusable:
                repeated = self._repeated(call, transaction, lease, lost)
                if repeated is not None:
                    self._under_way = None
                    call, fresh = repeated, True
                    continue
            stranded = self._enter(transaction, todo, lease, lost)
            self._under_way = None
            if stranded:
                return False
            todo = [todo[index] for index in transaction.overflow]
            if todo and self._clock.monotonic() > self.ends_at:
                self.record.end_out_of_time(call, lease.judgement.security, todo)
                return True
        return True

    async def _carry(self, call: ConnectRequest, todo: Sequence[int], *, fresh: bool) -> tuple[Lease, Exception | None]:
        """Carry a transaction, unless the connection may not be used for the message; what ended the connection.

        Raises as entering a lease does.
        """
        lost: Exception | None = None
        async with self._connections.lease(call, fresh=fresh) as lease:
            needs_extension = self._job.security.needs_extension
            if lease.judgement.refusal is None and (not needs_extension or lease.session.capabilities.requiretls):
                transaction = self._begin(lease, todo)
                lost = await lease.session.transact(transaction, self._job.content)
                if not transaction.reusable:
                    wants_tls = _why_tls_was_missing(transaction, lease) is not None
                    lease.give_up(wants_tls=wants_tls, knows_no_chunks=transaction.knows_no_chunks)
                elif lease.session.takes_no_more_domains and _has_other_domains(call, transaction):
                    lease.give_up(takes_no_more_domains=True)  # the next message may be for others again (RFC 9422 4.3)
        return lease, lost

    async def _refused(self, call: ConnectRequest, lease: Lease, refusal: Refusal) -> bool:
        """Behind the lease: nobody else should have to wait while a policy is looked up again."""
        self.record.refuse(call.candidate, str(call.address), refusal, lease.judgement.security)
        await self._destination.tls_failed()
        # Without TLS this address is unusable; a certificate that was judged speaks for the whole host.
        return lease.session.evidence.tls is not None

    def _left_for_data(self, transaction: Transaction, todo: Sequence[int], lease: Lease) -> list[int]:
        """The recipients for whom DATA is used, on a new connection, since the server does not know BDAT."""
        for position, decision in transaction.decisions.items():
            self._enter_decision(todo[position], decision, lease)
        self._under_way = None
        return [todo[position] for position in sorted((*transaction.undecided, *transaction.overflow))]

    def _repeated(
        self, call: ConnectRequest, transaction: Transaction, lease: Lease, lost: Exception | None
    ) -> ConnectRequest | None:
        """The call with which a transaction that came to nothing is repeated on a new connection; None: it counts."""
        if lease.reused and transaction.session_refusal is not None and not transaction.decisions:
            return call  # RFC 4954 6: the server has forgotten our login; a new connection logs in again
        if not (lost or transaction.farewell) or transaction.answered:
            return None
        if lease.reused:
            # The server closed an idle connection: nobody's attempt. Without an answer no content was sent; and a 421
            # that comes first may have been on its way already.
            return call
        if lease.session.evidence.starttls_refused and not call.in_clear:
            # It closed the connection behind its refusal of STARTTLS, where nothing demands TLS.
            return replace(call, in_clear=lease.session.evidence.clear_because)
        return None

    def _begin(self, lease: Lease, todo: Sequence[int]) -> Transaction:
        recipients = self._tally.recipients(todo)
        transaction = Transaction(
            self._job.envelope,
            recipients,
            self._job.content,
            lease.session.capabilities,
            strict_eight_bit=self._rules.strict_eight_bit,
            lmtp=self._lmtp,
            used=lease.reused,
            session_codes=self._codes_about_the_session(lease),
        )
        self._under_way = (transaction, list(todo), lease)
        return transaction

    def _codes_about_the_session(self, lease: Lease) -> frozenset[int]:
        codes = self._session_codes or (_OUT_OF_SEQUENCE if lease.reused else frozenset())
        return codes | _TLS_FIRST if _is_without_its_tls(lease.session.evidence) else codes

    def _enter(self, transaction: Transaction, todo: Sequence[int], lease: Lease, lost: Exception | None) -> bool:
        """Write a transaction's results down. True if it left recipients for whom this address can do no more."""
        peer, security = lease.session.peer, lease.judgement.security
        for position, decision in transaction.decisions.items():
            self._enter_decision(todo[position], decision, lease)
        if len(transaction.decisions) == len(todo):
            return False
        failed = _lost_try(transaction, lease, security, lost)
        failed = replace(failed, transcript=self._transcript())
        if transaction.in_doubt:
            for position in transaction.accepted:
                self._tally.doubt(todo[position], failed)
        has_ended = lost is not None or transaction.farewell is not None
        positions = [*transaction.undecided, *(transaction.overflow if has_ended else ())]
        stranded = [todo[position] for position in positions if todo[position] in self._tally.pending]
        if stranded:
            self._emit(
                AddressFailed(
                    self._destination.next_hop,
                    peer.name,
                    peer.address,
                    failed.stage,
                    failed.reply,
                    message=self._message,
                )
            )
            self._tally.end(failed, stranded)
        return bool(positions)

    def _enter_decision(self, index: int, decision: Decision, lease: Lease) -> None:
        mx, address, security = lease.session.peer.name, lease.session.peer.address, lease.judgement.security
        reply = decision.reply if decision.is_ours else quote_reply(mx, decision.reply)
        dsn = lease.session.capabilities.dsn
        if reply.is_positive:
            self._tally.decide(index, decision.stage, reply, mx, address, security, dsn)
        elif decision.may_try_another:
            failed = FailedTry(Weight.MAIL, decision.stage, reply, mx, address, security, transcript=self._transcript())
            self.answered_here.add(index)
            self._tally.defer_transient(index, failed)
        else:
            self._tally.decide(index, decision.stage, reply, mx, address, security, dsn, self._transcript())

    def _transcript(self) -> Transcript | None:
        """What was said in the transaction that is under way, made once for all of its recipients."""
        if self._under_way is None:
            return None
        transaction = self._under_way[0]
        if self._told is None or self._told[0] is not transaction:
            self._told = transaction, transcript((*transaction.opening, *transaction.said))
        return self._told[1]

    def save_what_is_certain(self, reply: Reply, in_doubt: Reply, again_at: datetime | None = None) -> None:
        """After a bug, or cut off: replies that were read stand, a doubt stays a doubt, all else is deferred."""
        if self._under_way is not None:
            transaction, todo, lease = self._under_way
            peer, security = lease.session.peer, lease.judgement.security
            pending = set(self._tally.pending)
            for position, decision in transaction.decisions.items():
                if todo[position] in pending:
                    self._enter_decision(todo[position], decision, lease)
            doubt = FailedTry(Weight.CLOSED, TryResult.FINAL, in_doubt, peer.name, peer.address, security)
            doubt = replace(doubt, transcript=self._transcript())
            for position in transaction.accepted if transaction.in_doubt else ():
                if todo[position] in pending:
                    self._tally.doubt(todo[position], doubt)
        self._tally.defer_pending(reply, again_at)


def _is_without_its_tls(evidence: PeerEvidence) -> bool:
    """True on a connection in clear to a server that offers TLS, which failed or was refused."""
    why = evidence.clear_because
    not_there = (TLSProblemKind.STARTTLS_NOT_OFFERED, TLSProblemKind.STARTTLS_NOT_USED)
    return why is not None and why.kind not in not_there


def _why_tls_was_missing(transaction: Transaction, lease: Lease) -> str | None:
    """Why a server that takes nothing in clear got it in clear; None where that is not what it says."""
    reply, evidence = transaction.session_refusal, lease.session.evidence
    if reply is None or reply.code not in _TLS_FIRST or not _is_without_its_tls(evidence):
        return None
    return evidence.clear_reason


def _has_other_domains(call: ConnectRequest, transaction: Transaction) -> bool:
    """True if its recipients are not all of the domain that is the next hop: they go through a smarthost."""
    return any(each.mailbox.domain != call.next_hop for each in transaction.recipients)


def _lost_try(transaction: Transaction, lease: Lease, security: Security, lost: Exception | None) -> FailedTry:
    """Why a transaction left recipients undecided: a farewell in the server's words, or a lost connection."""
    mx, address = lease.session.peer.name, lease.session.peer.address
    stage = TryResult.DATA if transaction.content_sent else TryResult.MAIL
    if transaction.farewell is not None:
        reply = quote_reply(mx, transaction.farewell)
        return FailedTry(Weight.SERVER, stage, reply, mx, address, security)
    if transaction.session_refusal is not None:
        why, reply = _why_tls_was_missing(transaction, lease), judgement_of_us(mx, transaction.session_refusal)
        if why is not None:
            reply = Reply.make(451, "4.7.5", f"{reply.text}; and TLS failed: {why}"[:MAX_QUOTE])
        return FailedTry(Weight.SERVER, TryResult.MAIL, reply, mx, address, security)
    if transaction.in_doubt:
        text = f"{mx}: {_why_in_doubt(lost)} after the final dot, the message may have been delivered"
        return FailedTry(Weight.CLOSED, TryResult.FINAL, Reply.make(451, "4.4.2", text), mx, address, security)
    reply = broken_reply(mx, lost) if lost is not None else Reply.make(451, "4.4.2", f"{mx} closed the session")
    return FailedTry(Weight.CLOSED, stage, reply, mx, address, security)


def _why_in_doubt(lost: Exception | None) -> str:
    match lost:
        case DeadlineExceeded():
            return "no reply came in time"
        case OutOfStep():
            return f"the replies were out of step ({lost})"
        case _:
            return "the connection was lost"
