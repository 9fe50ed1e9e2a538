"""The security matrix in memory: DNS is a table, policies come from nowhere, servers are evidence. No I/O at all.

`Worlds.outcome(point)` runs the attempt that delivers, over the destination, policies and judge that deliver.
"""

from __future__ import annotations

import math
import random
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, cast

from mailrider.dane.match import judge_dane
from mailrider.delivery.attempt import Attempt
from mailrider.delivery.connection.peer import Peer
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Destination, RouteMemory, Routing
from mailrider.delivery.explain.dry_run import DryLease, DrySession
from mailrider.delivery.job import AttemptRules, Job
from mailrider.delivery.race import AddressHistory
from mailrider.dns.answer import LookupFailure
from mailrider.lab.ca import CA, Kind
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import discard
from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.model.security import MXLevel, PeerEvidence, TLSARecord, TLSEvidence, TLSLevel
from mailrider.mtasts.policy import MXPattern, STSMode, STSPolicy
from mailrider.mtasts.record import NoRecord, STSRecord
from mailrider.policy.dane import DANEPolicies
from mailrider.policy.judge import Judge
from mailrider.policy.levels import DNSSECPolicy, LocalMinimum
from mailrider.policy.requiretls import message_security
from mailrider.policy.settings import LocalPolicy
from mailrider.policy.sts.cache import CachedPolicy
from mailrider.policy.sts.lookup import Origin, PolicyLookup
from mailrider.policy.sts.policy import STSPolicies
from mailrider.smtp.capabilities import NO_CAPABILITIES
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, Row, TableRow, mx
from mailrider.x509.anchors import Anchors
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.describe import describe_chain
from mailrider.x509.verify import judge_chain
from tests.support.problems import problem
from tests.support.security_matrix import Expected, Point

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.connection.session import Session
    from mailrider.lab.ca import LabCertificate
    from mailrider.model.event import Emit
    from mailrider.policy.base import Policy
    from mailrider.policy.sts.source import PolicySource

DOMAIN, HOST = Domain("good.test"), Domain("mx.hosts.test")
NOW = datetime(2026, 6, 15, 12, 0, tzinfo=UTC)
ADDRESS = IPv4Address("192.0.2.25")
LEVELS = (MXLevel.NONE, MXLevel.MTASTS, MXLevel.DNSSEC), (TLSLevel.NONE, TLSLevel.ENCRYPTED, TLSLevel.AUTHENTICATED)
ALL = ("mtasts", "dane", "dnssec", "local_policy")


@cache
def authority() -> CA:
    return CA(now=NOW)


@cache
def certificate(kind: str) -> LabCertificate:
    """The certificate of the MX host, right or wrong."""
    return authority().issue([HOST.ascii], Kind(kind))


def tlsa_row(point: Point) -> Row:
    """What DNS says to the question for TLSA records."""
    leaf = describe_chain(certificate(point.cert).chain_der)[0]
    issuer = describe_chain(certificate("valid").chain_der)[1]
    other = bytes(32)
    match point.tlsa:
        case "none":
            return TableRow()
        case "EE match":
            return TLSARecord(3, 1, 1, bytes.fromhex(leaf.spki_sha256))
        case "EE mismatch":
            return TLSARecord(3, 1, 1, other)
        case "TA match":
            return TLSARecord(2, 0, 1, bytes.fromhex(issuer.sha256))
        case "TA mismatch":
            return TLSARecord(2, 0, 1, other)
        case "unusable":
            return TLSARecord(1, 1, 1, bytes.fromhex(leaf.spki_sha256))
        case "failure":
            return LookupFailure.SERVFAIL


class KnownPolicy:
    """A `PolicySource` that always knows the answer."""

    def __init__(self, lookup: PolicyLookup) -> None:
        self._lookup = lookup

    def peek(self, _: Domain) -> PolicyLookup:
        return self._lookup

    async def refetch(self, _: Domain, *, since: float) -> PolicyLookup:
        del since
        return self._lookup

    async def recheck_id(self, _: Domain) -> PolicyLookup:
        return self._lookup


def sts_lookup(point: Point, clock: FakeClock) -> PolicyLookup:
    """What is known of the domain's MTA-STS policy."""
    if point.sts == "none":
        return PolicyLookup(DOMAIN, None, None, None, NoRecord("no TXT record begins with v=STSv1;"))
    mode, _, fit = point.sts.partition(" ")
    named = "mx.hosts.test" if fit == "match" else "mx.elsewhere.test"
    policy = STSPolicy(STSMode(mode), timedelta(days=7), (MXPattern.parse(named),))
    held = CachedPolicy(DOMAIN, policy, "1", clock.now())
    return PolicyLookup(DOMAIN, held, Origin.CACHE, None, STSRecord("1"))


@dataclass(frozen=True, slots=True)
class ProvenPeer:
    """As much of a session as an understudy looks at."""

    peer: Peer
    evidence: PeerEvidence
    capabilities = NO_CAPABILITIES


