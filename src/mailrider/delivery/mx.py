"""The hosts of a next hop and their addresses, from DNS (RFC 5321 5.1, RFC 7505).

Lookup and decision are apart: `rank_candidates` and `order_addresses` are pure; `find_candidates` and `find_host`
ask DNS. What cannot be delivered raises `Unroutable` with the reply that the recipients get.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from itertools import chain, zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias

from mailrider.clock import Deadline
from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.dns.resolver import lookup_a, lookup_aaaa, lookup_cname, lookup_mx
from mailrider.errors import MailriderError
from mailrider.model.domain import AddressLiteral, Domain, NextHop
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates, Host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from random import Random

    from mailrider.clock import Clock
    from mailrider.dns.answer import Answer, MXRecord
    from mailrider.dns.resolver import Resolver

    _Lookup: TypeAlias = asyncio.Future[Answer[Any] | LookupFailed]

MAX_CANDIDATES = 10  # RFC 5321 5.1 allows a configurable limit, at least two; a zone must not make us try thousands
MAX_ADDRESSES = 6  # of one candidate; farms list more, but a sixth time-out says enough
MAX_LATE_ADDRESSES = 3  # that come when connecting to others has begun
RESOLUTION_DELAY = 1.0
"""Seconds that the second family has once the first one is there. RFC 8305 section 8 has 50 ms, for somebody who waits;
mail can wait, and that one of the addresses is ours (RFC 5321 5.1) is seen only among those that came in time."""

Address = IPv4Address | IPv6Address

NO_SUCH_DOMAIN = Reply.make(550, "5.1.2", "The recipient's domain does not exist")
NULL_MX = Reply.make(556, "5.1.10", "The recipient's domain does not accept mail (null MX)")
NO_ADDRESS = Reply.make(550, "5.4.4", "No mail server of the recipient's domain has an address")
LOOP = Reply.make(554, "5.4.6", "Mail for the recipient's domain loops back to this server")


def loop_through(best: Sequence[Candidate]) -> Reply:
    """`LOOP` with the names of the domain's best mail servers: one of them is ourselves."""
    names = " or ".join(str(each.host) for each in best[:3])
    return Reply.make(LOOP.code, str(LOOP.status), f"{LOOP.text}: {names} has its name or an address of it")


class Unroutable(MailriderError):
    """There is nowhere to send it, for now or for good; `reply` is what the recipients get."""

    def __init__(self, reply: Reply, detail: str = "") -> None:
        super().__init__(detail or reply.text, code=reply.code, enhanced=str(reply.enhanced))
        self.reply = reply


_SERVER = re.compile(r" from [0-9a-fA-F.:]+")  # our own DNS server, as libunbound names it: no business of anybody else


def lookup_failure_reply(error: LookupFailed) -> Reply:
    """What a failed lookup means for the recipients: later."""
    text = f"{error.record_type} lookup of {error.name} failed: {error.failure}"
    if error.failure is LookupFailure.BOGUS:  # the domain's own fault, whose owner has to know which
        text = f"{text} ({_SERVER.sub('', error.detail)})"
    return Reply.make(451, "4.4.3", text)


MAX_NAMED = 3  # targets that are no host names, in an error


async def find_candidates(resolver: Resolver, next_hop: NextHop, rng: Random) -> Candidates:
    """The MX hosts of a next hop, best first. Raises `Unroutable`."""
    if isinstance(next_hop, AddressLiteral):
        return Candidates(next_hop, (Candidate(next_hop),))
    try:
        answer = await lookup_mx(resolver, next_hop)
    except LookupFailed as error:
        raise Unroutable(lookup_failure_reply(error), str(error)) from error
    return rank_candidates(next_hop, answer, rng)


def _described(target: str) -> str:
    """An MX record's target that is no host name; RFC 5321 5.1 wants a name, and some write an address."""
    try:
        return f"{ip_address(target.rstrip('.'))} is an IP address"
    except ValueError:
        return target[:100]


def rank_candidates(next_hop: Domain, answer: Answer[MXRecord], rng: Random) -> Candidates:
    """Candidates by preference, equals shuffled; the domain itself if it has no MX. Raises `Unroutable`."""
    if not answer.exists:
        raise Unroutable(NO_SUCH_DOMAIN)
    canonical = answer.canonical or next_hop
    if not answer.records:
        # RFC 5321 5.1: implicit MX. With a CNAME, its target has the address; asking for ours follows it there.
        return Candidates(next_hop, (Candidate(next_hop),), answer.authentic, implicit=True, canonical=canonical)
    if all(record.is_null for record in answer.records):
        raise Unroutable(NULL_MX)
    named = [record for record in answer.records if record.host is not None]
    if not named:
        # A zone with nothing but nonsense is a mistake that somebody will mend.
        targets = ", ".join(_described(record.text) for record in answer.records[:MAX_NAMED])
        raise Unroutable(Reply.make(451, "4.4.3", f"No MX record of {next_hop} names a host: {targets}"))
    ranked = _by_preference(named, rng)
    tried, beyond = ranked[:MAX_CANDIDATES], ranked[MAX_CANDIDATES:]
    return Candidates(next_hop, tried, answer.authentic, canonical=canonical, beyond=beyond)


