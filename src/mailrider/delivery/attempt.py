"""One attempt at one next hop: every candidate and address in turn, until each recipient is decided.

The steps come from `Destination`, connections from `Connections`, what replies mean from `Transaction`, what it all
adds up to from `Tally`; here is only the order of things. It never raises for a mail reason. An exception that nobody
expected defers what is undecided, at one place.
"""

from __future__ import annotations

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Any

from mailrider.clock import is_cancelled
from mailrider.delivery.attempt_record import (
    BUG,
    CLOSED,
    INCOMPLETE,
    STOPPED,
    stopped_in_doubt,
)
from mailrider.delivery.attempt_transactions import AttemptTransactions
from mailrider.delivery.connection.connect import ConnectRequest
from mailrider.delivery.mx import HostNotFound, Unroutable, loop_through
from mailrider.delivery.race import Race
from mailrider.delivery.tally import FailedTry, Tally, Weight
from mailrider.errors import ShuttingDown
from mailrider.model.event import Bug
from mailrider.model.handover import CROWDED
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.security import Refusal, Security
from mailrider.smtp.content import IncompleteContent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.job import AttemptRules, Connections, DestinationLike, Job
    from mailrider.delivery.mx import Address
    from mailrider.model.envelope import Recipient
    from mailrider.model.event import Emit
    from mailrider.model.handover import Watcher
    from mailrider.model.outcome import Outcome
    from mailrider.model.route import Candidate, Host
    from mailrider.model.security import Requirement
    from mailrider.policy.base import Admission

MAX_ADDRESSES = 20  # that one attempt may try
MAX_DURATION = 900.0  # seconds after which no new candidate or address is begun: the queue tries again, fresher