class Connections:
    """Connections to a server as the point describes it."""

    def __init__(self, point: Point, judge: Judge, clock: FakeClock) -> None:
        self._point = point
        self._judge = judge
        self._clock = clock

    @asynccontextmanager
    async def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AsyncIterator[DryLease]:
        del fresh
        session = cast("Session", self._connect(call))
        judgement = self._judge.judge(call.requirement, call.admitted, session.evidence, self._clock.now())
        yield DryLease(DrySession(session.peer, session.evidence, session.capabilities), judgement)

    def _connect(self, call: ConnectRequest) -> ProvenPeer:
        peer = Peer(call.mx, str(call.address), 25, call.server_name)
        tls, why = None, "the server does not offer STARTTLS"
        if self._point.starttls == "offered":
            tls = TLSEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", certificate(self._point.cert).chain_der)
        elif self._point.starttls == "broken":
            why = "the handshake failed"
            if call.requirement.demands_tls:
                raise Unusable(
                    TryResult.TLS,
                    Reply.make(451, "4.7.5", why),
                    handshake=True,
                    may_fall_back=True,
                    problem=problem(why),
                )
        return ProvenPeer(peer, PeerEvidence(call.mx, str(call.address), 25, tls, None if tls else problem(why)))


class Worlds:
    """All worlds of the matrix, each made once. `listed` is what stands in `mx_auth`."""

    def __init__(self, listed: Sequence[str] = ALL, emit: Emit = discard) -> None:
        self.clock = FakeClock(NOW)
        self._listed = listed
        self._emit = emit
        self._resolvers: dict[tuple[object, ...], FakeResolver] = {}
        anchors = Anchors([parse_certificate(authority().root_der)])
        self._judge = Judge(lambda chain, names, now: judge_chain(chain, anchors, names, now), judge_dane)

    async def outcome(self, point: Point) -> Expected:
        """What becomes of the message, by the engine."""
        resolver = self._resolver(point)
        requiretls = "REQUIRETLS" in point.message
        envelope = Envelope(
            ReversePath(Mailbox("a", Domain("sender.test"))), (Recipient(Mailbox("b", DOMAIN)),), requiretls=requiretls
        )
        waiver = [b"No"] if point.message == "TLS-Required: No" else []
        security = message_security(envelope, waiver, override=True, relaxed=point.message != "strict REQUIRETLS")
        policies = self._policies(point, resolver, ALL if security.gathers_evidence else self._listed)
        routing = Routing(
            resolver,
            random.Random(1),
            self._emit,
            Domain("sender.test"),
            lambda _: (False, math.inf),
            self.clock,
            300.0,
            RouteMemory(resolver, self.clock, force_ipv4=True),
            AddressHistory(self.clock),
            force_ipv4=True,
        )
        destination = Destination(DOMAIN, routing, policies if security.policies_bind else (), security.requirement)
        connections = Connections(point, self._judge, self.clock)
        job = Job(envelope, Content.inspect(b"Subject: x\r\n\r\n"), security)
        attempt = Attempt(job, envelope.recipients, destination, connections, AttemptRules(), self.clock, self._emit)
        (result,) = await attempt.run()
        code, enhanced, levels = result.reply.code, str(result.reply.enhanced), result.security
        if result.status != "delivered":
            return Expected(code, enhanced)
        by = levels.authenticated_by or ""
        return Expected(code, enhanced, levels.mx_level.word, levels.tls_level.word, by)

    def _policies(self, point: Point, resolver: FakeResolver, listed: Sequence[str]) -> list[Policy]:
        source = cast("PolicySource", KnownPolicy(sts_lookup(point, self.clock)))
        mx_levels, tls_levels = LEVELS
        minimum = LocalPolicy(min_mx_level=mx_levels[point.min_mx], min_tls_level=tls_levels[point.min_tls])
        every: dict[str, Policy] = {
            "mtasts": STSPolicies(source, self.clock, self._emit),
            "dane": DANEPolicies(resolver, 25),
            "dnssec": DNSSECPolicy(),
            "local_policy": LocalMinimum(minimum),
        }
        return [policy for name, policy in every.items() if name in listed]

    def _resolver(self, point: Point) -> FakeResolver:
        key = (point.mx_signed, point.address_signed, point.tlsa, point.cert)
        if key not in self._resolvers:
            rows: dict[tuple[str, str], Row] = {
                ("good.test", "MX"): TableRow([mx(10, "mx.hosts.test")], authentic=point.mx_signed),
                ("mx.hosts.test", "A"): TableRow([ADDRESS], authentic=point.address_signed),
                ("_25._tcp.mx.hosts.test", "TLSA"): tlsa_row(point),
            }
            signed = ["_tcp.mx.hosts.test"]
            self._resolvers[key] = FakeResolver(rows, signed=signed, caching=True, clock=self.clock)
        return self._resolvers[key]
