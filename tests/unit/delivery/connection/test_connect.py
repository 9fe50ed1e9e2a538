"""New connections: dialled, opened, with the fallback in clear where nothing demands TLS."""

from __future__ import annotations

import asyncio
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.connection.connect import DAY, Connector, ConnectRequest
from mailrider.delivery.connection.fallback import REMEMBERED, FallbackMemory
from mailrider.delivery.connection.peer import SessionRules
from mailrider.delivery.connection.unusable import Unusable
from mailrider.delivery.destination import Budget
from mailrider.model import event as events
from mailrider.model.domain import Domain
from mailrider.model.event import ConnectionJudged, ConnectionOpened, FellBackToClear
from mailrider.model.route import Candidate
from mailrider.model.security import NO_REQUIREMENT, Mechanism, MXLevel, Requirement, TLSLevel, Verdict
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import PoliciesSeen, STSSeen, TLSSessionSeen
from mailrider.net.errors import ConnectRefused, LocalAddressUnavailable
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import make_client_context
from mailrider.policy.judge import Judge
from mailrider.testing.channels import MemoryDialer
from mailrider.testing.clock import FakeClock
from mailrider.x509.verify import TimedVerdict
from tests.support.channels import HOST, client_context, server_context, settle
from tests.unit.delivery.scripted import Server

if TYPE_CHECKING:
    from mailrider.delivery.connection.session import Session
    from mailrider.model.event import Event
    from mailrider.model.outcome import Try
    from mailrider.net.channel import Channel
    from mailrider.net.tls import ClientContext

A, MX = Domain("a.test"), Domain(HOST)
ADDRESS = ip_address("192.0.2.25")
DEMANDS = Requirement(min_tls=TLSLevel.ENCRYPTED, tls_reason="local_policy")

CLEAR = "S: 220 mx\nC: EHLO client.test\nS: 250 mx"
OFFERS = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 STARTTLS\n"
BREAKS = OFFERS + "C: STARTTLS\nS: 220 Go\noctets 5\nclose"
WORKS = OFFERS + "C: STARTTLS\nS: 220 Go\nTLS\nC: EHLO client.test\nS: 250 mx"
SILENT = OFFERS + "C: STARTTLS\nS: 220 Go"
TELLING = ("tls1.2 tls1.2", "tls1.3 tls1.3")  # the version tells which of two contexts was used
CHUNKS = "S: 220 mx\nC: EHLO client.test\nS: 250-mx\nS: 250 CHUNKING\n"