class Attempt:
    """One job at one next hop."""

    def __init__(
        self,
        job: Job,
        recipients: Sequence[Recipient],
        destination: DestinationLike,
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
        self._recipients = recipients
        self._tally = Tally(recipients, job.security.requirement)
        self._destination = destination
        self._rules = rules
        self._clock = clock
        self._emit = emit
        self._transactions = AttemptTransactions(
            job, self._tally, destination, connections, rules, clock, emit, lmtp=lmtp, session_codes=session_codes
        )
        self._addresses_left = MAX_ADDRESSES
        self._watcher = watcher
        self._task: asyncio.Task[Any] | None = None
        self._visited: Address | None = None
        self._race: Race | None = None
        self._is_cut_off = False
        self._had_effect: bool | None = None  # once it is over

    @property
    def is_sending(self) -> bool:
        """True while content is sent, or the reply to it is waited for."""
        return self._transactions.is_sending

    @property
    def has_effect(self) -> bool:
        """True if a server may have the message, a recipient is decided, or it came to its own end."""
        if self._had_effect is not None:
            return self._had_effect
        return self._transactions.has_effect or self._tally.has_decided

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
                try:
                    if self._race is not None or self._visited is not None:
                        await self._leave()
                finally:
                    await self._destination.close()
        except Unroutable as error:
            self._tally.refuse_pending(error.reply)
        except asyncio.CancelledError as error:
            if self._is_cut_off and self._task is not None:
                self._task.uncancel()
                self._had_effect = self.has_effect
                peer = self._transactions.peer_name
                self._transactions.save_what_is_certain(STOPPED, stopped_in_doubt(peer), self._clock.now())
            elif is_cancelled():
                raise
            else:
                self._break_off(error)
        except ShuttingDown:
            self._transactions.save_what_is_certain(CLOSED, CLOSED)
        except Exception as error:
            self._break_off(error)
        return self._tally.conclude()

    def _break_off(self, error: BaseException) -> None:
        """The one place where the unexpected becomes an outcome: deferred, never a bounce."""
        self._emit(Bug(f"delivery to {self._destination.next_hop}", error, message=self._message))
        reply = INCOMPLETE if isinstance(error, IncompleteContent) else BUG
        self._transactions.save_what_is_certain(reply, reply)

    async def _run(self) -> None:
        self._transactions.ends_at = self._clock.monotonic() + MAX_DURATION
        candidates = await self._destination.find()
        for number, group in enumerate(candidates.groups):
            if not self._tally.pending:
                return
            usable = await self._destination.usable_group(group)
            if usable is None:
                if not number:
                    raise Unroutable(loop_through(group))
                return
            for candidate in usable:
                if not self._tally.pending:
                    return
                if self._is_spent:
                    self._transactions.record.end_unreached(candidate)
                    return
                self._transactions.answered_here = set()
                way = await self._approach(candidate)
                if way is not None:
                    await self._visit(*way)
                await self._leave()
        if candidates.beyond:
            self._transactions.record.end_unreached(candidates.beyond[0])

    @property
    def _is_spent(self) -> bool:
        """True if no further candidate or address is to be tried in this attempt."""
        return not self._addresses_left or self._clock.monotonic() > self._transactions.ends_at

    # A candidate -----------------------------------------------------------------------------------------------------

    async def _approach(self, candidate: Candidate) -> tuple[Host, Requirement, Admission] | None:
        """What a connection to a candidate must prove; None if it is refused or has no address."""
        admission = await self._destination.admit(candidate)
        own = self._job.security.requirement
        if admission.level < own.min_mx:
            # Nothing behind this could make up for it.
            self._transactions.record.refuse_level(candidate, admission, own)
            return None
        if admission.refusal is not None:
            self._transactions.record.refuse(candidate, None, admission.refusal, Security(admission.level))
            return None
        host = await self._destination.host(candidate)
        if isinstance(host, HostNotFound):
            self._tally.end(FailedTry(Weight.LOOKUP, TryResult.LOOKUP, host.reply, str(candidate.host)))
            return None
        requirement = await self._destination.requirement(host)
        if isinstance(requirement, Refusal):
            self._transactions.record.refuse(candidate, None, requirement, Security(admission.level))
            return None
        if admission.level < requirement.min_mx:
            self._transactions.record.refuse_level(candidate, admission, requirement)
            return None
        return host, requirement, admission

    async def _visit(self, host: Host, requirement: Requirement, admission: Admission) -> None:
        """Try its addresses, as they become known, until there is no point in trying further ones."""
        mx, late = host.candidate.host, self._destination.late_addresses(host.candidate)
        addresses: Sequence[Address] = host.addresses
        local_ip = self._rules.local_ip
        if local_ip is not None:
            addresses = [each for each in addresses if each.version == local_ip.version]
            if addresses:
                late = None  # the other family, then
        several = len(addresses) > 1 or late is not None
        race = self._race = Race(addresses, self._clock, self._rules.prohibits, late) if several else None
        if not addresses and not await self._has_more(host.candidate):
            text = f"{mx} has no address of the family of local_ip"
            self._tally.end(FailedTry(Weight.CONNECT, TryResult.CONNECT, Reply.make(451, "4.4.1", text), str(mx)))
        while True:
            for call in self._calls(host, addresses if race is None else race.turns(), requirement, admission):
                if not self._arrive(call.address) or await self._transactions.try_address(call):
                    return
            if self._is_spent or not self._transactions.todo or not await self._has_more(host.candidate):
                return

    async def _has_more(self, candidate: Candidate) -> bool:
        """Wait for late addresses, in the time that looking them up and connecting has."""
        if self._race is None:
            return False
        with self._destination.budget(candidate):
            return await self._race.has_more()

    def _calls(
        self, host: Host, addresses: Iterable[Address], requirement: Requirement, admission: Admission
    ) -> Iterator[ConnectRequest]:
        """A call for each address, made when it is its turn, as long as somebody is left to be answered."""
        mx, race = host.candidate.host, self._race
        budget = self._destination.budget(host.candidate)
        for address in addresses:
            if self._is_spent:
                self._transactions.record.end_unreached(host.candidate)
                return
            self._addresses_left -= 1
            if self._rules.prohibits(address):
                text = f"{mx} has the address {address}, which must not be connected to (prohibited_addresses)"
                self._transactions.record.fail_address(
                    FailedTry(
                        Weight.CONNECT, TryResult.PROHIBITED, Reply.make(451, "4.4.1", text), str(mx), str(address)
                    )
                )
                continue
            left = 1 if race is None else race.left + 1
            note = self._tally.note
            seen = partial(self._transactions.policies_seen, host.candidate) if self._rules.reports_tls else None
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
                recipients=self._recipients,
            )
            if not self._transactions.todo:
                return

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
        self._tally.defer_pending(CROWDED, come_again)
        return False

    async def _leave(self) -> None:
        """The attempt is done with a candidate: it is at none of its addresses, and no connection to it is begun."""
        if self._watcher is not None and self._visited is not None:
            self._watcher.leave(self._visited)
            self._visited = None
        race, self._race = self._race, None
        if race is not None:
            await race.close()
