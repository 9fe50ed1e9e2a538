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
from typing import TYPE_CHECKING, Any

from mailrider.clock import Deadline
from mailrider.dns.answer import LookupFailed, LookupFailure, RecordType
from mailrider.dns.resolver import lookup_a, lookup_aaaa, lookup_cname, lookup_mx
from mailrider.errors import MailriderError
from mailrider.model.domain import AddressLiteral, Domain, NextHop
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates, Host

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from random import Random

    from mailrider.clock import Clock
    from mailrider.dns.answer import Answer, MXRecord
    from mailrider.dns.resolver import Resolver

MAX_CANDIDATES = 10  # RFC 5321 5.1 allows a configurable limit, at least two; a zone must not make us try thousands
MAX_ADDRESSES = 6  # of one candidate; farms list more, but a sixth time-out says enough

Address = IPv4Address | IPv6Address

NO_SUCH_DOMAIN = Reply.make(550, "5.1.2", "The recipient's domain does not exist")
NULL_MX = Reply.make(556, "5.1.10", "The recipient's domain does not accept mail (null MX)")
NO_ADDRESS = Reply.make(550, "5.4.4", "No mail server of the recipient's domain has an address")
LOOP = Reply.make(554, "5.4.6", "Mail for the recipient's domain loops back to this server")


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


async def find_host(
    resolver: Resolver, candidate: Candidate, clock: Clock, deadline: float, *, force_ipv4: bool
) -> Host | HostNotFound:
    """The candidate's addresses, or why there are none; `deadline` is a reading of the clock.

    A failed lookup of one family only removes that family. So does one that takes more than half of the time, if the
    other family is there by then: what is left is for connecting.
    """
    name = candidate.host
    if isinstance(name, AddressLiteral):
        return Host(candidate, (name.ip,))
    try:
        async with Deadline(clock, deadline):
            return await _find_host(resolver, candidate, name, clock, deadline, force_ipv4=force_ipv4)
    except TimeoutError:
        return HostNotFound(candidate, Reply.make(451, "4.4.3", f"Address lookup of {name} timed out"))


async def _find_host(
    resolver: Resolver, candidate: Candidate, name: Domain, clock: Clock, deadline: float, *, force_ipv4: bool
) -> Host | HostNotFound:
    now = clock.monotonic()
    patience = Deadline(clock, now + (deadline - now) / 2)
    answers, failure = await _lookup_families(resolver, name, patience, force_ipv4=force_ipv4)
    addresses = order_addresses(record for answer in answers for record in answer.records)
    if not addresses:
        if failure is not None:
            return HostNotFound(candidate, lookup_failure_reply(failure))
        return HostNotFound(candidate, Reply.make(550, "5.4.4", f"The mail server {name} has no address"))
    aliased = [answer for answer in answers if answer.canonical is not None]
    signed, doubt = any(answer.authentic for answer in answers), ""
    if aliased and not signed:
        signed, doubt = await _alias_is_authentic(resolver, name)
    return Host(
        candidate,
        addresses,
        signed=signed,
        canonical=aliased[0].canonical if aliased else None,
        canonical_authentic=any(answer.authentic for answer in aliased),
        doubt=doubt,
    )


async def _lookup_families(
    resolver: Resolver, name: Domain, patience: Deadline, *, force_ipv4: bool
) -> tuple[list[Answer[Any]], LookupFailed | None]:
    families = (RecordType.A,) if force_ipv4 else (RecordType.AAAA, RecordType.A)
    lookups = [asyncio.ensure_future(_lookup_family(resolver, name, family)) for family in families]
    try:
        await _wait_for_addresses(lookups, patience)
    finally:
        for lookup in lookups:
            lookup.cancel()
    answers: list[Answer[Any]] = []
    failure: LookupFailed | None = None
    results = await asyncio.gather(*lookups, return_exceptions=True)
    for family, result in zip(families, results, strict=True):
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
    lookups: Sequence[asyncio.Future[Answer[Any] | LookupFailed]], patience: Deadline
) -> None:
    """Until all are done; once patience is at its end, until one has addresses."""
    waiting = set(lookups)
    try:
        async with patience:
            await asyncio.wait(waiting)
    except TimeoutError:
        while waiting and not any(map(_has_addresses, lookups)):
            _, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


def _has_addresses(lookup: asyncio.Future[Answer[Any] | LookupFailed]) -> bool:
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
