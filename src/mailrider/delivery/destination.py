"""One next hop, for one attempt: what is known about it, step by step.

`Destination` asks in the order that the specification gives: policies begin their lookups beside the MX lookup; a
candidate is admitted before anything is connected; its addresses come next, then the requirement that all policies and
the message make together. Deliveries and explanations both use it.

Most mail goes where other mail just went. So a `RouteMemory` has the candidates and hosts that were made of DNS
answers, each until the first of these expires, or others are asked. Where chance has a say (candidates of equal
preference are shuffled for every message, RFC 5321 5.1), nothing is remembered. Policies are asked each time.
"""

from __future__ import annotations

import asyncio
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from mailrider.delivery.mx import HostNotFound, LateAddresses, Unroutable, find_candidates, find_host
from mailrider.dns.answer import RecordType
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.domain import Domain
from mailrider.model.event import CandidatesFound, LookupDidFail, discard
from mailrider.model.route import Host
from mailrider.model.security import NO_REQUIREMENT, Refusal, strictest
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
    from mailrider.delivery.race import AddressHistory
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import NextHop
    from mailrider.model.event import Emit
    from mailrider.model.route import Candidate, Candidates
    from mailrider.model.security import Requirement
    from mailrider.policy.base import Admission, DestinationPolicy, Policy, PreparedPolicy


MAX_KEPT = 10_000  # of each kind

T = TypeVar("T")


class _Known(NamedTuple, Generic[T]):
    """What was made of DNS answers; it holds `until` then, while the resolver counts as many `changes`."""

    value: T
    until: float
    changes: int


class RouteMemory:
    """Candidates by next hop, and hosts by candidate, as earlier attempts have found them."""

    def __init__(self, resolver: Resolver, clock: Clock, *, force_ipv4: bool) -> None:
        self._resolver = resolver
        self._clock = clock
        self._families = (RecordType.A,) if force_ipv4 else (RecordType.AAAA, RecordType.A)
        self._candidates: BoundedMap[str, _Known[Candidates]] = BoundedMap(MAX_KEPT)
        self._hosts: BoundedMap[tuple[str, int], _Known[Host]] = BoundedMap(MAX_KEPT)

    def candidates(self, next_hop: NextHop) -> Candidates | None:
        """The candidates of a next hop, if their MX answer still holds."""
        known = self._candidates.get(next_hop.ascii)
        return None if known is None or not self._holds(known) else known.value

    def keep_candidates(self, candidates: Candidates) -> None:
        """Remember them, if there is an answer to hold them to and nothing to shuffle."""
        next_hop = candidates.next_hop
        if not isinstance(next_hop, Domain):
            return
        answer = self._resolver.cached(next_hop, RecordType.MX)
        is_fixed = len(candidates.groups) == len(candidates.candidates) and not candidates.beyond
        if answer is not None and is_fixed:
            self._candidates[next_hop.ascii] = _Known(candidates, answer.expires, self._resolver.changes)

    def host(self, candidate: Candidate) -> Host | None:
        """The host of a candidate, if its address answers still hold."""
        known = self._hosts.get((candidate.host.ascii, candidate.preference))
        return None if known is None or not self._holds(known) else known.value

    def keep_host(self, host: Host, until: float) -> None:
        """Remember it until then at most.

        Not an alias, whose own record may change alone, nor if the resolver's cache has not all of it.
        """
        name = host.candidate.host
        if not isinstance(name, Domain) or host.canonical is not None or host.doubt:
            return
        for family in self._families:
            answer = self._resolver.cached(name, family)
            if answer is None:
                return
            until = min(until, answer.expires)
        self._hosts[name.ascii, host.candidate.preference] = _Known(host, until, self._resolver.changes)

    def _holds(self, known: _Known[T]) -> bool:
        return known.changes == self._resolver.changes and self._clock.monotonic() < known.until