def _by_preference(records: Iterable[MXRecord], rng: Random) -> tuple[Candidate, ...]:
    best: dict[Domain, int] = {}
    for record in records:
        if record.host is not None:
            best[record.host] = min(record.preference, best.get(record.host, record.preference))
    candidates = [Candidate(host, preference) for host, preference in best.items()]
    rng.shuffle(candidates)  # RFC 5321 5.1: equals at random; the sort is stable
    return tuple(sorted(candidates, key=lambda candidate: candidate.preference))


@dataclass(frozen=True, slots=True)
class HostNotFound:
    """A candidate without an address: the reply says why, its class whether that may change."""

    candidate: Candidate
    reply: Reply


class LateAddresses:
    """Address lookups that go on while connecting to their hosts has begun (RFC 8305 3); `close` ends them.

    What DANE is told of a host does not change by that. A and AAAA records of one name stand in one zone, so either
    answer tells whether it is signed (RFC 4035 4.3). Both answers of an alias are waited for where DANE may count; and
    a late answer of which DANE would have been told something else is not used.
    """

    def __init__(
        self, resolver: Resolver, clock: Clock, *, dane: bool, is_ours: Callable[[Address], bool] = lambda _: False
    ) -> None:
        """`dane`: whether DANE is asked about the hosts. An answer with an address that `is_ours` is not used."""
        self._resolver = resolver
        self._clock = clock
        self._dane = dane
        self._is_ours = is_ours
        self._coming: dict[Candidate, asyncio.Future[tuple[Address, ...]]] = {}

    def of(self, candidate: Candidate) -> asyncio.Future[tuple[Address, ...]] | None:
        """The host's further addresses, as soon as they are known or time is over; None: all are known."""
        return self._coming.get(candidate)

    def may_begin_with(self, known: Answer[Any]) -> bool:
        """True if connecting may begin when nothing but this answer is there."""
        return bool(known.records) and not (known.canonical is not None and self._dane_may_count)

    def keep(self, candidate: Candidate, lookup: _Lookup, known: Answer[Any], until: float) -> None:
        """Go on with a lookup until that reading of the clock, beside an answer that is known."""
        coming = self._coming[candidate] = asyncio.ensure_future(self._take(lookup, known, until))
        coming.add_done_callback(lambda _: lookup.cancel())

    async def close(self) -> None:
        """End what is not needed any more."""
        for coming in self._coming.values():
            coming.cancel()
        await asyncio.gather(*self._coming.values(), return_exceptions=True)

    @property
    def _dane_may_count(self) -> bool:
        return self._dane and self._resolver.validates

    async def _take(self, lookup: _Lookup, known: Answer[Any], until: float) -> tuple[Address, ...]:
        try:
            async with Deadline(self._clock, until):
                answer = await lookup
        except TimeoutError:
            return ()
        if isinstance(answer, LookupFailed) or any(map(self._is_ours, answer.records)):
            return ()
        says_more = answer.canonical is not None or (answer.authentic and not known.authentic)
        if says_more and self._dane_may_count:
            return ()
        return order_addresses(answer.records)[:MAX_LATE_ADDRESSES]


async def find_host(
    resolver: Resolver,
    candidate: Candidate,
    clock: Clock,
    deadline: float,
    *,
    force_ipv4: bool,
    late: LateAddresses | None = None,
) -> Host | HostNotFound:
    """The candidate's addresses, or why there are none; `deadline` is a reading of the clock.

    A failed lookup of one family only removes that family. So does one that takes more than half of the time, if the
    other family is there by then: what is left is for connecting. With `late` the addresses of one family wait for the
    others no longer than `RESOLUTION_DELAY`, if they may: that lookup goes on there.
    """
    name = candidate.host
    if isinstance(name, AddressLiteral):
        return Host(candidate, (name.ip,))
    try:
        async with Deadline(clock, deadline):
            return await _find_host(resolver, candidate, name, clock, deadline, late, force_ipv4=force_ipv4)
    except TimeoutError:
        return HostNotFound(candidate, Reply.make(451, "4.4.3", f"Address lookup of {name} timed out"))


