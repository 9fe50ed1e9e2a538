"""The MTA-STS cache against a simple model: whatever happens, in any order.

The model knows one thing: which fetches the policy hosts have seen. The policy in force must be that of the last fetch
that succeeded, if it is not older than its max_age; no record, failure, restart or clock may change that. And what a
lookup fetches follows from the record and from the last failure.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mailrider.model.domain import Domain
from mailrider.mtasts.policy import STSMode, STSPolicy, parse_policy
from mailrider.policy.sts.source import RETRY_AFTER
from tests.support.long_runs import LONG
from tests.unit.policy.sts.sts_world import DAY, HOUR, WEEK, DurableStore, PolicyHosts, World, text

if TYPE_CHECKING:
    from collections.abc import Coroutine
    from typing import Any, TypeVar

    from mailrider.policy.sts.lookup import PolicyLookup

    T = TypeVar("T")

DOMAINS = [Domain("one.example"), Domain("two.example")]
FOREVER_AGO = float("-inf")


@dataclass
class Fetch:
    """One fetch that a policy host has seen; `policy` None if it failed."""

    at: float
    policy: STSPolicy | None


@dataclass
class Model:
    """What is true of one domain."""

    fetches: list[Fetch] = field(default_factory=list)
    record: str | None = None  # an id, "" for one that is malformed
    dns_works: bool = True
    held_id: str = ""
    failed: float = FOREVER_AGO  # the last fetch, if it failed in this process
    dns_failed: float = FOREVER_AGO
    dns_known: bool = True  # whether `dns_failed` is right
    loaded: bool = False  # in this process
    exact: bool = True  # False if only wall-clock stamps tell the age, and the clock was set

    def last(self) -> Fetch | None:
        return next((fetch for fetch in reversed(self.fetches) if fetch.policy is not None), None)

    def held(self, now: float) -> STSPolicy | None:
        last = self.last()
        if last is None or last.policy is None or now - last.at > last.policy.max_age.total_seconds():
            return None
        return last.policy

    def must_fetch(self, now: float) -> bool:
        announced = self.dns_works and bool(self.record)
        is_news = self.held(now) is None or self.record != self.held_id
        return announced and is_news and now - self.failed >= RETRY_AFTER


class Witness(PolicyHosts):
    """Policy hosts that keep the model's record of fetches."""

    def __init__(self, machine: PolicyMachine) -> None:
        super().__init__()
        self.machine = machine

    async def fetch(self, host: Domain, path: str, *, max_size: int, timeout: float) -> bytes:  # noqa: ASYNC109
        domain = Domain(host.ascii.removeprefix("mta-sts."))
        model, now = self.machine.models[domain], self.machine.world.clock.monotonic()
        assert now - model.failed >= RETRY_AFTER, "a failed fetch was repeated within five minutes"
        try:
            body = await super().fetch(host, path, max_size=max_size, timeout=timeout)
            policy = parse_policy(body)
        except Exception:
            model.fetches.append(Fetch(now, None))
            model.failed = now
            raise
        model.fetches.append(Fetch(now, policy))
        model.failed = FOREVER_AGO
        model.exact = True
        return body


class PolicyMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.world = World(DurableStore())
        self.world.hosts = Witness(self)
        self.models = {domain: Model() for domain in DOMAINS}
        self.serial = 0
        self.clock_was_set = False
        self.source = self.world.source()
        self.run(self.source.__aenter__())

    def teardown(self) -> None:
        self.run(self.source.__aexit__())
        assert self.world.clock.pending == 0
        self.runner.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    # --- What the world does --------------------------------------------------------------------

    domains = st.sampled_from(DOMAINS)

    @rule(domain=domains, policy_id=st.sampled_from(["a", "b", "c"]))
    def announce(self, domain: Domain, policy_id: str) -> None:
        self.world.announce(policy_id, domain)
        self.models[domain].record, self.models[domain].dns_works = policy_id, True

    @rule(domain=domains, record=st.sampled_from(["v=STSv1; id=;", "v=spf1 -all"]))
    def spoil_record(self, domain: Domain, record: str) -> None:
        self.world.say(record, domain)
        self.models[domain].record, self.models[domain].dns_works = "", True

    @rule(domain=domains)
    def strip_record(self, domain: Domain) -> None:
        self.world.strip_record(domain)
        self.models[domain].record, self.models[domain].dns_works = None, True

    @rule(domain=domains)
    def break_dns(self, domain: Domain) -> None:
        self.world.break_dns(domain)
        self.models[domain].dns_works = False

    @rule(
        domain=domains,
        mode=st.sampled_from(STSMode),
        max_age=st.sampled_from([0, 100, HOUR, DAY, WEEK]),
    )
    def serve(self, domain: Domain, mode: STSMode, max_age: float) -> None:
        self.serial += 1
        self.world.serve(text(mode, f"mx{self.serial}.example", max_age), domain)

    @rule(domain=domains)
    def spoil_policy(self, domain: Domain) -> None:
        self.world.serve(b"version: STSv2\n", domain)

    @rule(domain=domains)
    def block_host(self, domain: Domain) -> None:
        self.world.block_host(domain)

    @rule(seconds=st.sampled_from([1, 59, 61, 299, 301, 1800, HOUR, 7 * HOUR, DAY, 8 * DAY]))
    def advance(self, seconds: float) -> None:
        self.run(self.world.clock.advance(seconds))

    @rule(days=st.sampled_from([-400, -1, 1, 400]))
    def set_clock(self, days: int) -> None:
        self.world.clock.jump(timedelta(days=days))
        self.clock_was_set = True
        for model in self.models.values():
            model.exact = model.exact and model.loaded

    @rule()
    def restart(self) -> None:
        self.run(self.source.__aexit__())
        for model in self.models.values():
            model.failed = model.dns_failed = FOREVER_AGO
            model.dns_known, model.loaded = True, False
            model.exact = model.exact and not self.clock_was_set
        self.source = self.world.source()
        self.run(self.source.__aenter__())

    # --- What we ask ----------------------------------------------------------------------------

    @rule(domain=domains, asked=st.sampled_from([1, 3]))
    def lookup(self, domain: Domain, asked: int) -> None:
        model, now = self.models[domain], self.world.clock.monotonic()
        if not model.dns_known:
            self.recheck(domain)
            return
        spared = model.held(now) is not None and now - model.dns_failed < RETRY_AFTER
        expected = model.must_fetch(now) and not spared
        self.ask(domain, expected, self.together(domain, asked), took_record=not spared)

    @rule(domain=domains)
    def recheck(self, domain: Domain) -> None:
        expected = self.models[domain].must_fetch(self.world.clock.monotonic())
        self.ask(domain, expected, self.source.recheck_id(domain), took_record=True)

    @rule(domain=domains)
    def refetch(self, domain: Domain) -> None:
        model, now = self.models[domain], self.world.clock.monotonic()
        if model.held(now) is None:
            self.lookup(domain, 1)
        else:
            self.ask(domain, now - model.failed >= RETRY_AFTER, self.source.refetch(domain), took_record=False)

    async def together(self, domain: Domain, asked: int) -> PolicyLookup:
        answers = await asyncio.gather(*(self.source.lookup(domain) for _ in range(asked)))
        assert len({answer.policy for answer in answers}) == 1
        return answers[0]

    def ask(
        self, domain: Domain, expected: bool, question: Coroutine[Any, Any, PolicyLookup], *, took_record: bool
    ) -> None:
        model, now = self.models[domain], self.world.clock.monotonic()
        before, was_exact = len(model.fetches), model.exact
        found = self.run(question)
        model.loaded = True
        fetched = model.fetches[before:]
        if not was_exact:  # then only this: never another policy than the last one that was fetched
            last = model.last()
            assert found.held is None or (last is not None and found.held.policy == last.policy)
            if fetched and fetched[0].policy is not None and found.held is not None:
                model.held_id = found.held.id
            model.dns_known = False
            return
        assert len(fetched) == expected
        if took_record:
            model.dns_failed, model.dns_known = FOREVER_AGO if model.dns_works else now, True
        if fetched and fetched[0].policy is not None and took_record:
            model.held_id = model.record or ""
        held = model.held(now)
        assert (found.held.policy if found.held else None) == held
        assert found.policy == (held if held and held.mode is not STSMode.NONE else None)
        if found.held is not None:
            assert found.held.id == model.held_id
            assert found.expires is not None
            last = model.last()
            assert last is not None
            left = found.held.policy.max_age - timedelta(seconds=now - last.at)
            assert abs(found.expires - self.world.clock.now() - left) < timedelta(seconds=1)
        else:
            assert found.is_uncertain == (not model.dns_works or bool(model.record))

    @invariant()
    def the_refresher_lives(self) -> None:
        # If it died nobody would be told: policies would grow old, days later.
        refresher = self.source._refresher
        assert refresher is not None
        assert not refresher.done()


TestPolicyMachine = PolicyMachine.TestCase
TestPolicyMachine.settings = settings(
    max_examples=60 if LONG else 10, stateful_step_count=40, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