@dataclass(frozen=True, slots=True)
class Routing:
    """What finds hosts, the same for all destinations of a target.

    `is_own_address` tells the addresses of this machine (other than loopback) and those that reach it through NAT, and
    until when it knows.
    `connect_timeout` in seconds.
    """

    resolver: Resolver
    rng: Random
    emit: Emit
    hostname: Domain | None
    is_own_address: Callable[[Address], tuple[bool, float]]
    clock: Clock
    connect_timeout: float
    memory: RouteMemory
    address_history: AddressHistory
    force_ipv4: bool = False


class Destination:
    """A next hop for one message. `find` comes first; then `policies` are those that bind the message there."""

    def __init__(
        self,
        next_hop: NextHop,
        routing: Routing,
        policies: Sequence[Policy],
        message: Requirement,
        id: str = "",
        *,
        waits_for_all: bool = False,
    ) -> None:
        """`message`: what the message itself demands; `id`: how it is called.

        `waits_for_all`: a host is known when all of its addresses are; otherwise some may be late.
        """
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
        self._waits_for_all = waits_for_all
        self._late: LateAddresses | None = None  # made when the first address lookup needs it

    async def find(self) -> Candidates:
        """The candidates, best first; binds the policies to them. Raises `Unroutable`."""
        prepared: list[PreparedPolicy] = []
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
            if isinstance(host, Host) and host.is_ourselves:
                return None
        # Those of the same preference that are not tried count, too, as far as their names tell.
        for candidate in (*group, *self._beyond):
            if candidate.host == self._routing.hostname and candidate.preference == group[0].preference:
                return None
        return tuple(group)

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
                known = self._routing.address_history.ordered(known)
            self._hosts[name] = known
        return known

    async def _find_host(self, candidate: Candidate) -> Host | HostNotFound:
        routing = self._routing
        with self.budget(candidate) as deadline:
            found = await find_host(
                routing.resolver,
                candidate,
                routing.clock,
                deadline,
                force_ipv4=routing.force_ipv4,
                late=self._late_ones(),
            )
        if isinstance(found, Host):
            found, until = self._look_for_ourselves(found)
            if self.late_addresses(candidate) is None:
                routing.memory.keep_host(found, until)
        elif found.reply.is_transient:
            name = str(candidate.host)
            routing.emit(LookupDidFail(name, "A, AAAA", found.reply.text, f"{name} is not used", message=self._id))
        return found

    def _late_ones(self) -> LateAddresses | None:
        if self._late is None and not self._waits_for_all:
            routing, dane = self._routing, any(policy.name == DANE_NAME for policy in self._configured)
            is_ours = routing.is_own_address
            self._late = LateAddresses(routing.resolver, routing.clock, dane=dane, is_ours=lambda it: is_ours(it)[0])
        return self._late

    def late_addresses(self, candidate: Candidate) -> asyncio.Future[tuple[Address, ...]] | None:
        """The addresses of the candidate that are not known yet; None if all are."""
        return None if self._late is None else self._late.of(candidate)

    async def close(self) -> None:
        """End the lookups that are not needed any more."""
        if self._late is not None:
            await self._late.close()

    def _look_for_ourselves(self, host: Host) -> tuple[Host, float]:
        """Whether the host is ourselves, and until when that is known.

        RFC 5321 5.1: what a CNAME leads to counts as if it were the name itself.
        """
        answers = [self._routing.is_own_address(each) for each in host.addresses]
        is_alias_of_us = host.canonical is not None and host.canonical == self._routing.hostname
        is_ourselves = is_alias_of_us or any(is_ours for is_ours, _ in answers)
        return replace(host, is_ourselves=is_ourselves), min(until for _, until in answers)

    async def admit(self, candidate: Candidate) -> Admission:
        """The highest MX level that a policy awards; the first refusal counts."""
        admission = NOT_AWARDED
        for policy in self.policies:
            admission = fold(admission, await policy.admit(candidate))
        return admission

    async def requirement(self, host: Host) -> Requirement | Refusal:
        """What a connection to the host must prove: all policies' demands and the message's own."""
        demands = [self._message]
        for policy in self.policies:
            demand = await policy.requirement(host)
            if isinstance(demand, Refusal):
                return demand
            demands.append(demand)
        # Most say nothing.
        return reduce(strictest, [each for each in demands if each is not NO_REQUIREMENT] or [NO_REQUIREMENT])

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
