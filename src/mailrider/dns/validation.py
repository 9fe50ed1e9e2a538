"""Keeps validation in this process going: probes the servers, and tells the resolver whom to ask.

What always holds: lookups wait for the first probe; `validate yes` never asks anybody without validation; with `auto`
a server that counts is believed for as long as no proof takes its trust away, and then we validate ourselves; once
validation worked, no answer from outside turns it off.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from mailrider.dns.anchors import missing_keys
from mailrider.dns.probe import Fitness, Validating, next_plan
from mailrider.dns.proof import next_look
from mailrider.dns.validating import Failing, Unvalidated, Validation
from mailrider.errors import LocalError
from mailrider.model.event import (
    Bug,
    DNSSECValidationFails,
    DNSSECValidationWorks,
    DNSServerUnfit,
    RootKeysMissing,
    SecurityUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.anchors import Anchor
    from mailrider.dns.caching import CachingResolver
    from mailrider.dns.probe import Plan, Prober, ProbeResult
    from mailrider.dns.servers import ServerAddress
    from mailrider.model.event import Emit

DAY: Final = 86400.0  # seconds between two warnings of the same missing key of the root


class Proven:
    """That validation worked here. Configurations that follow each other share it, and so do processes of a daemon.

    `plan` is what was done when it worked the last time; None: it is not known to have worked.
    """

    def __init__(self, *, has_worked: bool = False, tell: Callable[[], object] = lambda: None) -> None:
        """`has_worked`: another process of this daemon says so; `tell` is called when it works here for the first time,
        for those that start later."""
        self.plan = Validating() if has_worked else None
        self._tell = tell

    def works(self, plan: Validating) -> None:
        """Note that validation works here, done like this."""
        was_known, self.plan = self.plan is not None, plan
        if not was_known:
            self._tell()


@dataclass(frozen=True, slots=True)
class Validates:
    """How this process validates: `is_auto` for `validate auto`, `name` is the library's and its version."""

    servers: tuple[ServerAddress, ...]
    anchors: tuple[Anchor, ...]
    name: str
    is_auto: bool

    def __str__(self) -> str:
        return f"{self.name} with the trust anchors {', '.join(map(str, self.anchors))}"

    @property
    def may_turn_off(self) -> bool:
        """True if the servers may be asked without validation, rather than not at all."""
        return self.is_auto and all(server.is_plain for server in self.servers)


@dataclass(slots=True, eq=False)
class ValidationKeeper:
    """Probes for as long as it is entered; starts a task. It owns the validators that the resolver asks."""

    resolver: CachingResolver
    how: Validates
    prober: Prober
    clock: Clock
    emit: Emit
    proven: Proven
    _plan: Plan | None = None
    _task: asyncio.Task[None] | None = None
    _missing: tuple[int, ...] = ()
    _warned: float = -DAY

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._keep())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        validation = self.resolver.source
        if isinstance(validation, Validation):
            await validation.aclose()

    async def _keep(self) -> None:
        before: dict[ServerAddress, Fitness] = {}
        same = 0
        while True:
            if self._believes_others():
                await self._believe_others()
            findings: dict[ServerAddress, Fitness] = {}
            try:
                findings = await self._probe(before)
            except LocalError as error:
                await self._enter(Failing(str(error)))
            except Exception as error:
                self.emit(Bug("validation of DNSSEC", error))
            same = same + 1 if findings == before else 1
            before = findings
            await self.clock.sleep(next_look([each is Fitness.FIT for each in findings.values()], same))

    def _believes_others(self) -> bool:
        return self.how.is_auto and not isinstance(self._plan, Validating) and self.resolver.choice.validates

    async def _believe_others(self) -> None:
        """Ask the servers that count, until none does."""
        self.resolver.use(Unvalidated())
        self._plan = None
        while self.resolver.choice.validates:
            self.resolver.trust_changed.clear()
            await self.resolver.trust_changed.wait()

    async def _probe(self, before: Mapping[ServerAddress, Fitness]) -> dict[ServerAddress, Fitness]:
        findings = await self.prober.probe(self.how.servers)
        for server, finding in findings.items():
            if finding.fitness is not Fitness.FIT and before.get(server) is not finding.fitness:
                self.emit(DNSServerUnfit(str(server), finding.reason))
        known = self._plan or self.proven.plan
        await self._enter(next_plan(known, findings, may_turn_off=self.how.may_turn_off))
        self._look_at_root(findings)
        return {server: finding.fitness for server, finding in findings.items()}

    async def _enter(self, plan: Plan) -> None:
        """Do what the plan says, unless it is being done."""
        before, self._plan = self._plan, plan
        if type(before) is type(plan) and (before == plan or not isinstance(plan, Validating)):
            return
        left = self.resolver.source
        match plan:
            case Validating():
                await self._validate(plan)
            case Unvalidated():
                self.resolver.use(plan)
                self.emit(SecurityUnavailable(self.resolver.dnssec_off))
            case Failing(reason):
                self.resolver.use(plan)
                self.emit(DNSSECValidationFails(reason))
        if isinstance(left, Validation):
            await left.aclose()

    async def _validate(self, plan: Validating) -> None:
        self.resolver.use(await Validation.open(self.prober.open_validator, plan.servers))
        self.proven.works(plan)
        self.emit(DNSSECValidationWorks(", ".join(map(str, plan.servers)), self.how.name))

    def _look_at_root(self, findings: Mapping[ServerAddress, ProbeResult]) -> None:
        """Warn of keys of the root that we lack: at once, and each day again."""
        keys = {key for finding in findings.values() for key in finding.root_keys}
        missing = missing_keys(self.how.anchors, keys)
        now = self.clock.monotonic()
        if missing and (missing != self._missing or now - self._warned >= DAY):
            self._warned = now
            self.emit(RootKeysMissing(missing))
        self._missing = missing or self._missing
