"""The background refresh of MTA-STS policies (RFC 8461 3.3, 10.2).

Every cached policy is fetched again about daily, or twice in its lifetime if that is shorter, whatever the record says
and whether or not there is mail: only that way does a policy outlive an attacker who hides the record. One that could
not be fetched until its max_age was over is removed, and an event says so. A bug met with one domain ends nothing but
that refresh.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from mailrider.policy.sts.events import PolicyExpired, RefreshCrashed

if TYPE_CHECKING:
    import random

    from mailrider.clock import Clock
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit
    from mailrider.policy.sts.cache import CachedPolicy, PolicyStore
    from mailrider.policy.sts.lookup import PolicyMemory
    from mailrider.policy.sts.schedule import RefreshSchedule

REFRESH_TICK = 600.0  # seconds between two looks at what is due
REFRESH_WORKERS = 8  # background fetches at once; a slow policy host holds up one of them
REFRESH_START = (10.0, 60.0)  # seconds before the first look; a program that only sends one message never gets there


class RefreshedPolicies(Protocol):
    """What is refreshed: `policy.sts.source.PolicySource` is one."""

    async def load(self, domain: Domain, *, ask_store: bool = False) -> PolicyMemory:
        """What is known of the domain; `ask_store`: also if the store was asked lately."""

    async def fetch_once(self, domain: Domain, policy_id: str) -> CachedPolicy | None:
        """The policy, fetched now; None if that failed, now or lately."""

    def plan(self, domain: Domain, known: PolicyMemory, entry: CachedPolicy) -> None:
        """Plan when the policy is fetched again."""


class PolicyRefresh:
    """Refreshes what `schedule` says is due."""

    def __init__(
        self,
        policies: RefreshedPolicies,
        store: PolicyStore,
        schedule: RefreshSchedule,
        clock: Clock,
        rng: random.Random,
        emit: Emit,
    ) -> None:
        self._policies = policies
        self._store = store
        self._schedule = schedule
        self._clock = clock
        self._rng = rng
        self._emit = emit

    async def run(self) -> None:
        """Until it is cancelled."""
        await self._clock.sleep(self._rng.uniform(*REFRESH_START))
        while True:
            try:
                await self._learn_stored()
                await self._refresh_due()
            except Exception as error:  # a bug must not end the refreshing of all policies
                self._emit(RefreshCrashed(None, error))
            await self._clock.sleep(REFRESH_TICK)

    async def _learn_stored(self) -> None:
        """Take in what a process before us, or beside us, has left in the store."""
        for domain in self._schedule.align(await self._store.domains()):
            known = await self._policies.load(domain, ask_store=True)
            now = self._clock.monotonic()
            if known.entry is not None and not known.is_removed:
                self._policies.plan(domain, known, known.entry)
            else:  # a file that can be neither read nor removed
                self._schedule.plan_retry(domain, now)

    async def _refresh_due(self) -> None:
        now = self._clock.monotonic()
        due = self._schedule.take_due(now)

        async def work() -> None:
            # Whoever is left, if many hosts were slow, stays due beside those whose turn has come meanwhile.
            while due and self._clock.monotonic() < now + REFRESH_TICK:
                await self._refresh(due.pop())

        async with asyncio.TaskGroup() as group:
            for _ in range(min(REFRESH_WORKERS, len(due))):
                group.create_task(work())

    async def _refresh(self, domain: Domain) -> None:
        try:
            await self._refresh_or_remove(domain)
        except Exception as error:  # as above: the other domains go on
            self._emit(RefreshCrashed(domain, error))
            self._schedule.plan_retry(domain, self._clock.monotonic())

    async def _refresh_or_remove(self, domain: Domain) -> None:
        known = await self._policies.load(domain, ask_store=True)
        now = self._clock.monotonic()
        if not self._schedule.is_due(domain, now):  # another process has fetched it
            return
        held = known.in_force(now)
        if held is None:
            await self._remove_expired(domain, known)
        elif await self._policies.fetch_once(domain, held.id) is None:
            self._schedule.plan_retry(domain, self._clock.monotonic())

    async def _remove_expired(self, domain: Domain, known: PolicyMemory) -> None:
        self._schedule.forget(domain)
        if known.entry is None:
            return
        if not known.is_removed:
            known.is_removed = True
            self._emit(PolicyExpired(domain, known.entry.policy.mode, known.entry.fetched))
        await self._store.discard(known.entry)
