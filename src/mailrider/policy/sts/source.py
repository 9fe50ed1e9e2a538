"""Where the MTA-STS policy of a domain comes from: discovery, cache, fetch (RFC 8461 3, 5.1, 10.2).

`PolicySource.lookup` gives the policy in force for a domain, with the evidence. The rules, in one place:

- A policy holds from its last successful HTTPS fetch until its max_age is over. The TXT record is not authenticated:
  it can make us fetch, and can do nothing else.
- A new id means a fetch. A fetch that fails leaves an unexpired policy in force, and is not repeated for 5 minutes.
- No record, a malformed one, or no answer from DNS: an unexpired policy stays in force; without one the domain is
  treated as one that has none (RFC 8461 3.3), and an event says so.
- Every cached policy is fetched again in the background, whatever the record says (`policy.sts.refresh`).
- A hundred lookups at once cause one fetch, and cancelling one of them disturbs nobody.
- The workers of a daemon tell each other of fetches that failed: for 5 minutes none of them repeats it.

Within a process, age is counted by the monotonic clock, so that no jump of the wall clock ends a policy or prolongs it;
stamps count only for what is read from the store (`mtasts_cache.age_at`). Time for which a machine was suspended does
not count, therefore, while the process lives.

What it never does: raise for what a domain's owner, or somebody in between, did. Whether a mismatch refuses, and what
a policy demands, is decided elsewhere (`policy.sts.policy`).
"""

from __future__ import annotations

import asyncio
import random
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from mailrider.dns.answer import LookupFailed, RecordType
from mailrider.dns.resolver import lookup_txt
from mailrider.dns.single_flight import Cancelled, SingleFlight
from mailrider.errors import InvalidValue, ShuttingDown
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.mtasts.policy import (
    MAX_POLICY_SIZE,
    WELL_KNOWN_PATH,
    MalformedPolicy,
    STSMode,
    parse_policy,
    policy_host,
)
from mailrider.mtasts.record import NoRecord, STSRecord, find_record, record_name
from mailrider.net.fetch import FetchFailed, FetchFailure
from mailrider.policy.holding_map import NOT_HELD, HoldingMap
from mailrider.policy.sts.cache import MAX_MEMORY, CachedPolicy, PolicyStore, age_at, is_from_future
from mailrider.policy.sts.events import (
    CacheFault,
    PolicyFetched,
    PolicyFetchFailed,
    PolicyLinesIgnored,
    RecordLookupFailed,
    RecordUnusable,
)
from mailrider.policy.sts.lookup import Origin, PolicyLookup, PolicyMemory, is_news, must_fetch, policy_seen
from mailrider.policy.sts.refresh import PolicyRefresh
from mailrider.policy.sts.schedule import RefreshSchedule

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.answer import Answer
    from mailrider.dns.resolver import Resolver
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.mtasts.policy import STSPolicy

K = TypeVar("K", bound="Hashable")
T = TypeVar("T")

FETCH_TIMEOUT = 60.0  # seconds: RFC 8461 3.3 suggests it
SMALL_POLICY = 8192  # octets of a policy that is read at once
RETRY_AFTER = 300.0  # seconds until a failed fetch is tried again: RFC 8461 3.3
RELOAD_AFTER = 60.0  # seconds for which the store is not asked again; another process may have fetched meanwhile


class Fetcher(Protocol):
    """Fetches a small file over HTTPS; `net.https.HTTPSFetcher` is one."""

    async def fetch(self, host: Domain, path: str, *, max_size: int, timeout: float) -> bytes:  # noqa: ASYNC109 # of the whole exchange
        """The file's content. Raises `FetchFailed`."""


class FailedFetches(Protocol):
    """Where the workers of a daemon tell each other of fetches that failed."""

    def tell(self, domain: Domain, problem: TLSProblem, until: float) -> None:
        """All others, and those who begin until then: not to be fetched before."""

    def hear(self, hearer: Callable[[Domain, TLSProblem, float], None]) -> None:
        """Who is told of what others tell, or have told."""


