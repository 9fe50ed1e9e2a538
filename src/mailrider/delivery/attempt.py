"""One attempt at one next hop: every candidate and address in turn, until each recipient is decided.

The steps come from `Destination`, connections from `Connections`, what replies mean from `Transaction`, what it all
adds up to from `Tally`; here is only the order of things. It never raises for a mail reason. An exception that nobody
expected defers what is undecided, at one place.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol

from mailrider.delivery.connection.connect import ConnectRequest
from mailrider.delivery.connection.said import transcript
from mailrider.delivery.connection.unusable import ComeAgain, Unusable, broken_reply, judgement_of_us
from mailrider.delivery.mx import LOOP, HostNotFound, Unroutable, preference_groups
from mailrider.delivery.race import Overtaken, Race
from mailrider.delivery.tally import FailedTry, Tally, Weight
from mailrider.errors import DeadlineExceeded, ShuttingDown
from mailrider.model.event import AddressFailed, Bug, CandidateRefused
from mailrider.model.handover import CROWDED
from mailrider.model.outcome import TryResult
from mailrider.model.reply import MAX_QUOTE, EnhancedCode, Reply, quote_reply
from mailrider.model.security import Refusal, Security
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import TLSHostRefused
from mailrider.model.value import value
from mailrider.smtp.client import InjectedPlaintext, OutOfStep
from mailrider.smtp.transaction import Decision, Transaction

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from contextlib import AbstractAsyncContextManager
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.delivery.connection.peer import Peer
    from mailrider.delivery.destination import Budget
    from mailrider.delivery.mx import Address
    from mailrider.model.domain import NextHop
    from mailrider.model.envelope import Envelope, Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Watcher
    from mailrider.model.outcome import Outcome
    from mailrider.model.route import Candidate, Candidates, Host
    from mailrider.model.security import PeerEvidence, Requirement
    from mailrider.model.tls_session import PoliciesSeen
    from mailrider.model.transcript import Transcript
    from mailrider.policy.base import Admission
    from mailrider.policy.judge import Judgement
    from mailrider.policy.requiretls import MessageSecurity
    from mailrider.smtp.capabilities import Capabilities
    from mailrider.smtp.content import Content

MAX_ADDRESSES = 20  # that one attempt may try
MAX_DURATION = 900.0  # seconds after which no new candidate or address is begun: the queue tries again, fresher

BUG = Reply.make(451, "4.3.0", "Internal error")
CLOSED = Reply.make(451, "4.3.2", "Closed before the message could be sent")
STOPPED = Reply.make(451, "4.3.2", "This server is shutting down")
NOT_REACHED = Reply.make(451, "4.4.1", "Not every mail server of the domain could be tried in one attempt")
NOT_COUNTED = Reply.make(451, "4.3.0", "Nobody counts connections at the moment; it will be tried again")
NO_TIME = Reply.make(451, "4.4.1", "The mail server is too slow for all recipients in one attempt")
NO_EXTENSION = Reply.make(550, "5.7.30", "REQUIRETLS is not supported by the recipient's mail server")


class Carrier(Protocol):
    """What an attempt needs of a session."""

    @property
    def peer(self) -> Peer: ...
    @property
    def evidence(self) -> PeerEvidence: ...
    @property
    def capabilities(self) -> Capabilities: ...
    async def transact(self, transaction: Transaction, content: Content) -> Exception | None: ...


class Lease(Protocol):
    """A judged connection, ours until the end of the `async with` that gave it. `reused`: it carried others before."""

    @property
    def session(self) -> Carrier: ...
    @property
    def judgement(self) -> Judgement: ...
    @property
    def reused(self) -> bool: ...

    def give_up(self, *, wants_tls: bool = False, knows_no_chunks: bool = False) -> None:
        """The connection is not to be used again. `wants_tls`: the server takes nothing in clear, `knows_no_chunks`:
        it does not know BDAT."""


class Guide(Protocol):
    """Knows the hosts of a next hop and what they must prove; `destination.Destination` is the one that asks DNS."""

    @property
    def next_hop(self) -> NextHop: ...
    async def find(self) -> Candidates: ...
    async def usable_group(self, group: Sequence[Candidate]) -> tuple[Candidate, ...] | None: ...
    async def admit(self, candidate: Candidate) -> Admission: ...
    async def host(self, candidate: Candidate) -> Host | HostNotFound: ...
    def budget(self, candidate: Candidate) -> Budget: ...
    async def requirement(self, host: Host) -> Requirement | Refusal: ...
    def policies_seen(self, candidate: Candidate) -> PoliciesSeen | None: ...
    async def tls_failed(self) -> None: ...


class Connections(Protocol):
    """Where connections come from."""

    def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AbstractAsyncContextManager[Lease]:
        """A connection for the call, a new one if `fresh`. Entering raises `Unusable` and `ComeAgain`."""


@value
class Job:
    """What is to be delivered: the same for all next hops of a message."""

    envelope: Envelope
    content: Content
    security: MessageSecurity


@dataclass(frozen=True, slots=True)
class AttemptRules:
    """What a target's configuration says about all of its attempts.

    `local_ip`: the source address; addresses of another family cannot be used. `prohibits` tells the addresses that are
    never connected to. `reports_tls`: TLS reports are told what new connections show (RFC 8460).
    """

    strict_eight_bit: bool = False
    local_ip: Address | None = None
    prohibits: Callable[[Address], bool] = lambda _: False
    reports_tls: bool = False


class Attempt:
    """One job at one next hop."""

    def __init__(
        self,
        job: Job,
        recipients: Sequence[Recipient],
        destination: Guide,
        connections: Connections,
        rules: AttemptRules,
        clock: Clock,
        emit: Emit,
        watcher: Watcher | None = None,
        *,
        lmtp: bool = False,
        session_codes: frozenset[int] = frozenset(),
        slots: int | None = None,
    ) -> None:
        """`watcher`: who is told where it is. `slots`: see `Watcher.arrive`."""
        self._job = job
        self._message = job.envelope.id
        self._slots = slots
        self._tally = Tally(recipients, job.security.requirement)
        self._destination = destination
        self._connections = connections
        self._rules = rules
        self._clock = clock
        self._emit = emit
        self._lmtp = lmtp
        self._session_codes = session_codes
        self._addresses_left = MAX_ADDRESSES
        self._began = 0.0
        self._watcher = watcher
        self._task: asyncio.Task[Any] | None = None
        self._visited: Address | None = None
        self._answered_here: set[int] = set()
        self._race: Race | None = None
        self._under_way: tuple[Transaction, list[int], Lease] | None = None
        self._told: tuple[Transaction, Transcript | None] | None = None
        self._is_cut_off = False
        self._had_effect: bool | None = None  # once it is over

    @property
    def is_sending(self) -> bool:
        """True while content is sent, or the reply to it is waited for."""
        return self._under_way is not None and self._under_way[0].content_sent

    @property
    def has_effect(self) -> bool:
        """True if a server may have the message, a recipient is decided, or it came to its own end."""
        if self._had_effect is not None:
            return self._had_effect
        in_transaction = self._under_way is not None and bool(self._under_way[0].decisions)
        return self.is_sending or in_transaction or self._tally.has_decided

    def cut_off(self) -> None:
        """End it now.

        It still reports: replies that were read stand, and what a server may have taken is in doubt.
        """
        if self._task is not None and not self._is_cut_off:
            self._is_cut_off = True
            self._task.cancel()

    async def run(self) -> tuple[Outcome, ...]:
        """The outcomes, in the order of the recipients."""
        watcher = self._watcher
        if watcher is None:
            return await self._conclude()
        self._task = asyncio.current_task()
        watcher.began(self)
        try:
            outcomes = await self._conclude()
            if self._had_effect is None:
                self._had_effect = True
            return outcomes
        finally:
            watcher.ended(self)

    async def _conclude(self) -> tuple[Outcome, ...]:
        """Run to the end, whatever happens."""
        try:
            try:
                await self._run()
            finally:
                if self._race is not None or self._visited is not None:
                    await self._leave()
        except Unroutable as error:
            self._tally.refuse_pending(error.reply)
        except asyncio.CancelledError:
            if not self._is_cut_off or self._task is None:
                raise
            self._task.uncancel()
            self._had_effect = self.has_effect
            peer = "" if self._under_way is None else self._under_way[2].session.peer.name
            self._save_what_is_certain(STOPPED, _stopped_in_doubt(peer), self._clock.now())
        except ShuttingDown:
            self._save_what_is_certain(CLOSED, CLOSED)
        except Exception as error:
            # The one place where the unexpected becomes an outcome: deferred, never a bounce.
            self._emit(Bug(f"delivery to {self._destination.next_hop}", error, message=self._message))
            self._save_what_is_certain(BUG, BUG)
        return self._tally.conclude()

    async def _run(self) -> None:
        self._began = self._clock.monotonic()
        candidates = await self._destination.find()
        for number, group in enumerate(preference_groups(candidates)):
            if not self._tally.pending:
                return
            usable = await self._destination.usable_group(group)
            if usable is None:
                if not number:
                    raise Unroutable(LOOP)
                return
            for candidate in usable:
                if not self._tally.pending:
                    return
                if self._is_spent:
                    self._end_unreached(candidate)
                    return
                self._answered_here = set()
                for call in await self._approach(candidate):
                    if not self._arrive(call.address) or await self._try_address(call, candidate):
                        break
                await self._leave()
        if candidates.beyond:
            self._end_unreached(candidates.beyond[0])

    @property
    def _is_spent(self) -> bool:
        """True if no further candidate or address is to be tried in this attempt."""
        return not self._addresses_left or self._clock.monotonic() - self._began > MAX_DURATION

    def _end_unreached(self, candidate: Candidate) -> None:
        """What was not asked has not said no."""
        self._tally.end(FailedTry(Weight.LOOKUP, TryResult.CONNECT, NOT_REACHED, str(candidate.host)))

    @property
    def _todo(self) -> list[int]:
        """The recipients that this candidate has not answered yet."""
        pending, answered = self._tally.pending, self._answered_here
        return [index for index in pending if index not in answered] if answered else list(pending)

    # A candidate -----------------------------------------------------------------------------------------------------

    async def _approach(self, candidate: Candidate) -> Iterable[ConnectRequest]:
        """The calls that a candidate is worth; none if it is refused or has no address."""
        admission = await self._destination.admit(candidate)
        own = self._job.security.requirement
        if admission.level < own.min_mx:
            # Nothing behind this could make up for it.
            self._refuse_level(candidate, admission, own)
            return ()
        if admission.refusal is not None:
            self._refuse(candidate, None, admission.refusal, Security(admission.level))
            return ()
        host = await self._destination.host(candidate)
        if isinstance(host, HostNotFound):
            self._tally.end(FailedTry(Weight.LOOKUP, TryResult.LOOKUP, host.reply, str(candidate.host)))
            return ()
        requirement = await self._destination.requirement(host)
        if isinstance(requirement, Refusal):
            self._refuse(candidate, None, requirement, Security(admission.level))
            return ()
        if admission.level < requirement.min_mx:
            self._refuse_level(candidate, admission, requirement)
            return ()
        return self._calls(host, requirement, admission)

    def _calls(self, host: Host, requirement: Requirement, admission: Admission) -> Iterator[ConnectRequest]:
        """A call for each address, made when it is its turn, as long as somebody is left to be answered."""
        mx = host.candidate.host
        budget = self._destination.budget(host.candidate)
        addresses: Sequence[Address] = host.addresses
        local_ip = self._rules.local_ip
        if local_ip is not None:
            addresses = [each for each in addresses if each.version == local_ip.version]
        if not addresses:
            text = f"{mx} has no address of the family of local_ip"
            self._tally.end(FailedTry(Weight.CONNECT, TryResult.CONNECT, Reply.make(451, "4.4.1", text), str(mx)))
        race = self._race = Race(addresses, self._clock, self._rules.prohibits) if len(addresses) > 1 else None
        for address in race.turns() if race is not None else addresses:
            if self._is_spent:
                self._end_unreached(host.candidate)
                return
            self._addresses_left -= 1
            if self._rules.prohibits(address):
                text = f"{mx} has the address {address}, which must not be connected to (prohibited_addresses)"
                self._fail_address(
                    FailedTry(
                        Weight.CONNECT, TryResult.PROHIBITED, Reply.make(451, "4.4.1", text), str(mx), str(address)
                    )
                )
                continue
            left = 1 if race is None else race.left + 1
            note = self._tally.note
            seen = partial(self._policies_seen, host.candidate) if self._rules.reports_tls else None
            yield ConnectRequest(
                self._destination.next_hop,
                host.candidate,
                address,
                requirement,
                admission.level,
                budget,
                note,
                left,
                race,
                None,
                seen,
                message=self._message,
            )
            if not self._todo:
                return

    def _policies_seen(self, candidate: Candidate) -> PoliciesSeen | None:
        """What TLS reports are told of the policies; None for what they are never told of."""
        # Reports about the delivery of reports would go on for ever (RFC 8460 5.3 names the header field).
        if not self._rules.reports_tls or self._job.content.header_fields("TLS-Report-Submitter"):
            return None
        return self._destination.policies_seen(candidate)

    def _tell_refused(self, candidate: Candidate, problems: Iterable[TLSProblem]) -> None:
        """Tell TLS reports of a candidate that is not connected to."""
        problem = next((each for each in problems if each.kind in _REPORTED), None)
        policies = None if problem is None else self._policies_seen(candidate)
        if problem is not None and policies is not None:
            self._emit(TLSHostRefused(policies, str(candidate.host), problem))

    # An address ------------------------------------------------------------------------------------------------------

    def _arrive(self, address: Address) -> bool:
        """Count the attempt at that address, and no longer at the one before.

        False if there are too many already: then all that is left comes again.
        """
        if self._watcher is None:
            return True
        if self._visited is not None:
            self._watcher.leave(self._visited)
            self._visited = None
        come_again = self._watcher.arrive(address, self._slots)
        if come_again is None:
            self._visited = address
            return True
        self._tally.hold_back_pending(CROWDED, come_again)
        return False

    async def _leave(self) -> None:
        """The attempt is done with a candidate: it is at none of its addresses, and no connection to it is begun."""
        if self._watcher is not None and self._visited is not None:
            self._watcher.leave(self._visited)
            self._visited = None
        race, self._race = self._race, None
        if race is not None:
            await race.close()

    async def _try_address(self, call: ConnectRequest, candidate: Candidate) -> bool:
        """True if there is no point in trying further addresses of this candidate."""
        todo = self._todo
        needs_extension = self._job.security.needs_extension
        fresh = False
        while todo:
            try:
                async with self._connections.lease(call, fresh=fresh) as lease:
                    refusal = lease.judgement.refusal
                    if refusal is None and needs_extension and not lease.session.capabilities.requiretls:
                        if lease.reused:
                            fresh = True  # a refusal for good rests on what the server says now
                            continue
                        self._end_unqualified(call, NO_EXTENSION, lease.judgement.security)
                        return True
                    if refusal is None:
                        transaction = self._begin(lease, todo)
                        lost = await lease.session.transact(transaction, self._job.content)
                        if not transaction.reusable:
                            wants_tls = _why_tls_was_missing(transaction, lease) is not None
                            lease.give_up(wants_tls=wants_tls, knows_no_chunks=transaction.knows_no_chunks)
            except Overtaken:
                return False  # it comes again, behind the others
            except ComeAgain as error:
                self._tally.hold_back_pending(NOT_COUNTED, self._clock.now() + timedelta(seconds=error.seconds))
                return True
            except Unusable as error:
                self._end_unusable(call, error)
                if error.stage is TryResult.TLS:
                    await self._destination.tls_failed()
                return isinstance(error.__cause__, InjectedPlaintext)
            if refusal is not None:
                # Behind the lease: nobody else should have to wait while a policy is looked up again.
                self._refuse(candidate, str(call.address), refusal, lease.judgement.security)
                await self._destination.tls_failed()
                # Without TLS this address is unusable; a certificate that was judged speaks for the whole host.
                return lease.session.evidence.tls is not None
            fresh = False
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
            if not transaction.overflow:
                return True
            todo = [todo[index] for index in transaction.overflow]
            if self._clock.monotonic() - self._began > MAX_DURATION:
                mx, address, security = str(call.mx), str(call.address), lease.judgement.security
                self._tally.end(FailedTry(Weight.CLOSED, TryResult.RCPT, NO_TIME, mx, address, security), todo)
                return True
        return True

    def _left_for_data(self, transaction: Transaction, todo: Sequence[int], lease: Lease) -> list[int]:
        """Those whom a server that does not know BDAT is sent the message for by DATA, on a new connection."""
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

    # What it means ---------------------------------------------------------------------------------------------------

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
        reply = quote_reply(mx, _with_status(decision.reply)) if not decision.is_ours else decision.reply
        if decision.may_try_another:
            failed = FailedTry(Weight.MAIL, decision.stage, reply, mx, address, security, transcript=self._transcript())
            self._answered_here.add(index)
            self._tally.defer_transient(index, failed)
        else:
            dsn = lease.session.capabilities.dsn
            said = None if reply.is_positive else self._transcript()
            self._tally.decide(index, decision.stage, reply, mx, address, security, dsn, said)

    def _transcript(self) -> Transcript | None:
        """What was said in the transaction that is under way, made once for all of its recipients."""
        if self._under_way is None:
            return None
        transaction = self._under_way[0]
        if self._told is None or self._told[0] is not transaction:
            self._told = transaction, transcript((*transaction.opening, *transaction.said))
        return self._told[1]

    def _refuse(self, candidate: Candidate, address: str | None, refusal: Refusal, security: Security) -> None:
        """A policy's refusal; for a REQUIRETLS message the levels it demands are permanent."""
        mx, stage = str(candidate.host), TryResult.REFUSED_BY_POLICY
        self._emit(CandidateRefused(self._destination.next_hop, mx, address, refusal, message=self._message))
        if address is None:
            self._tell_refused(candidate, refusal.problems)
        own = self._job.security.requirement
        is_judged = address is not None
        if is_judged and not refusal.for_now and not security.satisfies(own):
            reply = _not_qualified(mx, refusal.reason)
            self._tally.end(FailedTry(Weight.POLICY, stage, reply, mx, address, security, requiretls=True))
            return
        reply = Reply.make(refusal.code, refusal.enhanced, f"{mx} refused by policy: {refusal.reason}")
        self._tally.end(FailedTry(Weight.POLICY, stage, reply, mx, address, security))

    def _refuse_level(self, candidate: Candidate, admission: Admission, requirement: Requirement) -> None:
        """The MX minimum is checked before connecting."""
        mx, security = str(candidate.host), Security(admission.level)
        demanded = f"{requirement.mx_reason} demands {requirement.min_mx}"
        doubt, refused = admission.doubt, admission.refusal
        why = doubt.text if doubt else refused.reason if refused else ""
        for_now = doubt is not None or (refused is not None and refused.for_now)
        text = f"MX level {admission.level}, {demanded}" + (f"; {why}" if why else "")
        problem = doubt or TLSProblem(TLSProblemKind.MX_LEVEL, text)
        problems = refused.problems if doubt is None and refused is not None else (problem,)
        refusal = Refusal(requirement.mx_reason, 451, "4.7.0", text, for_now, problems)
        self._emit(CandidateRefused(self._destination.next_hop, mx, None, refusal, message=self._message))
        self._tell_refused(candidate, refused.problems if refused is not None else ())
        stage = TryResult.REFUSED_BY_POLICY
        if admission.level < self._job.security.requirement.min_mx and not for_now:
            reply = _not_qualified(mx, text)
            self._tally.end(FailedTry(Weight.POLICY, stage, reply, mx, None, security, requiretls=True))
            return
        reply = Reply.make(451, "4.7.0", f"{mx} refused by policy: {text}")
        self._tally.end(FailedTry(Weight.POLICY, stage, reply, mx, None, security))

    def _end_unqualified(self, call: ConnectRequest, reply: Reply, security: Security) -> None:
        mx, address = str(call.mx), str(call.address)
        problem = TLSProblem(TLSProblemKind.NO_REQUIRETLS, reply.text)
        refusal = Refusal("requiretls", reply.code, str(reply.status), reply.text, problems=(problem,))
        self._emit(CandidateRefused(self._destination.next_hop, mx, address, refusal, message=self._message))
        stage = TryResult.REFUSED_BY_POLICY
        self._tally.end(FailedTry(Weight.POLICY, stage, reply, mx, address, security, requiretls=True))

    def _end_unusable(self, call: ConnectRequest, error: Unusable) -> None:
        weight = Weight.SERVER if error.refusal is not None else _WEIGHT.get(error.stage, Weight.CLOSED)
        # RFC 7504: 521 says that there is no mail service here at all; permanent if every candidate says so.
        greeted_521 = error.stage is TryResult.GREETING and error.refusal is not None and error.refusal.code == 521
        if_all = error.refusal if greeted_521 else None
        failed = FailedTry(
            weight,
            error.stage,
            error.reply,
            str(call.mx),
            str(call.address),
            if_all=if_all,
            transcript=transcript(error.said),
        )
        self._fail_address(failed, error.problem)

    def _fail_address(self, failed: FailedTry, problem: TLSProblem | None = None) -> None:
        self._emit(
            AddressFailed(
                self._destination.next_hop,
                failed.mx,
                failed.address,
                failed.stage,
                failed.reply,
                problem,
                message=self._message,
            )
        )
        self._tally.end(failed)

    def _save_what_is_certain(self, reply: Reply, in_doubt: Reply, again_at: datetime | None = None) -> None:
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


