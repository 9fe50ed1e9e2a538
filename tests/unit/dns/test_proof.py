"""The proof that a DNS server validates: it takes trust away, and gives nothing (RFC 4035 4.9.3)."""

from __future__ import annotations

import asyncio
import random
from contextlib import asynccontextmanager
from dataclasses import replace
from ipaddress import ip_address
from typing import TYPE_CHECKING

import dns.rcode
import pytest

from mailrider.dns.answer import LookupFailure, RecordType
from mailrider.dns.proof import (
    BOGUS_NAME,
    LATER,
    OPENING_WAIT,
    SIGNED_NAME,
    SOON,
    SOON_TIMES,
    Proof,
    ProofKeeper,
    ProofResult,
    apply_findings,
    judge_proof,
    next_look,
)
from mailrider.dns.servers import ServerAddress, choose_servers
from mailrider.dns.wire import FailedReply, Question, ServerReply
from mailrider.model.domain import Domain
from mailrider.model.event import Bug, Event, SecurityUnavailable, ServerTrustChanged
from mailrider.testing.clock import FakeClock
from tests.support.resolvers import asking
from tests.unit.dns.messages import ask, message, reply
from tests.unit.dns.test_stub import Network, Server, silent

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from mailrider.dns.caching import CachingResolver

ONE, TWO, AWAY = (ServerAddress(ip_address(ip)) for ip in ("127.0.0.1", "::1", "192.0.2.1"))
AD, PLAIN = "QR RD RA AD", "QR RD RA"
MX_ROW, A_ROW = ("iana.org.", "MX", "10 mx.iana.org."), ("dnssec-failed.org.", "A", "192.0.2.1")
NAME = Domain("signed.test")

SIGNED = ask("iana.org", "MX")
BOGUS = ask("dnssec-failed.org", "A")
WITH_AD, WITHOUT_AD, UNKNOWN_NAME = (
    reply(SIGNED, [MX_ROW], flags=AD),
    reply(SIGNED, [MX_ROW]),
    reply(SIGNED, rcode=dns.rcode.NXDOMAIN, soa="."),
)
REFUSES, SERVES, NO_BOGUS = (
    FailedReply(LookupFailure.SERVFAIL),
    reply(BOGUS, [A_ROW]),
    reply(BOGUS, rcode=dns.rcode.NXDOMAIN, soa="."),
)
SILENT = FailedReply(LookupFailure.TIMEOUT)

PROOFS = [
    (WITH_AD, REFUSES, Proof.VALIDATES),
    (WITH_AD, SERVES, Proof.DISPROVED),
    (WITHOUT_AD, REFUSES, Proof.DISPROVED),
    (WITHOUT_AD, SILENT, Proof.DISPROVED),
    (SILENT, SERVES, Proof.DISPROVED),
    (UNKNOWN_NAME, SERVES, Proof.DISPROVED),
    (WITH_AD, SILENT, Proof.UNKNOWN),
    (WITH_AD, NO_BOGUS, Proof.UNKNOWN),
    (SILENT, REFUSES, Proof.UNKNOWN),
    (SILENT, SILENT, Proof.UNKNOWN),
    (REFUSES, REFUSES, Proof.UNKNOWN),
    (UNKNOWN_NAME, NO_BOGUS, Proof.UNKNOWN),
    (reply(SIGNED, soa="iana.org.", flags=AD), REFUSES, Proof.UNKNOWN),
]


@pytest.mark.parametrize(("signed", "bogus", "expected"), PROOFS)
def test_what_two_answers_prove(
    signed: ServerReply | FailedReply, bogus: ServerReply | FailedReply, expected: Proof
) -> None:
    finding = judge_proof(signed, bogus)
    assert finding.proof is expected
    assert bool(finding.reason) is (expected is not Proof.VALIDATES)


YES, NO, UNKNOWN = (
    ProofResult(Proof.VALIDATES),
    ProofResult(Proof.DISPROVED, "it lies"),
    ProofResult(Proof.UNKNOWN, "silent"),
)


@pytest.mark.parametrize(
    ("before", "finding", "after"),
    [
        ({}, YES, {}),
        ({}, UNKNOWN, {}),
        ({}, NO, {ONE: "it lies"}),
        ({ONE: "it lied"}, UNKNOWN, {ONE: "it lied"}),
        ({ONE: "it lied"}, YES, {}),
    ],
)
def test_no_answer_leaves_trust_as_it_was(
    before: dict[ServerAddress, str], finding: ProofResult, after: dict[ServerAddress, str]
) -> None:
    choice = replace(choose_servers([ONE]), disproved=before)
    assert apply_findings(choice, {ONE: finding}) == after


@pytest.mark.parametrize(
    ("is_well", "same", "expected"),
    [
        ([True], 1, LATER),
        ([True, False], 1, SOON),
        ([False], SOON_TIMES - 1, SOON),
        ([False], SOON_TIMES, LATER),
        ([], 1, SOON),
    ],
)
def test_servers_are_looked_at_soon_while_something_may_change(is_well: list[bool], same: int, expected: float) -> None:
    assert next_look(is_well, same) == expected


class Upstream:
    """A server that is asked for the two names of a proof, and for `NAME`, which it calls authentic."""

    def __init__(self, *, signed: str = AD, refuses: bool = True) -> None:
        self.signed, self.refuses, self.is_silent = signed, refuses, False
        self.proofs = 0

    async def __call__(self, question: Question) -> bytes:
        if self.is_silent:
            return await silent(question)
        if question.name == SIGNED_NAME:
            self.proofs += 1
            return message(question, [MX_ROW], flags=self.signed)
        if question.name == BOGUS_NAME:
            return message(question, rcode=dns.rcode.SERVFAIL) if self.refuses else message(question, [A_ROW])
        return message(question, [("signed.test.", "A", "192.0.2.7")], flags=AD)