class World:
    """A connector, and what each connection in turn meets at the only address."""

    def __init__(
        self,
        *scripts: str,
        failure: Exception | None = None,
        context: ClientContext | None = None,
        strict_context: ClientContext | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.notes: list[Try] = []
        self.servers: list[Server] = []
        self._scripts = iter(scripts)
        hosts: Any = {(str(ADDRESS), 25): failure or self._accept}
        problem = TLSProblem(TLSProblemKind.NOT_TRUSTED, "nobody vouches for it", "X509_V_ERR_UNSPECIFIED")
        verdict = TimedVerdict(Verdict(False, Mechanism.PKIX, "nobody vouches for it", (problem,)))
        self.connector = Connector(
            MemoryDialer(self.clock, hosts),
            self.clock,
            context or client_context(),
            Judge(lambda *_: verdict, lambda *_: verdict),
            SessionRules(Domain("client.test"), 30, 60),
            FallbackMemory(self.clock),
            self.events.append,
            25,
            strict_context=strict_context,
        )

    def _accept(self, channel: Channel) -> Server:
        self.servers.append(Server(self.clock, next(self._scripts), context=server_context(), accepted=channel))
        return self.servers[-1]

    def call(
        self,
        requirement: Requirement = NO_REQUIREMENT,
        next_hop: Domain = A,
        seen: PoliciesSeen | None = None,
        **more: Any,
    ) -> ConnectRequest:
        return ConnectRequest(
            next_hop,
            Candidate(MX),
            ADDRESS,
            requirement,
            MXLevel.NONE,
            Budget(self.clock, 300),
            self.notes.append,
            policies_seen=None if seen is None else lambda: seen,
            **more,
        )

    async def open(self, **more: Any) -> Session:
        session = await self.connector.open(self.call(**more))
        session.abort()
        await settle()
        return session

    async def unusable(self, **more: Any) -> Unusable:
        with pytest.raises(Unusable) as caught:
            await self.open(**more)
        await settle()
        return caught.value

    def of(self, kind: type[Event]) -> list[Any]:
        return [event for event in self.events if isinstance(event, kind)]


async def test_a_connection_is_opened_and_told() -> None:
    world = World(WORKS)
    session = await world.open()
    (opened,) = world.of(ConnectionOpened)
    assert (opened.mx, opened.address, opened.tls_version) == (HOST, "192.0.2.25", "TLSv1.3")
    assert (session.is_encrypted, world.notes) == (True, [])


@pytest.mark.parametrize(("requirement", "version"), [(NO_REQUIREMENT, "TLSv1.2"), (DEMANDS, "TLSv1.3")])
async def test_what_demands_tls_uses_the_context_that_insists_on_secure_renegotiation(
    requirement: Requirement, version: str
) -> None:
    usual, strict = (make_client_context(TLSClientSettings(protocols=each)) for each in TELLING)
    session = await World(WORKS, context=usual, strict_context=strict).open(requirement=requirement)
    assert session.evidence.tls is not None
    assert (session.evidence.tls.version, session.evidence.lenient) == (version, requirement is NO_REQUIREMENT)


async def test_a_broken_handshake_means_one_new_connection_in_clear() -> None:
    world = World(BREAKS, OFFERS)
    session = await world.open()
    assert len(world.servers) == 2
    assert b"STARTTLS" not in world.servers[1].received
    assert session.evidence.tls is None
    assert "TLS handshake with" in session.evidence.clear_reason
    assert [note.result.value for note in world.notes] == ["fallback"]
    assert [event.address for event in world.of(FellBackToClear)] == ["192.0.2.25"]


@pytest.mark.parametrize("reply", ["454 4.7.0 Not now", "502 5.5.1 No"])
async def test_a_refused_starttls_is_told_where_the_message_goes_in_clear(reply: str) -> None:
    world = World(f"{OFFERS}C: STARTTLS\nS: {reply}", f"{OFFERS}C: STARTTLS\nS: {reply}")
    session = await world.open()
    assert (session.is_encrypted, len(world.servers)) == (False, 1)
    assert [(note.result.value, note.reply.code) for note in world.notes] == [("fallback", int(reply[:3]))]
    assert [event.address for event in world.of(FellBackToClear)] == ["192.0.2.25"]
    await world.open(requirement=DEMANDS)
    assert len(world.notes) == 1, "where TLS is demanded it is a refusal, and told as one"


async def test_where_something_demands_tls_there_is_none_in_clear() -> None:
    world = World(BREAKS)
    error = await world.unusable(requirement=DEMANDS)
    assert (error.stage.value, len(world.servers), world.notes) == ("tls", 1, [])


async def test_a_fallback_is_remembered_for_ten_minutes_for_that_domain() -> None:
    world = World(BREAKS, OFFERS, OFFERS, WORKS, WORKS)
    await world.open()
    remembered = await world.open()
    assert (len(world.servers), remembered.is_encrypted) == (3, False)
    assert (await world.open(next_hop=Domain("b.test"))).is_encrypted
    await world.clock.advance(REMEMBERED)
    assert (await world.open()).is_encrypted
    assert len(world.notes) == 1


async def test_who_knows_no_chunks_is_spared_them_for_a_day() -> None:
    world = World(CHUNKS, CHUNKS, CHUNKS)
    assert (await world.open()).capabilities.chunking
    world.connector.chunks_not_known(world.call())
    assert not (await world.open()).capabilities.chunking
    await world.clock.advance(DAY)
    assert (await world.open()).capabilities.chunking


async def test_what_is_remembered_does_not_bind_who_demands_tls_and_a_success_clears_it() -> None:
    world = World(BREAKS, OFFERS, WORKS, WORKS)
    await world.open()
    assert (await world.open(requirement=DEMANDS)).is_encrypted
    assert (await world.open()).is_encrypted


async def test_a_fallback_that_fails_too_is_the_end_of_that_address() -> None:
    world = World(BREAKS, "close")
    error = await world.unusable()
    assert (error.stage.value, len(world.servers)) == ("greeting", 2)


async def test_a_handshake_that_times_out_never_falls_back() -> None:
    world = World(SILENT)
    opening = asyncio.create_task(world.unusable())
    await world.clock.advance(31)
    assert ((await opening).stage.value, len(world.servers)) == ("tls", 1)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ConnectRefused("[192.0.2.25]:25 refused the connection"), (451, "4.4.1")),
        (LocalAddressUnavailable("local_ip 10.0.0.1 cannot be used"), (451, "4.3.0")),
    ],
    ids=["refused", "our own trouble"],
)
async def test_who_cannot_be_dialled_is_unusable_and_our_trouble_stays_ours(
    failure: Exception, expected: tuple[int, str]
) -> None:
    error = await World(failure=failure).unusable()
    assert (error.stage.value, error.reply.code, str(error.reply.enhanced)) == ("connect", *expected)
    assert "10.0.0.1" not in error.reply.text