def _stopped_in_doubt(mx: str) -> Reply:
    return Reply.make(451, "4.4.2", f"{mx}: we stopped before its reply to the final dot; it may have the message")


def _not_qualified(mx: str, why: str) -> Reply:
    """RFC 8689 5, 7: the sender, who demanded it, is told what was missing."""
    return Reply.make(550, "5.7.10", f"REQUIRETLS: {mx} does not reach the levels that it demands: {why}")


# What a policy refuses a host for before anything is connected to, and the domain's owner can mend.
_REPORTED = frozenset({TLSProblemKind.MX_NOT_IN_POLICY, TLSProblemKind.TLSA_LOOKUP_FAILED})
_TLS_FIRST = frozenset({530})  # RFC 3207 4; it says nothing of the message where TLS was there, and has failed
_OUT_OF_SEQUENCE = frozenset({503})  # on a kept connection it can only mean that the session was forgotten
_WEIGHT = {TryResult.CONNECT: Weight.CONNECT, TryResult.TLS: Weight.TLS}


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


def _lost_try(transaction: Transaction, lease: Lease, security: Security, lost: Exception | None) -> FailedTry:
    """Why a transaction left recipients undecided: a farewell in the server's words, or a lost connection."""
    mx, address = lease.session.peer.name, lease.session.peer.address
    stage = TryResult.DATA if transaction.content_sent else TryResult.MAIL
    if transaction.farewell is not None:
        reply = quote_reply(mx, _with_status(transaction.farewell))
        return FailedTry(Weight.SERVER, stage, reply, mx, address, security)
    if transaction.session_refusal is not None:
        why, reply = _why_tls_was_missing(transaction, lease), judgement_of_us(mx, transaction.session_refusal)
        if why is not None:
            reply = Reply.make(451, "4.7.5", f"{reply.text}; and TLS failed: {why}"[:MAX_QUOTE])
        return FailedTry(Weight.SERVER, TryResult.MAIL, reply, mx, address, security)
    if transaction.in_doubt:
        text = f"{mx}: {_why_in_doubt(lost)} behind the final dot, the message may have been delivered"
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


def _with_status(reply: Reply) -> Reply:
    """Every outcome has an enhanced code: the class alone where the server gave none (RFC 3463 3)."""
    return reply if reply.enhanced else Reply(reply.code, EnhancedCode(reply.status.klass, 0, 0), reply.lines)