@asynccontextmanager
async def kept(
    clock: FakeClock, servers: dict[ServerAddress, Server], events: list[Event], *, seconds: float = 5.0
) -> AsyncIterator[CachingResolver]:
    async with asking(
        choose_servers(servers),
        clock=clock,
        rng=random.Random(1),
        attempts=1,
        transport=Network(servers),
        timeout=seconds,
    ) as stub:
        opening = asyncio.create_task(ProofKeeper(stub, clock, events.append).__aenter__())
        await clock.advance(0)
        if not opening.done():
            await clock.advance(OPENING_WAIT)
        keeper = await opening
        try:
            yield stub
        finally:
            await keeper.__aexit__()
    assert clock.pending == 0


async def is_authentic(stub: CachingResolver) -> bool:
    return (await stub.lookup(NAME, RecordType.A)).authentic


async def test_a_server_that_validates_keeps_its_trust_and_nothing_is_said() -> None:
    clock, server = FakeClock(), Upstream()
    events: list[Event] = []
    async with kept(clock, {ONE: server}, events) as stub:
        assert await is_authentic(stub)
        await clock.advance(LATER - 1)
        assert server.proofs == 1
        await clock.advance(1)
        assert server.proofs == 2
    assert events == []


@pytest.mark.parametrize("server", [Upstream(signed=PLAIN), Upstream(refuses=False)], ids=["no AD", "serves bogus"])
async def test_a_forwarder_on_loopback_loses_its_trust_at_the_start(server: Upstream) -> None:
    clock = FakeClock()
    events: list[Event] = []
    async with kept(clock, {ONE: server}, events) as stub:
        assert not stub.validates
        assert not await is_authentic(stub)
    changed, off = events
    assert isinstance(changed, ServerTrustChanged)
    assert (changed.server, changed.believed) == ("127.0.0.1:53", False)
    assert isinstance(off, SecurityUnavailable)
    assert "127.0.0.1:53: it" in off.reason


async def test_a_proof_gives_no_trust_to_a_server_elsewhere_and_does_not_even_ask_it() -> None:
    clock, server = FakeClock(), Upstream()
    events: list[Event] = []
    async with kept(clock, {AWAY: server}, events) as stub:
        assert not await is_authentic(stub)
        await clock.advance(LATER)
    assert server.proofs == 0
    assert [type(event) for event in events] == [SecurityUnavailable]


async def test_a_silent_server_holds_the_start_up_for_a_moment_only_and_stays_as_trusted_as_it_was() -> None:
    clock, server = FakeClock(), Upstream()
    events: list[Event] = []
    server.is_silent = True
    async with kept(clock, {ONE: server}, events) as stub:
        assert stub.validates
        server.is_silent = False
        server.signed = PLAIN
        await clock.advance(5 + SOON)
        assert not stub.validates
    assert [type(event) for event in events] == [ServerTrustChanged, SecurityUnavailable]


async def test_what_was_kept_or_is_under_way_when_trust_goes_is_not_believed_either() -> None:
    clock, server = FakeClock(), Upstream()
    events: list[Event] = []
    release = asyncio.Event()

    async def slow(question: Question) -> bytes:
        if question.name == Domain("slow.test"):
            await release.wait()
            return message(question, [("slow.test.", "A", "192.0.2.8")], flags=AD)
        return await server(question)

    async with kept(clock, {ONE: slow}, events, seconds=2 * LATER) as stub:
        assert await is_authentic(stub)
        under_way = asyncio.create_task(stub.lookup(Domain("slow.test"), RecordType.A))
        await clock.advance(0)
        server.signed = PLAIN
        await clock.advance(LATER)
        assert not await is_authentic(stub)
        release.set()
        assert not (await under_way).authentic


async def test_a_server_that_validates_again_is_believed_again_and_that_is_said() -> None:
    clock, server = FakeClock(), Upstream(signed=PLAIN)
    events: list[Event] = []
    async with kept(clock, {ONE: server}, events) as stub:
        assert not await is_authentic(stub)
        server.signed = AD
        await clock.advance(SOON)
        assert await is_authentic(stub)
    assert [event.believed for event in events if isinstance(event, ServerTrustChanged)] == [False, True]


async def test_of_two_servers_the_one_that_does_not_validate_is_not_asked_any_more() -> None:
    clock = FakeClock()
    events: list[Event] = []
    async with kept(clock, {ONE: Upstream(refuses=False), TWO: Upstream()}, events) as stub:
        assert stub.choice.asked == (TWO,)
        assert await is_authentic(stub)
    assert [type(event) for event in events] == [ServerTrustChanged]


async def test_a_bug_in_a_proof_is_told_and_the_next_one_comes_all_the_same() -> None:
    clock, server = FakeClock(), Upstream()
    events: list[Event] = []

    async def broken(question: Question) -> bytes:
        if server.proofs == 0 and question.name == SIGNED_NAME:
            server.proofs += 1
            raise KeyError("bug")
        return await server(question)

    async with kept(clock, {ONE: broken}, events) as stub:
        assert stub.validates
        await clock.advance(SOON)
        assert server.proofs == 2
    assert [type(event) for event in events] == [Bug]
