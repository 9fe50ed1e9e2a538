"""Whether a kept connection will do for another call: the table behind every reuse."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, Any, cast

import pytest

from mailrider.delivery.connection.connect import Connector, ConnectRequest
from mailrider.delivery.connection.fallback import REMEMBERED, FallbackMemory
from mailrider.delivery.destination import Budget
from mailrider.model.domain import AddressLiteral, Domain, NextHop
from mailrider.model.event import discard
from mailrider.model.route import Candidate
from mailrider.model.security import (
    NO_REQUIREMENT,
    Mechanism,
    MXLevel,
    PeerEvidence,
    Requirement,
    TLSEvidence,
    TLSLevel,
    Verdict,
)
from mailrider.policy.judge import Judge
from mailrider.smtp.capabilities import NO_CAPABILITIES, Capabilities
from mailrider.testing.clock import FakeClock
from mailrider.x509.verify import TimedVerdict
from tests.support.problems import problem

if TYPE_CHECKING:
    from mailrider.model.tls_problem import TLSProblem

A, B, MX, BASE = (Domain(name) for name in ("a.test", "b.test", "mx.test", "base.test"))
LITERAL = AddressLiteral(IPv4Address("192.0.2.1"))
ADDRESS = "192.0.2.1"


@dataclass(frozen=True)
class FakePeer:
    host: NextHop = MX
    name: str = "mx.test"
    address: str = ADDRESS
    in_clear: TLSProblem | None = None


@dataclass(frozen=True)
class FakeSession:
    evidence: PeerEvidence
    peer: FakePeer = FakePeer()
    capabilities: Capabilities = NO_CAPABILITIES


def with_tls(sni: str | None = "mx.test", host: NextHop = MX, chain: bytes = b"good") -> FakeSession:
    tls = TLSEvidence("TLSv1.3", "TLS_AES_128_GCM_SHA256", (chain,), sni)
    return FakeSession(PeerEvidence(host, ADDRESS, 25, tls), FakePeer(host))


def lenient(version: str) -> FakeSession:
    """Opened where nothing demanded TLS, so that secure renegotiation was not insisted on."""
    tls = TLSEvidence(version, "some cipher", (b"good",), "mx.test")
    return FakeSession(PeerEvidence(MX, ADDRESS, 25, tls, lenient=True))


NOT_OFFERED = FakeSession(PeerEvidence(MX, ADDRESS, 25, None, problem("not offered")))
FELL_BACK = FakeSession(
    PeerEvidence(MX, ADDRESS, 25, None, problem("TLS failed")), FakePeer(in_clear=problem("TLS failed"))
)
AUTHENTICATED = Requirement(min_tls=TLSLevel.AUTHENTICATED, tls_reason="local_policy")
ENCRYPTED = Requirement(min_tls=TLSLevel.ENCRYPTED, tls_reason="local_policy")
SIGNED = Requirement(min_mx=MXLevel.DNSSEC, mx_reason="local_policy")
BY_BASE = Requirement(sni=BASE)


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.fallback = FallbackMemory(self.clock)
        judge = Judge(
            lambda chain, _names, _now: TimedVerdict(Verdict(chain == (b"good",), Mechanism.PKIX, "so it is")),
            lambda chain, _trust, _now: TimedVerdict(Verdict(chain == (b"good",), Mechanism.DANE, "so it is")),
        )
        nothing: Any = None
        self.connector = Connector(nothing, self.clock, nothing, judge, nothing, self.fallback, discard, 25)

    def will_do(self, session: FakeSession, opened_for: NextHop, call: ConnectRequest) -> bool:
        judgement = self.connector.judge_kept(call, cast("Any", session), opened_for.ascii)
        assert judgement is None or judgement.refusal is None
        return judgement is not None

    def call(
        self,
        next_hop: NextHop = A,
        requirement: Requirement = NO_REQUIREMENT,
        admitted: MXLevel = MXLevel.NONE,
        mx: NextHop = MX,
    ) -> ConnectRequest:
        return ConnectRequest(
            next_hop,
            Candidate(mx),
            IPv4Address(ADDRESS),
            requirement,
            admitted,
            Budget(self.clock, 300.0),
            lambda _: None,
        )


CASES = {
    "TLS for who demands nothing": (with_tls(), NO_REQUIREMENT, MXLevel.NONE, True),
    "a good certificate for who demands one": (with_tls(), AUTHENTICATED, MXLevel.NONE, True),
    "a bad certificate for who demands a good one": (with_tls(chain=b"bad"), AUTHENTICATED, MXLevel.NONE, False),
    "a bad certificate for who demands TLS": (with_tls(chain=b"bad"), ENCRYPTED, MXLevel.NONE, True),
    "TLS 1.2 without care for who demands nothing": (lenient("TLSv1.2"), NO_REQUIREMENT, MXLevel.NONE, True),
    "TLS 1.2 without care for who demands TLS": (lenient("TLSv1.2"), ENCRYPTED, MXLevel.NONE, False),
    "TLS 1.3 without care for who demands TLS": (lenient("TLSv1.3"), ENCRYPTED, MXLevel.NONE, True),
    "clear for who demands nothing": (NOT_OFFERED, NO_REQUIREMENT, MXLevel.NONE, True),
    "clear for who demands TLS": (NOT_OFFERED, ENCRYPTED, MXLevel.NONE, False),
    "the MX level is the call's own, too low": (with_tls(), SIGNED, MXLevel.NONE, False),
    "the MX level is the call's own, high enough": (with_tls(), SIGNED, MXLevel.DNSSEC, True),
    "the same SNI by DANE": (with_tls("base.test"), BY_BASE, MXLevel.NONE, True),
    "another SNI by DANE": (with_tls("mx.test"), BY_BASE, MXLevel.NONE, False),
    "an SNI by DANE for who has none": (with_tls("base.test"), NO_REQUIREMENT, MXLevel.NONE, False),
    "no SNI where the host has a name": (with_tls(None), NO_REQUIREMENT, MXLevel.NONE, False),
    "clear has no SNI": (NOT_OFFERED, BY_BASE, MXLevel.NONE, True),
}


@pytest.mark.parametrize(("session", "requirement", "admitted", "will_do"), CASES.values(), ids=CASES)
@pytest.mark.parametrize("opened_for", [A, B], ids=["opened for the same domain", "opened for another"])
def test_a_kept_connection(
    session: FakeSession, requirement: Requirement, admitted: MXLevel, will_do: bool, opened_for: NextHop
) -> None:
    world = World()
    assert world.will_do(session, opened_for, world.call(A, requirement, admitted)) is will_do


def test_the_sni_is_the_tlsa_base_domain_or_else_the_host_and_never_an_address() -> None:
    world = World()
    assert [world.call(A, each).server_name for each in (BY_BASE, NO_REQUIREMENT)] == ["base.test", "mx.test"]
    assert [world.call(A, each, mx=LITERAL).server_name for each in (BY_BASE, NO_REQUIREMENT)] == ["base.test", None]


def test_an_address_literal_has_no_sni() -> None:
    world = World()
    session = with_tls(None, LITERAL)
    assert world.will_do(session, LITERAL, world.call(LITERAL, mx=LITERAL))


def test_a_fallback_serves_its_own_domain_as_long_as_it_is_remembered() -> None:
    world = World()
    world.fallback.failed(ADDRESS, A, problem("TLS failed"))
    assert world.will_do(FELL_BACK, A, world.call(A))
    assert not world.will_do(FELL_BACK, A, world.call(B)), "not another domain"
    world.fallback.failed(ADDRESS, B, problem("TLS failed"))
    assert not world.will_do(FELL_BACK, A, world.call(B)), "not even if that one has to fall back as well"
    assert not world.will_do(FELL_BACK, A, world.call(A, ENCRYPTED)), "not a message that demands TLS"


async def test_a_fallback_that_is_forgotten_serves_nobody() -> None:
    world = World()
    world.fallback.failed(ADDRESS, A, problem("TLS failed"))
    await world.clock.advance(REMEMBERED)
    assert not world.will_do(FELL_BACK, A, world.call(A))


def test_a_fallback_that_a_later_success_has_cleared_serves_nobody() -> None:
    world = World()
    world.fallback.failed(ADDRESS, A, problem("TLS failed"))
    world.fallback.worked(ADDRESS, A)
    assert not world.will_do(FELL_BACK, A, world.call(A))
