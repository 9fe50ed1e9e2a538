"""A small internet in memory for the MTA-STS tests: DNS, policy hosts, time, and what happened."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from typing import TYPE_CHECKING, TypeVar

from mailrider.dns.answer import LookupFailure
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MAX_POLICY_SIZE, WELL_KNOWN_PATH
from mailrider.net.fetch import FetchFailed, FetchFailure
from mailrider.policy.sts.cache import PolicyStore, decode_entry, encode_entry
from mailrider.policy.sts.source import FETCH_TIMEOUT, PolicySource
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, TableRow

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from mailrider.model.event import Event
    from mailrider.policy.sts.cache import CachedPolicy
    from mailrider.policy.sts.source import FailedFetches

EventT = TypeVar("EventT", bound="Event")
HOUR, DAY, WEEK = 3600.0, 86_400.0, 604_800.0
EXAMPLE = Domain("example.com")


def text(mode: str = "enforce", mx: str = "mx.example.com", max_age: float = WEEK) -> bytes:
    """A policy file."""
    return f"version: STSv1\nmode: {mode}\nmx: {mx}\nmax_age: {max_age:.0f}\n".encode()


class PolicyHosts:
    """All `mta-sts.<domain>` there are, as a `Fetcher`. `gate`, if closed, holds every fetch up, `slow` some hosts'."""

    def __init__(self) -> None:
        self.files: dict[Domain, bytes] = {}
        self.fetches: Counter[Domain] = Counter()
        self.under_way = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.slow: dict[Domain, Callable[[], Awaitable[None]]] = {}
        self.bug: Exception | None = None

    async def fetch(self, host: Domain, path: str, *, max_size: int, timeout: float) -> bytes:  # noqa: ASYNC109
        assert (path, max_size, timeout) == (WELL_KNOWN_PATH, MAX_POLICY_SIZE, FETCH_TIMEOUT)
        domain = Domain(host.ascii.removeprefix("mta-sts."))
        self.fetches[domain] += 1
        self.under_way += 1
        try:
            await self.gate.wait()
            if domain in self.slow:
                await self.slow[domain]()
                raise FetchFailed(host, FetchFailure.TIMEOUT, "no complete answer")
        finally:
            self.under_way -= 1
        if self.bug is not None:
            raise self.bug
        if domain not in self.files:
            raise FetchFailed(host, FetchFailure.CONNECT, "no connection: refused")
        return self.files[domain]


class DurableStore(PolicyStore):
    """A store that outlives a restart, and keeps what a file would keep."""

    def __init__(self) -> None:
        super().__init__(FakeClock())
        self.files: dict[Domain, bytes] = {}
        self.saves = 0

    async def load(self, domain: Domain) -> CachedPolicy | None:
        data = self.files.get(domain)
        return decode_entry(data) if data else None

    async def save(self, entry: CachedPolicy) -> None:
        self.saves += 1
        self.files[entry.domain] = encode_entry(entry)

    async def discard(self, entry: CachedPolicy) -> None:
        if self.files.get(entry.domain) == encode_entry(entry):
            del self.files[entry.domain]

    async def domains(self) -> Sequence[Domain]:
        return list(self.files)


class World:
    """Everything a `PolicySource` talks to."""

    def __init__(self, store: PolicyStore | None = None) -> None:
        self.clock = FakeClock()
        self.resolver = FakeResolver(caching=True, clock=self.clock)
        self.hosts = PolicyHosts()
        self.store = store or PolicyStore(self.clock)
        self.events: list[Event] = []

    def source(self, seed: int = 1, failures: FailedFetches | None = None) -> PolicySource:
        """A source, as at the start of a process. `failures`: what others could not fetch."""
        return PolicySource(
            resolver=self.resolver,
            fetcher=self.hosts,
            store=self.store,
            clock=self.clock,
            emit=self.events.append,
            rng=random.Random(seed),
            failures=failures,
        )

    def announce(self, policy_id: str, domain: Domain = EXAMPLE) -> None:
        """Publish the TXT record; it is never cached, so that a change is seen at once."""
        self.say(f"v=STSv1; id={policy_id};", domain)

    def say(self, record: str, domain: Domain = EXAMPLE) -> None:
        """Publish any TXT record."""
        self.resolver.answers[f"_mta-sts.{domain}", "TXT"] = TableRow([record.encode()], ttl=0)

    def strip_record(self, domain: Domain = EXAMPLE) -> None:
        """The TXT record is gone."""
        self.resolver.answers[f"_mta-sts.{domain}", "TXT"] = TableRow(ttl=0)

    def break_dns(self, domain: Domain = EXAMPLE) -> None:
        """The TXT record cannot be looked up."""
        self.resolver.answers[f"_mta-sts.{domain}", "TXT"] = LookupFailure.SERVFAIL

    def serve(self, body: bytes, domain: Domain = EXAMPLE) -> None:
        """Put the policy file in its place."""
        self.hosts.files[domain] = body

    def block_host(self, domain: Domain = EXAMPLE) -> None:
        """The policy host cannot be reached."""
        self.hosts.files.pop(domain, None)

    def publish(self, policy_id: str, body: bytes, domain: Domain = EXAMPLE) -> None:
        """A domain with MTA-STS."""
        self.serve(body, domain)
        self.announce(policy_id, domain)

    def fetches(self, domain: Domain = EXAMPLE) -> int:
        """How often the policy was fetched."""
        return self.hosts.fetches[domain]

    def asked(self, domain: Domain = EXAMPLE) -> int:
        """How often the record was looked up."""
        return self.resolver.asked(f"_mta-sts.{domain}", "TXT")

    def happened(self, kind: type[EventT]) -> list[EventT]:
        """The events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]
