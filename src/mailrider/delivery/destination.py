"""One next hop, for one attempt: what is known about it, step by step.

`Destination` asks in the order that the specification gives: policies begin their lookups beside the MX lookup; a
candidate is admitted before anything is connected; its addresses come next, then the requirement that all policies and
the message make together. Whoever delivers and whoever explains go through this same door.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.delivery.mx import HostNotFound, Unroutable, find_candidates, find_host
from mailrider.model.domain import Domain
from mailrider.model.event import CandidatesFound, LookupDidFail, discard
from mailrider.model.route import Host
from mailrider.model.security import Refusal, strictest
from mailrider.model.tls_session import PoliciesSeen
from mailrider.policy.base import NOT_AWARDED, fold
from mailrider.policy.dane import NAME as DANE_NAME
from mailrider.policy.dane import BoundDANE
from mailrider.policy.sts.policy import NAME as STS_NAME
from mailrider.policy.sts.policy import BoundSTS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from random import Random

    from mailrider.clock import Clock
    from mailrider.delivery.mx import Address
    from mailrider.delivery.reach import Reach
    from mailrider.delivery.route_memory import RouteMemory
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate, Candidates
    from mailrider.model.security import Requirement
    from mailrider.policy.base import Admission, DestinationPolicy, Policy, Prepared


@dataclass(frozen=True, slots=True)
class Routing:
    """What finds hosts, the same for all destinations of a target.

    `is_own_address` tells the addresses of this machine (other than loopback) and those that reach it through NAT.
    `connect_timeout` in seconds.
    """

    resolver: Resolver
    rng: Random
    emit: Emit
    hostname: Domain | None
    is_own_address: Callable[[Address], bool]
    clock: Clock
    connect_timeout: float
    memory: RouteMemory
    reach: Reach
    force_ipv4: bool = False


class Destination:
    """A next hop for one message. `find` comes first; then `policies` are those that bind the message there."""

    def __init__(
        self, next_hop: NextHop, routing: Routing, policies: Sequence[Policy], message: Requirement, id: str = ""
    ) -> None:
        """`message`: what the message itself demands; `id`: how it is called."""
        self.next_hop = next_hop
        self._id = id
        self._routing = routing
        self._message = message
        self.policies: list[DestinationPolicy] = []
        self._told_of_tls = False
        self._beyond: tuple[Candidate, ...] = ()
        # By the host's name, as a string: that is hashed once for all messages, a value each time.
        self._hosts: dict[str, Host | HostNotFound] = {}
        self._budgets: dict[str, Budget] = {}
        self._configured = policies

    async def find(self) -> Candidates:
        """The candidates, best first; binds the policies to them. Raises `Unroutable`."""
        prepared: list[Prepared] = []
        try:
            prepared = [policy.prepare(self.next_hop) for policy in self._configured]
            candidates = self._routing.memory.candidates(self.next_hop) or await self._find_candidates()
        except BaseException as error:
            for policy in prepared:
                policy.cancel()
            if isinstance(error, Unroutable) and error.__cause__ is not None:
                self._routing.emit(LookupDidFail(str(self.next_hop), "MX", str(error), "deferred", message=self._id))
            raise
        for policy in prepared:
            bound = await policy.bind(candidates, self._id)
            if bound is not None:
                self.policies.append(bound)
        if self._routing.emit is not discard:
            self._routing.emit(CandidatesFound(candidates))
        self._beyond = candidates.beyond
        return candidates

    async def _find_candidates(self) -> Candidates:
        found = await find_candidates(self._routing.resolver, self.next_hop, self._routing.rng)
        self._routing.memory.keep_candidates(found)
        return found

    async def usable_group(self, group: Sequence[Candidate]) -> tuple[Candidate, ...] | None:
        """The candidates of one preference, unless one of them is ourselves: then None, and none worse either.

        RFC 5321 5.1: a relay drops itself and all of equal or worse preference, or mail would go round in circles.
        """
        hosts = await asyncio.gather(*map(self.host, group)) if len(group) > 1 else [await self.host(group[0])]
        for host in hosts:
            if isinstance(host, Host) and self._is_ourselves(host):
                return None
        # Those of the same preference that are not tried count, too, as far as their names tell.
        for candidate in (*group, *self._beyond):
            if candidate.host == self._routing.hostname and candidate.preference == group[0].preference:
                return None
        return tuple(group)

    def _is_ourselves(self, host: Host) -> bool:
        """RFC 5321 5.1: what a CNAME leads to counts as if it were the name itself."""
        alias_of_us = host.canonical is not None and host.canonical == self._routing.hostname
        return alias_of_us or any(map(self._routing.is_own_address, host.addresses))

    def budget(self, candidate: Candidate) -> Budget:
        """The time that looking up and connecting to this candidate may still take."""
        name = candidate.host.ascii
        budget = self._budgets.get(name)
        if budget is None:
            budget = self._budgets[name] = Budget(self._routing.clock, self._routing.connect_timeout)
        return budget

    async def host(self, candidate: Candidate) -> Host | HostNotFound:
        """The candidate's addresses, looked up once an attempt."""
        name = candidate.host.ascii
        known = self._hosts.get(name)
        if known is None:
            known = self._routing.memory.host(candidate) or await self._find_host(candidate)
            if isinstance(known, Host) and len(known.addresses) > 1:
                known = self._routing.reach.ordered(known)
            self._hosts[name] = known
        return known

    async def _find_host(self, candidate: Candidate) -> Host | HostNotFound:
        routing = self._routing
        with self.budget(candidate) as deadline:
            found = await find_host(routing.resolver, candidate, routing.clock, deadline, force_ipv4=routing.force_ipv4)
        if isinstance(found, Host):
            routing.memory.keep_host(found)
        elif found.reply.is_transient:
            name = str(candidate.host)
            routing.emit(LookupDidFail(name, "A, AAAA", found.reply.text, f"{name} is not used", message=self._id))
        return found

    async def admit(self, candidate: Candidate) -> Admission:
        """The highest MX level that a policy awards; the first refusal counts."""
        admission = NOT_AWARDED
        for policy in self.policies:
            admission = fold(admission, await policy.admit(candidate))
        return admission

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """What a connection to the host must prove: all policies' demands and the message's own."""
        total = self._message
        for policy in self.policies:
            demand = await policy.requirement(host)
            if isinstance(demand, Refusal):
                return demand
            total = strictest(total, demand)
        return total

    def policies_seen(self, candidate: Candidate) -> PoliciesSeen | None:
        """What TLS reports are told of the policies that bind here; None where no domain could be told of it."""
        if not isinstance(self.next_hop, Domain):
            return None
        asked = {policy.name for policy in self._configured}
        if not asked & {STS_NAME, DANE_NAME}:
            return None
        all_asked = asked >= {STS_NAME, DANE_NAME}
        sts = dane = None
        for policy in self.policies:
            if isinstance(policy, BoundSTS):
                sts = policy.seen(candidate)
                all_asked = all_asked and not (sts is None and policy.lookup.is_uncertain)
            elif isinstance(policy, BoundDANE):
                dane = policy.seen(candidate)
        return PoliciesSeen(self.next_hop.ascii, sts, dane, all_asked)

    async def tls_failed(self) -> None:
        """Tell the policies, once an attempt: one of them may have been replaced meanwhile (RFC 8461 5.1)."""
        if not self._told_of_tls:
            self._told_of_tls = True
            for policy in self.policies:
                await policy.tls_failed()


class Budget:
    """The seconds that a candidate's address lookup and connects may take together.

    `with budget as deadline: ...` lets its time run for the block; `deadline` is a reading of the clock.
    `with budget.share(steps) as deadline: ...` is for the first of so many steps: it leaves time to the others.
    """

    __slots__ = ("_clock", "_left", "_since")

    def __init__(self, clock: Clock, seconds: float) -> None:
        self._clock = clock
        self._left = seconds
        self._since = 0.0

    def __enter__(self) -> float:
        self._since = self._clock.monotonic()
        return self._since + self._left

    def __exit__(self, *_: object) -> None:
        self._left = max(0.0, self._left - (self._clock.monotonic() - self._since))

    @contextmanager
    def share(self, steps: int) -> Iterator[float]:
        """As the budget itself, with an even share of what is left: what a step does not use is the others'."""
        with self:
            yield self._since + self._left / steps
