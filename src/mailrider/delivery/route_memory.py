"""Candidates and hosts that were made of DNS answers, for as long as the resolver gives the very same answers.

Most mail goes where other mail just went: its candidates and hosts need not be made anew for each message. Nothing here
lives longer than the answers themselves, since each question asks the resolver's cache first. Where chance has a say
(candidates of equal preference are shuffled for every message, RFC 5321 5.1), nothing is remembered.

Without it everything would be right and slower: `bench.pool`, which is an attempt on a kept connection, takes a fifth
longer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.dns.answer import RecordType
from mailrider.model.bounded import BoundedMap
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.dns.answer import Answer
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import NextHop
    from mailrider.model.route import Candidate, Candidates, Host

MAX_KEPT = 10_000  # of each


class RouteMemory:
    """Candidates by next hop, and hosts by candidate."""

    def __init__(self, resolver: Resolver, *, force_ipv4: bool) -> None:
        self._resolver = resolver
        self._families = (RecordType.A,) if force_ipv4 else (RecordType.AAAA, RecordType.A)
        self._candidates: BoundedMap[str, tuple[Answer[Any], Candidates]] = BoundedMap(MAX_KEPT)
        self._hosts: BoundedMap[tuple[str, int], tuple[Sequence[Answer[Any]], Host]] = BoundedMap(MAX_KEPT)

    def candidates(self, next_hop: NextHop) -> Candidates | None:
        """The candidates of a next hop, if its MX answer is still the one that they were made of."""
        known = self._candidates.get(next_hop.ascii)
        if known is None or not isinstance(next_hop, Domain):
            return None
        return known[1] if self._resolver.cached(next_hop, RecordType.MX) is known[0] else None

    def keep_candidates(self, candidates: Candidates) -> None:
        """Remember them, if there is an answer to hold them to and nothing to shuffle."""
        next_hop = candidates.next_hop
        if not isinstance(next_hop, Domain):
            return
        answer = self._resolver.cached(next_hop, RecordType.MX)
        preferences = {candidate.preference for candidate in candidates.candidates}
        is_fixed = len(preferences) == len(candidates.candidates) and not candidates.beyond
        if answer is not None and is_fixed:
            self._candidates[next_hop.ascii] = (answer, candidates)

    def host(self, candidate: Candidate) -> Host | None:
        """The host of a candidate, if its address answers are still those that it was made of."""
        known = self._hosts.get((candidate.host.ascii, candidate.preference))
        if known is None or not isinstance(candidate.host, Domain):
            return None
        for family, answer in zip(self._families, known[0], strict=True):
            if self._resolver.cached(candidate.host, family) is not answer:
                return None
        return known[1]

    def keep_host(self, host: Host) -> None:
        """Remember it, unless it is an alias (whose own record may change alone) or the cache has not all of it."""
        name = host.candidate.host
        if not isinstance(name, Domain) or host.canonical is not None or host.doubt:
            return
        answers = [self._resolver.cached(name, family) for family in self._families]
        complete = [answer for answer in answers if answer is not None]
        if len(complete) == len(answers):
            self._hosts[name.ascii, host.candidate.preference] = (complete, host)