# Judgement ------------------------------------------------------------------------------------------------------------


async def judge(script: str, requirement: Requirement) -> tuple[World, Any]:
    world = World(script)
    call = world.call(requirement)
    session = await world.connector.open(world.call())
    judgement = world.connector.judge(call, session)
    session.abort()
    await settle()
    return world, judgement


async def test_what_is_good_enough_is_announced_with_its_levels() -> None:
    world, judgement = await judge(WORKS, DEMANDS)
    assert judgement.refusal is None
    (judged,) = world.of(ConnectionJudged)
    assert (judged.security.tls_level, judged.reason) == (
        TLSLevel.ENCRYPTED,
        "the server's certificate cannot be trusted: nobody vouches for it",
    )


async def test_what_is_refused_is_not() -> None:
    world, judgement = await judge(CLEAR, DEMANDS)
    assert judgement.refusal.policy == "local_policy"
    assert "the server does not offer STARTTLS" in judgement.refusal.reason
    assert world.of(ConnectionJudged) == []


@pytest.mark.parametrize(("script", "why"), [(CLEAR, "does not offer STARTTLS"), (WORKS, "nobody vouches for it")])
async def test_a_testing_policy_that_would_have_refused_it_is_told(script: str, why: str) -> None:
    world, judgement = await judge(script, Requirement(wanted_tls=TLSLevel.AUTHENTICATED))
    assert judgement.refusal is None
    (missed,) = world.of(events.TestingPolicyMissed)
    assert why in missed.reason


# What TLS reports are told ----------------------------------------------------------------------------------------

NO_POLICY = PoliciesSeen("a.test", all_asked=True)
WITH_STS = PoliciesSeen("a.test", sts=STSSeen(("version: STSv1",), (HOST,)))


async def test_a_new_connection_is_told_to_tls_reports_with_both_addresses_and_the_servers_name() -> None:
    world = World(WORKS)
    await world.open(seen=NO_POLICY)
    (seen,) = world.of(TLSSessionSeen)
    assert (seen.policies, seen.mx, seen.helo, seen.address) == (NO_POLICY, HOST, "mx", "192.0.2.25")
    assert (seen.problem, seen.pkix, seen.dane) == (None, (), ()), "without a policy the certificate does not count"


async def test_where_a_policy_counts_tls_reports_hear_what_is_wrong_with_the_certificate() -> None:
    world = World(WORKS)
    await world.open(seen=WITH_STS)
    (seen,) = world.of(TLSSessionSeen)
    assert [problem.kind.value for problem in seen.pkix] == ["not-trusted"]


async def test_a_failed_handshake_and_its_retry_in_clear_are_one_failed_session() -> None:
    world = World(BREAKS, OFFERS)
    await world.open(seen=NO_POLICY)
    (seen,) = world.of(TLSSessionSeen)
    assert (seen.problem.kind.value, seen.helo) == ("closed", "mx")


async def test_a_connection_in_clear_from_memory_is_told_with_the_remembered_finding() -> None:
    world = World(BREAKS, OFFERS, OFFERS)
    await world.open(seen=NO_POLICY)
    await world.open(seen=NO_POLICY)
    assert [seen.problem.kind.value for seen in world.of(TLSSessionSeen)] == ["closed", "closed"]


async def test_a_connection_that_repeats_another_in_clear_is_not_told_again() -> None:
    world = World(OFFERS)
    await world.open(seen=NO_POLICY, in_clear=TLSProblem(TLSProblemKind.STARTTLS_REFUSED, "454", "454"))
    assert world.of(TLSSessionSeen) == []


async def test_what_ends_before_the_first_ehlo_is_no_session() -> None:
    world = World("S: 220 mx\nclose")
    await world.unusable(seen=NO_POLICY)
    assert world.of(TLSSessionSeen) == []
