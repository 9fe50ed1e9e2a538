"""Does a DNS server that counts really validate? Asked at the start, and again and again.

A server counts by where it is (`dns.servers`), but on 127.0.0.1 there may be a forwarder that hands on the AD bit of
somebody else (RFC 4035 4.9.3), or a resolver that was never told to validate. So each server that counts is asked for
a name that is signed, whose answer must carry AD, and for a name whose signature is wrong on purpose, which a validator
refuses. `judge_proof` is pure; `ProofKeeper` asks.

What always holds: a proof takes trust away and gives back what it took, and never gives trust to a server that does
not count by where it is. No answer proves nothing: then all stays as it was. A forwarder in front of a validator
passes; no test can see the path behind a server.
"""

from __future__ import annotations

import asyncio
import enum
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mailrider.clock import after
from mailrider.dns.answer import LookupFailure, RecordType
from mailrider.dns.servers import CURE
from mailrider.dns.wire import FailedReply, ServerReply
from mailrider.model.domain import Domain
from mailrider.model.event import Bug, SecurityUnavailable, ServerTrustChanged

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.dns.caching import CachingResolver
    from mailrider.dns.servers import ServerAddress, ServerChoice
    from mailrider.model.event import Emit

# Names that anybody may ask for to learn whether a resolver validates.
SIGNED_NAME = Domain("iana.org")
BOGUS_NAME = Domain("dnssec-failed.org")

SOON = 60.0  # seconds until servers are looked at again, while the last look did not show that all is well
LATER = 3600.0  # seconds, once it did, or when `SOON_TIMES` looks in a row said the same
SOON_TIMES = 10
OPENING_WAIT = 2.0  # seconds that a start waits for the first proof; it is then finished in the background


class Proof(enum.Enum):
    """What one proof showed of one server."""

    VALIDATES = enum.auto()
    UNKNOWN = enum.auto()
    DISPROVED = enum.auto()


@dataclass(frozen=True, slots=True)
class ProofResult:
    """A proof's result; `reason` is there if it is not `VALIDATES`."""

    proof: Proof
    reason: str = ""


def judge_proof(signed: ServerReply | FailedReply, bogus: ServerReply | FailedReply) -> ProofResult:
    """What the answers for the MX records of `SIGNED_NAME` and the address of `BOGUS_NAME` show."""
    if isinstance(bogus, ServerReply) and bogus.has(BOGUS_NAME, RecordType.A):
        return ProofResult(Proof.DISPROVED, f"it gives an answer for {BOGUS_NAME}, whose signature is wrong on purpose")
    if isinstance(signed, ServerReply) and signed.has(SIGNED_NAME, RecordType.MX) and not signed.authentic:
        return ProofResult(Proof.DISPROVED, f"its answer for {SIGNED_NAME}, which is signed, comes without AD")
    if isinstance(signed, FailedReply):
        return ProofResult(Proof.UNKNOWN, f"no answer for {SIGNED_NAME}: {signed.failure}")
    if not signed.has(SIGNED_NAME, RecordType.MX):  # a closed network, with names of its own
        return ProofResult(Proof.UNKNOWN, f"it does not know {SIGNED_NAME}")
    if isinstance(bogus, ServerReply) or bogus.failure is not LookupFailure.SERVFAIL:
        return ProofResult(Proof.UNKNOWN, f"whether it refuses {BOGUS_NAME} is not known")
    return ProofResult(Proof.VALIDATES)


def apply_findings(choice: ServerChoice, findings: dict[ServerAddress, ProofResult]) -> dict[ServerAddress, str]:
    """Which servers are disproved now, and why: what is not known stays as it was."""
    disproved = dict(choice.disproved)
    for server, finding in findings.items():
        if finding.proof is Proof.DISPROVED:
            disproved[server] = finding.reason
        elif finding.proof is Proof.VALIDATES:
            disproved.pop(server, None)
    return disproved


def next_look(is_well: Collection[bool], same: int) -> float:
    """Seconds until the next proof, or probe; `same` is how many in a row had these results, one for each server."""
    return LATER if (is_well and all(is_well)) or same >= SOON_TIMES else SOON


class ProofKeeper:
    """Proves the servers of a resolver, at the start and for as long as it is entered; starts a task.

    Opening waits for the first proof, but not longer than `OPENING_WAIT`: mail waits for no silent server.
    """

    def __init__(self, resolver: CachingResolver, clock: Clock, emit: Emit) -> None:
        self._resolver = resolver
        self._clock = clock
        self._emit = emit
        self._proven = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if not self._resolver.choice.counting:
            self._emit(SecurityUnavailable(f"{self._resolver.dnssec_off}; {CURE}"))
            return self  # nothing can give trust
        self._task = asyncio.create_task(self._keep())
        try:
            with suppress(TimeoutError):
                async with after(self._clock, OPENING_WAIT):
                    await self._proven.wait()
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _keep(self) -> None:
        before: dict[ServerAddress, ProofResult] = {}
        same = 0
        while True:
            findings = before
            try:
                findings = await self._prove()
            except Exception as error:
                self._emit(Bug("proof that the DNS servers validate", error))
            self._proven.set()
            same = same + 1 if findings == before else 1
            before = findings
            is_well = [each.proof is Proof.VALIDATES for each in findings.values()]
            await self._clock.sleep(next_look(is_well, same))

    async def _prove(self) -> dict[ServerAddress, ProofResult]:
        servers = self._resolver.choice.counting
        findings = dict(zip(servers, await asyncio.gather(*map(self._prove_server, servers)), strict=True))
        self._apply(findings)
        return findings

    async def _prove_server(self, server: ServerAddress) -> ProofResult:
        ask = self._resolver.servers.ask
        signed, bogus = await asyncio.gather(
            ask(server, SIGNED_NAME, RecordType.MX), ask(server, BOGUS_NAME, RecordType.A)
        )
        return judge_proof(signed, bogus)

    def _apply(self, findings: dict[ServerAddress, ProofResult]) -> None:
        choice = self._resolver.choice
        disproved = apply_findings(choice, findings)
        if disproved == choice.disproved:
            return
        changed = replace(choice, disproved=disproved)
        self._resolver.choose(changed)
        for server in choice.counting:
            if (server in disproved) != (server in choice.disproved):
                self._emit(ServerTrustChanged(str(server), server not in disproved, disproved.get(server, "")))
        if choice.validates and self._resolver.dnssec_off:
            self._emit(SecurityUnavailable(f"{self._resolver.dnssec_off}; {CURE}"))