async def _find_host(
    resolver: Resolver,
    candidate: Candidate,
    name: Domain,
    clock: Clock,
    deadline: float,
    late: LateAddresses | None,
    *,
    force_ipv4: bool,
) -> Host | HostNotFound:
    families = (RecordType.A,) if force_ipv4 else (RecordType.AAAA, RecordType.A)
    lookups: dict[RecordType, _Lookup] = {
        family: asyncio.ensure_future(_lookup_family(resolver, name, family)) for family in families
    }
    now = clock.monotonic()
    half = now + (deadline - now) / 2
    try:
        early = await _wait_for_addresses(list(lookups.values()), clock, half, late)
        if early is not None and late is not None:
            (goes_on,) = (family for family, lookup in lookups.items() if not lookup.done())
            late.keep(candidate, lookups.pop(goes_on), early, half)
    finally:
        for lookup in lookups.values():
            lookup.cancel()
    answers, failure = await _results(name, lookups)
    addresses = order_addresses(record for answer in answers for record in answer.records)
    if not addresses:
        if failure is not None:
            return HostNotFound(candidate, lookup_failure_reply(failure))
        return HostNotFound(candidate, Reply.make(550, "5.4.4", f"The mail server {name} has no address"))
    alias = alias_answer(answers)
    signed, doubt = any(answer.authentic for answer in answers), ""
    if alias is not None and not signed:
        signed, doubt = await _alias_is_authentic(resolver, name)
    return Host(
        candidate,
        addresses,
        signed=signed,
        canonical=None if alias is None else alias.canonical,
        canonical_authentic=alias is not None and alias.authentic,
        doubt=doubt,
    )


def alias_answer(answers: Sequence[Answer[Any]]) -> Answer[Any] | None:
    """The address answer that says what a host is an alias of; None if it is none.

    It says both where the chain leads and whether all of it is authenticated (RFC 7672 2.2.2): one answer's word on
    another one's chain would be worth nothing. An authentic answer comes first.
    """
    aliased = [answer for answer in answers if answer.canonical is not None]
    return next((answer for answer in aliased if answer.authentic), aliased[0] if aliased else None)


async def _results(name: Domain, lookups: dict[RecordType, _Lookup]) -> tuple[list[Answer[Any]], LookupFailed | None]:
    """What is known; a lookup that was cancelled took too long."""
    answers: list[Answer[Any]] = []
    failure: LookupFailed | None = None
    results = await asyncio.gather(*lookups.values(), return_exceptions=True)
    for family, result in zip(lookups, results, strict=True):
        if isinstance(result, LookupFailed):
            failure = result
        elif isinstance(result, asyncio.CancelledError):
            failure = LookupFailed(name, family, LookupFailure.TIMEOUT)
        elif isinstance(result, BaseException):
            raise result
        else:
            answers.append(result)
    return answers, failure


async def _lookup_family(resolver: Resolver, name: Domain, family: RecordType) -> Answer[Any] | LookupFailed:
    try:
        return await (lookup_a if family is RecordType.A else lookup_aaaa)(resolver, name)
    except LookupFailed as failure:
        return failure


async def _wait_for_addresses(
    lookups: Sequence[_Lookup], clock: Clock, half: float, late: LateAddresses | None
) -> Answer[Any] | None:
    """Until all are done; once half of the time is over, until one has addresses.

    The answer that connecting may begin with, if there is one and the other lookup is not done.
    """
    waiting = set(lookups)
    try:
        async with Deadline(clock, half):
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            early = None if late is None or not waiting else _early(done, late)
            if early is not None and not await _all_done(waiting, clock):
                return early
            if waiting:
                await asyncio.wait(waiting)
    except TimeoutError:
        while waiting and not any(map(_has_addresses, lookups)):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    return None


def _early(done: Iterable[_Lookup], late: LateAddresses) -> Answer[Any] | None:
    """The answer that connecting may begin with."""
    results = [lookup.result() for lookup in done]
    return next((each for each in results if not isinstance(each, LookupFailed) and late.may_begin_with(each)), None)


async def _all_done(lookups: Iterable[_Lookup], clock: Clock) -> bool:
    """Whether they come within the resolution delay."""
    try:
        async with Deadline(clock, clock.monotonic() + RESOLUTION_DELAY):
            await asyncio.wait(lookups)
    except TimeoutError:
        return all(lookup.done() for lookup in lookups)
    return True


def _has_addresses(lookup: _Lookup) -> bool:
    if not lookup.done():
        return False
    result = lookup.result()
    return not isinstance(result, LookupFailed) and bool(result.records)


async def _alias_is_authentic(resolver: Resolver, name: Domain) -> tuple[bool, str]:
    """RFC 7672 2.2.2: a host whose CNAME is signed is signed, though what the alias leads to may not be.

    A failure is not a no: somebody who can make this lookup fail would make DANE go away. It comes back as the doubt.
    """
    if not resolver.validates:
        return False, ""
    try:
        return (await lookup_cname(resolver, name)).authentic, ""
    except LookupFailed as error:
        return False, str(error)


def order_addresses(addresses: Iterable[Address]) -> tuple[Address, ...]:
    """Families interleaved, IPv6 first, each family in the order of its answer; at most `MAX_ADDRESSES`."""
    families: dict[int, list[Address]] = {6: [], 4: []}
    for address in dict.fromkeys(addresses):
        families[address.version].append(address)
    mixed = chain.from_iterable(zip_longest(families[6], families[4]))
    return tuple(address for address in mixed if address is not None)[:MAX_ADDRESSES]