class PolicySource:
    """The policies of all domains; open it with `async with`, which also runs the background refresh.

    `resolver`, `fetcher` and `store` are open already and belong to the caller. `emit` is called with every event.
    """

    def __init__(
        self,
        *,
        resolver: Resolver,
        fetcher: Fetcher,
        store: PolicyStore,
        clock: Clock,
        emit: Emit,
        rng: random.Random | None = None,
        failures: FailedFetches | None = None,
    ) -> None:
        """`failures`: those of other workers, if there are any."""
        self._resolver = resolver
        self._fetcher = fetcher
        self._store = store
        self._clock = clock
        self._emit = emit
        self._rng = rng or random.Random()
        self._known: HoldingMap[PolicyMemory] = HoldingMap(MAX_MEMORY, clock.monotonic)
        self._discoveries: SingleFlight[tuple[Domain, bool], PolicyLookup] = SingleFlight()
        self._fetches: SingleFlight[Domain, CachedPolicy | None] = SingleFlight()
        self._schedule = RefreshSchedule(self._rng)
        self._refresher: asyncio.Task[None] | None = None
        self._failures = failures
        if failures is not None:
            failures.hear(self._hear_of_failure)

    async def __aenter__(self) -> Self:
        refresh = PolicyRefresh(self, self._store, self._schedule, self._clock, self._rng, self._emit)
        self._refresher = asyncio.create_task(refresh.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        refresher, self._refresher = self._refresher, None
        if refresher is not None:
            refresher.cancel()
            await asyncio.gather(refresher, return_exceptions=True)
        await self._discoveries.aclose()
        await self._fetches.aclose()

    # --- Questions ------------------------------------------------------------------------------

    async def lookup(self, domain: Domain) -> PolicyLookup:
        """The policy in force for the domain, fetched first if a new one is announced."""
        return self.peek(domain) or await self._discover_once(domain, ask_again=False)

    def peek(self, domain: Domain) -> PolicyLookup | None:
        """What `lookup` would say, where nothing has to be waited for: most mail goes to domains just asked about."""
        known = self._known.get(domain)
        now = self._clock.monotonic()
        if known is None or now - known.loaded > RELOAD_AFTER:
            return None
        held = known.in_force(now)
        record = self._cached_record(domain)
        if record is None and (held is None or now >= known.ask_again):
            return None
        if must_fetch(record, held) and now >= known.fetch_again:
            return None
        self._judge_record(domain, known, record)
        return self._report(domain, known, record)

    async def recheck_id(self, domain: Domain) -> PolicyLookup:
        """As `lookup`, past the resolver's cache: after a TLS failure, before a message is given up (RFC 8461 5.1)."""
        return await self._discover_once(domain, ask_again=True)

    async def refetch(self, domain: Domain, *, since: float | None = None) -> PolicyLookup:
        """The policy fetched again, whatever the record says: before an enforced mismatch refuses a candidate.

        Once an attempt is enough; `since` is the `Clock.monotonic` reading at which the attempt began, and a policy
        that was fetched after that is not fetched again. Nor is one whose fetch failed less than 5 minutes ago.
        """
        known = await self.load(domain)
        now = self._clock.monotonic()
        held = known.in_force(now)
        if held is None:
            return await self.lookup(domain)
        if since is not None and known.fetched >= since:
            return self._report(domain, known, self._cached_record(domain))
        record = self._cached_record(domain)
        fetched = await self.fetch_once(domain, record.id if isinstance(record, STSRecord) else held.id)
        return self._report(domain, self._known_of(domain), record, fetched)

    # --- Discovery ------------------------------------------------------------------------------

    async def _discover_once(self, domain: Domain, *, ask_again: bool) -> PolicyLookup:
        return await self._share(
            self._discoveries, (domain, ask_again), lambda: self._discover(domain, ask_again=ask_again)
        )

    async def _share(self, flights: SingleFlight[K, T], key: K, work: Callable[[], Coroutine[Any, Any, T]]) -> T:
        try:
            return await flights.run(key, work)
        except Cancelled as error:
            raise ShuttingDown("the MTA-STS policies were closed while one was looked up") from error

    async def _discover(self, domain: Domain, *, ask_again: bool) -> PolicyLookup:
        known = await self.load(domain)
        record = await self._lookup_record(domain, known, ask_again=ask_again)
        self._judge_record(domain, known, record)
        fetched = None
        if isinstance(record, STSRecord) and must_fetch(record, known.in_force(self._clock.monotonic())):
            fetched = await self.fetch_once(domain, record.id)
        return self._report(domain, self._known_of(domain), record, fetched)

    async def _lookup_record(
        self, domain: Domain, known: PolicyMemory, *, ask_again: bool
    ) -> STSRecord | NoRecord | None:
        now = self._clock.monotonic()
        # With a policy in force the record can only bring news: nobody's mail waits for a silent DNS again and again.
        if not ask_again and now < known.ask_again and known.in_force(now) is not None:
            return None
        try:
            name = record_name(domain)
        except InvalidValue:
            return NoRecord("the domain is too long to have a record")
        try:
            if ask_again:
                answer: Answer[bytes] = await self._resolver.lookup(name, RecordType.TXT, fresh=True)
            else:
                answer = await lookup_txt(self._resolver, name)
        except LookupFailed as error:
            now = self._clock.monotonic()
            known.dns_problem = TLSProblem(TLSProblemKind.STS_LOOKUP_FAILED, str(error), error.failure)
            known.ask_again = now + RETRY_AFTER
            self._emit(RecordLookupFailed(domain, str(error), _mode(known.in_force(now))))
            return None
        known.dns_problem, known.ask_again = None, float("-inf")
        return find_record(answer.records)

    def _cached_record(self, domain: Domain) -> STSRecord | NoRecord | None:
        """The record, if the resolver has it at hand."""
        try:
            answer = self._resolver.cached(record_name(domain), RecordType.TXT)
        except InvalidValue:
            return NoRecord("the domain is too long to have a record")
        return None if answer is None else find_record(answer.records)

    def _judge_record(self, domain: Domain, known: PolicyMemory, record: STSRecord | NoRecord | None) -> None:
        """Complain once of a record that is wrong, or missing beside a policy that is in force (RFC 8461 10.2)."""
        if record is None:
            return
        complaint = ""
        held = known.in_force(self._clock.monotonic())
        if isinstance(record, NoRecord) and (record.malformed or held is not None):
            complaint = record.reason
        if complaint and complaint != known.complaint:
            self._emit(RecordUnusable(domain, complaint, _mode(held)))
        known.complaint = complaint

    def _report(
        self,
        domain: Domain,
        known: PolicyMemory,
        record: STSRecord | NoRecord | None,
        fetched: CachedPolicy | None = None,
    ) -> PolicyLookup:
        now = self._clock.monotonic()
        held = fetched or known.in_force(now)
        expires = None
        if held is not None:
            expires = self._clock.now() + timedelta(seconds=max(known.expires - now, 0.0))
        origin = Origin.FETCHED if fetched else Origin.CACHE if held else None
        problem = (known.dns_problem if record is None else None) or known.fetch_problem
        if isinstance(record, NoRecord) and held is None:
            problem = None  # whatever failed before: the domain says that it has no policy
        return PolicyLookup(domain, held, origin, expires, record, problem)

    # --- Fetch ----------------------------------------------------------------------------------

    async def fetch_once(self, domain: Domain, policy_id: str) -> CachedPolicy | None:
        """The policy, fetched now by us or by somebody who is at it; None if that failed, now or lately."""
        if self._clock.monotonic() < self._known_of(domain).fetch_again:
            return None
        return await self._share(self._fetches, domain, lambda: self._fetch(domain, policy_id))

    async def _fetch(self, domain: Domain, policy_id: str) -> CachedPolicy | None:
        try:
            policy = await self._fetch_policy(domain)
        except (FetchFailed, MalformedPolicy, InvalidValue) as error:
            self._note_failure(domain, error)
            return None
        known = self._known_of(domain)
        before = known.in_force(self._clock.monotonic())
        entry = CachedPolicy(domain, policy, policy_id, self._clock.now())
        known.hold(entry, timedelta(0), self._clock.monotonic())
        known.fetch_again, known.fetch_problem = float("-inf"), None
        self._remember(domain, known)
        changed = before is None or before.policy != policy
        self._emit(PolicyFetched(domain, policy_id, policy.mode, policy.max_age, changed))
        if policy.ignored:
            self._emit(PolicyLinesIgnored(domain, "; ".join(policy.ignored)))
        await self._store.save(entry)
        self.plan(domain, known, entry)
        return entry

    async def _fetch_policy(self, domain: Domain) -> STSPolicy:
        body = await self._fetcher.fetch(
            policy_host(domain), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=FETCH_TIMEOUT
        )
        # A large one takes 10 ms, in which the event loop would stand.
        return parse_policy(body) if len(body) <= SMALL_POLICY else await asyncio.to_thread(parse_policy, body)

    def _note_failure(self, domain: Domain, error: FetchFailed | MalformedPolicy | InvalidValue) -> None:
        known = self._known_of(domain)
        now = self._clock.monotonic()
        known.fetch_again = now + RETRY_AFTER
        problem = known.fetch_problem = _fetch_problem(error)
        self._remember(domain, known)
        if self._failures is not None:
            self._failures.tell(domain, problem, known.fetch_again)
        failure = error.failure.value if isinstance(error, FetchFailed) else "malformed-policy"
        held = known.in_force(now)
        self._emit(
            PolicyFetchFailed(domain, failure, problem, _mode(held), None if held is None else policy_seen(held.policy))
        )

    def _hear_of_failure(self, domain: Domain, problem: TLSProblem, until: float) -> None:
        """Another worker has failed to fetch it."""
        known = self._known_of(domain)
        known.fetch_again, known.fetch_problem = until, problem
        self._remember(domain, known)

    # --- Memory ---------------------------------------------------------------------------------

    def _known_of(self, domain: Domain) -> PolicyMemory:
        return self._known.get(domain) or self._remember(domain, PolicyMemory())

    def _remember(self, domain: Domain, known: PolicyMemory) -> PolicyMemory:
        wrong_lines = known.fetch_problem.lines if known.fetch_problem else ()
        weight = 512 + (known.entry.weight if known.entry else 0) + sum(64 + len(line) for line in wrong_lines)
        demands = known.entry is not None and known.entry.policy.mode is not STSMode.NONE
        self._known.put(domain, known, weight, known.expires if demands else NOT_HELD)
        return known

    async def load(self, domain: Domain, *, ask_store: bool = False) -> PolicyMemory:
        """What we know of the domain, the store included if it has not been asked lately."""
        known = self._known_of(domain)
        if not ask_store and self._clock.monotonic() - known.loaded <= RELOAD_AFTER:
            return known
        entry = await self._store.load(domain)
        known = self._known_of(domain)
        known.loaded = self._clock.monotonic()
        held = known.in_force(known.loaded)
        if entry is None:
            if held is not None:  # lost or damaged: ours is as good
                await self._store.save(held)
        elif known.entry is None or is_news(entry, known.entry, held):
            await self._adopt(known, entry)
        return known

    async def _adopt(self, known: PolicyMemory, entry: CachedPolicy) -> None:
        now = self._clock.now()
        if is_from_future(entry, now) and (entry.noticed is None or entry.noticed > now):
            self._emit(
                CacheFault(entry.domain.ascii, f"fetched at {entry.fetched}, which is in the future", "ages from now")
            )
            entry = replace(entry, noticed=now)
            await self._store.save(entry)
        known.hold(entry, age_at(entry, now), self._clock.monotonic())
        if known.fetched >= known.fetch_again - RETRY_AFTER:  # another process fetched it after we had failed
            known.fetch_again, known.fetch_problem = float("-inf"), None
        self._remember(entry.domain, known)
        self.plan(entry.domain, known, entry)

    def plan(self, domain: Domain, known: PolicyMemory, entry: CachedPolicy) -> None:
        """Plan when the policy is fetched again."""
        now = self._clock.monotonic()
        self._schedule.plan(domain, entry.policy, fetched=known.fetched, expires=known.expires, now=now)


def _fetch_problem(error: FetchFailed | MalformedPolicy | InvalidValue) -> TLSProblem:
    if not isinstance(error, FetchFailed):
        lines = error.lines if isinstance(error, MalformedPolicy) else ()
        return TLSProblem(TLSProblemKind.STS_POLICY_INVALID, str(error), lines=lines)
    if error.failure is FetchFailure.CERTIFICATE:
        return TLSProblem(TLSProblemKind.STS_HOST_CERTIFICATE, str(error), error.fault)
    code = f"status-{error.fault}" if error.fault else error.failure.value
    return TLSProblem(TLSProblemKind.STS_FETCH_FAILED, str(error), code)


def _mode(held: CachedPolicy | None) -> STSMode | None:
    return None if held is None else held.policy.mode
