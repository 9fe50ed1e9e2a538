"""The order of things in an attempt, with servers that are functions."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.attempt import MAX_DURATION, Attempt
from mailrider.delivery.connection.peer import Peer
from mailrider.delivery.connection.unusable import ConnectLater, Unusable
from mailrider.delivery.destination import Budget
from mailrider.delivery.job import AttemptRules, Job
from mailrider.delivery.mx import HostNotFound
from mailrider.delivery.race import Race, RaceLost
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.tally import Tally
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import AddressFailed, Bug
from mailrider.model.outcome import Deferred, TryResult
from mailrider.model.reply import Reply
from mailrider.model.route import Candidate, Candidates, Host
from mailrider.model.security import NO_REQUIREMENT, NO_SECURITY, PeerEvidence, Refusal, TLSEvidence
from mailrider.policy.base import NOT_AWARDED
from mailrider.policy.judge import Judgement
from mailrider.policy.requiretls import ORDINARY, MessageSecurity
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.client import AnsweredCommand, InjectedPlaintext
from mailrider.smtp.commands import Data, EndOfData, Mail, Rcpt
from mailrider.smtp.content import Content
from mailrider.smtp.steps import SendCommands, SendContent
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
    from datetime import datetime

    from mailrider.delivery.connection.connect import ConnectRequest
    from mailrider.delivery.mx import Address
    from mailrider.model.event import Event
    from mailrider.model.handover import Stoppable, Watcher
    from mailrider.model.outcome import Outcome
    from mailrider.model.security import Requirement
    from mailrider.policy.base import Admission
    from mailrider.smtp.transaction import Transaction

NEXT_HOP = Domain("a.test")
CONTENT = Content.inspect(b"Subject: x\r\n\r\n")
OK, GO_ON = Reply.make(250, "2.0.0", "Ok"), Reply.make(354, None, "Go on")
LATER, NEVER = Reply.make(450, "4.2.0", "Later"), Reply.make(550, "5.1.1", "Never")
REFUSED = Reply.make(451, "4.4.1", "Connection refused")
TLS = TLSEvidence("TLSv1.3", "TLS_AES_256_GCM_SHA384", (b"a certificate",))


def says(**replies: Reply | list[Reply]) -> Callable[[Transaction], Exception | None]:
    """A server that answers by the verb; with a list one after the other. What is not named is accepted."""
    queues = {verb: list(each) if isinstance(each, list) else each for verb, each in replies.items()}

    def reply(verb: str, usual: Reply) -> Reply:
        given = queues.get(verb, usual)
        return given.pop(0) if isinstance(given, list) else given

    def serve(transaction: Transaction) -> None:
        while (step := transaction.next()) is not None:
            match step:
                case SendCommands(commands):
                    for command in commands:
                        verb = {Mail: "mail", Rcpt: "rcpt", Data: "data"}.get(type(command), "rset")
                        transaction.take(AnsweredCommand(command, reply(verb, GO_ON if verb == "data" else OK)))
                case SendContent(command):
                    transaction.sent_final()
                    transaction.take(AnsweredCommand(command, reply("end", OK)))
                case _:
                    transaction.take(AnsweredCommand(EndOfData(), OK))

    return serve


def loses(transaction: Transaction) -> Exception:
    """A server that goes before it says a word."""
    transaction.lost()
    return ConnectionError("gone")


def unusable(
    reply: Reply = REFUSED, stage: TryResult = TryResult.CONNECT, **more: Any
) -> Callable[[Transaction], Exception | None]:
    """An address that does not get as far as a transaction."""

    def serve(_: Transaction) -> None:
        raise NotImplementedError

    serve.error = Unusable(stage, reply, **more)  # type: ignore[attr-defined]
    return serve


def refused(tls: TLSEvidence | None) -> Callable[[Transaction], Exception | None]:
    """A server whose connection does not prove what a policy demands, and that must not get the message."""

    def serve(_: Transaction) -> None:
        raise AssertionError("the message went over a connection that was refused")

    serve.refusal, serve.tls = Refusal("dane", 451, "4.7.1", "no"), tls  # type: ignore[attr-defined]
    return serve


GREETS_521 = unusable(
    Reply.make(451, "4.3.2", "No mail here"), TryResult.GREETING, refusal=Reply.make(521, "5.3.2", "No mail here")
)


@dataclass
class FakeSession:
    peer: Peer
    capabilities: Capabilities
    serve: Callable[[Transaction], Exception | None]
    takes_no_more_domains: bool = False
    tls: TLSEvidence | None = None

    @property
    def evidence(self) -> PeerEvidence:
        return PeerEvidence(self.peer.host, self.peer.address, self.peer.port, self.tls)

    async def transact(self, transaction: Transaction, _: Content) -> Exception | None:
        return self.serve(transaction)


@dataclass
class FakeLease:
    session: FakeSession
    reused: bool = False
    judgement: Judgement = Judgement(NO_SECURITY, None, None)  # noqa: RUF009 (it is immutable)
    given_up: bool = False

    def give_up(
        self, *, wants_tls: bool = False, knows_no_chunks: bool = False, takes_no_more_domains: bool = False
    ) -> None:
        self.given_up = True


@dataclass
class World:
    """Candidates `mx0`, `mx1`, ... with the given addresses each; servers by address, in order of the calls."""

    hosts: Sequence[Sequence[Callable[[Transaction], Exception | None]]]
    clock: FakeClock = field(default_factory=FakeClock)
    takes: float = 0.0
    capabilities: Capabilities = field(default_factory=Capabilities)
    security: MessageSecurity = ORDINARY
    reused: list[bool] = field(default_factory=list)
    late: asyncio.Future[tuple[Address, ...]] | None = None
    closed: int = 0
    ourselves: int = -1  # the candidate that is
    prohibits: Callable[[Address], bool] = RemoteSettings().prohibits

    def __post_init__(self) -> None:
        self.next_hop = NEXT_HOP
        self.called: list[str] = []
        self.fresh: list[bool] = []
        self.leases: list[FakeLease] = []
        self.events: list[Event] = []
        self.servers = {
            f"192.0.{number}.{index}": serve
            for number, servers in enumerate(self.hosts)
            for index, serve in enumerate(servers)
        }

    # As a `DestinationLike`:

    async def find(self) -> Candidates:
        return Candidates(NEXT_HOP, tuple(Candidate(Domain(f"mx{n}.a.test"), n) for n in range(len(self.hosts))))

    async def usable_group(self, group: Sequence[Candidate]) -> tuple[Candidate, ...] | None:
        return None if group[0].preference == self.ourselves else tuple(group)

    async def admit(self, _: Candidate) -> Admission:
        return NOT_AWARDED

    async def host(self, candidate: Candidate) -> Host | HostNotFound:
        number = candidate.preference
        if not self.hosts[number]:
            return HostNotFound(candidate, Reply.make(550, "5.4.4", "No address"))
        return Host(candidate, tuple(ip_address(f"192.0.{number}.{n}") for n in range(len(self.hosts[number]))))

    def late_addresses(self, _: Candidate) -> asyncio.Future[tuple[Address, ...]] | None:
        return self.late

    async def close(self) -> None:
        self.closed += 1

    def budget(self, _: Candidate) -> Budget:
        return Budget(self.clock, 300)

    async def requirement(self, _: Host) -> Requirement:
        return NO_REQUIREMENT

    def policies_seen(self, _: Candidate) -> None:
        return None

    async def tls_failed(self) -> None:
        pass

    # As `Connections`:

    @asynccontextmanager
    async def lease(self, call: ConnectRequest, *, fresh: bool = False) -> AsyncIterator[FakeLease]:
        address = str(call.address)
        self.called.append(address)
        self.fresh.append(fresh)
        await self.clock.advance(self.takes)
        serve = self.servers[address]
        if hasattr(serve, "error"):
            raise serve.error
        session = FakeSession(Peer(call.mx, address, 25, None), self.capabilities, serve)
        reused = bool(self.reused) and not fresh and self.reused.pop(0)
        self.leases.append(FakeLease(session, reused))
        if hasattr(serve, "refusal"):
            session.tls = getattr(serve, "tls", None)
            self.leases[-1].judgement = Judgement(NO_SECURITY, None, serve.refusal)
        yield self.leases[-1]

    def run(
        self, recipients: int = 1, watcher: Watcher | None = None, slots: int | None = None
    ) -> Awaitable[tuple[Outcome, ...]]:
        everybody = tuple(Recipient(Mailbox.parse(f"{number}@a.test")) for number in range(recipients))
        job = Job(Envelope(ReversePath.parse("a@b.test"), everybody), CONTENT, self.security)
        rules = AttemptRules(prohibits=self.prohibits)
        return Attempt(job, everybody, self, self, rules, self.clock, self.events.append, watcher, slots=slots).run()


def facts(outcome: Outcome) -> tuple[str, int, str]:
    return outcome.status.value, outcome.reply.code, str(outcome.reply.enhanced)


# Bounds ---------------------------------------------------------------------------------------------------------------


async def test_no_new_candidate_is_begun_after_fifteen_minutes() -> None:
    world = World([[unusable()]] * 10, takes=MAX_DURATION / 3)
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.0", "192.0.1.0", "192.0.2.0", "192.0.3.0"]
    assert facts(outcome) == ("deferred", 451, "4.4.1")


async def test_no_new_address_is_begun_after_fifteen_minutes() -> None:
    world = World([[unusable()] * 6], takes=MAX_DURATION / 2 + 1)
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.0", "192.0.0.1"]
    assert facts(outcome) == ("deferred", 451, "4.4.1")


async def test_at_most_twenty_addresses_are_tried() -> None:
    world = World([[unusable()] * 6] * 10)
    await world.run()
    assert len(world.called) == 20


async def test_what_was_not_tried_has_not_said_521() -> None:
    for hosts in ([[GREETS_521] * 6] * 4, [[GREETS_521] * 6] * 3 + [[GREETS_521] * 2, [GREETS_521]]):
        (outcome,) = await World(hosts).run()
        assert facts(outcome) == ("deferred", 451, "4.3.2")
    (outcome,) = await World([[GREETS_521] * 5] * 4).run()
    assert facts(outcome) == ("failed", 521, "5.3.2")


async def test_where_no_connection_may_be_opened_now_nothing_was_tried_and_it_comes_again() -> None:
    serve = says()
    serve.error = ConnectLater(1.0)  # type: ignore[attr-defined]
    world = World([[loses, serve, says()], [says()]])
    first, second = await world.run(recipients=2)
    assert world.called == ["192.0.0.0", "192.0.0.1"]
    for outcome in (first, second):
        assert isinstance(outcome, Deferred)
        assert outcome.eligible_at == world.clock.now() + timedelta(seconds=1)
        assert [each.address for each in outcome.tries] == ["192.0.0.0"]


# From address to address ----------------------------------------------------------------------------------------------


async def test_addresses_are_tried_in_turn_then_the_next_candidate() -> None:
    world = World([[unusable(), loses], [], [says(), says()]])
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.0", "192.0.0.1", "192.0.2.0"]
    assert (outcome.status, [each.result for each in outcome.tries]) == (
        "delivered",
        ["connect", "mail", "lookup", "delivered"],
    )
    assert [event.address for event in world.events if isinstance(event, AddressFailed)] == ["192.0.0.0", "192.0.0.1"]


@pytest.mark.parametrize(
    ("ourselves", "called", "expected"),
    [(0, [], ("failed", 554, "5.4.6")), (1, ["192.0.0.0"], ("deferred", 451, "4.4.1"))],
    ids=["the best", "a worse one"],
)
async def test_mail_that_would_come_back_fails_and_a_backup_leaves_it_to_better_ones(
    ourselves: int, called: list[str], expected: tuple[str, int, str]
) -> None:
    world = World([[unusable()], [says()], [says()]], ourselves=ourselves)
    (outcome,) = await world.run()
    assert (world.called, facts(outcome)) == (called, expected)


async def test_a_prohibited_address_is_not_connected_to() -> None:
    world = World([[says(), says()]], prohibits=lambda address: str(address) == "192.0.0.0")
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.1"]
    assert [each.result for each in outcome.tries] == ["prohibited", "delivered"]


@pytest.mark.parametrize(("tls", "second"), [(TLS, []), (None, ["192.0.0.1"])], ids=["its certificate", "no TLS"])
async def test_a_refused_certificate_speaks_for_all_addresses_of_a_host_and_a_missing_one_does_not(
    tls: TLSEvidence | None, second: list[str]
) -> None:
    world = World([[refused(tls), refused(tls)], [says()]])
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.0", *second, "192.0.1.0"]
    assert outcome.status == "delivered"


@pytest.mark.parametrize(
    ("cause", "second"),
    [(InjectedPlaintext("bytes behind the 220"), []), (ConnectionError("gone"), ["192.0.0.1"])],
    ids=["injection", "loss"],
)
async def test_text_injected_before_tls_ends_the_host_and_a_lost_connection_its_address(
    cause: Exception, second: list[str]
) -> None:
    def broken() -> Callable[[Transaction], Exception | None]:
        serve = unusable(Reply.make(451, "4.7.5", "no TLS"), TryResult.TLS)
        serve.error.__cause__ = cause  # type: ignore[attr-defined]
        return serve

    world = World([[broken(), broken()], [says()]])
    await world.run()
    assert world.called == ["192.0.0.0", *second, "192.0.1.0"]


async def test_a_connection_lost_behind_the_final_dot_leaves_a_doubt_and_nobody_else_gets_the_message() -> None:
    def takes_and_goes(transaction: Transaction) -> Exception | None:
        while isinstance(step := transaction.next(), SendCommands):
            for command in step.commands:
                transaction.take(AnsweredCommand(command, GO_ON if isinstance(command, Data) else OK))
        transaction.sent_final()
        transaction.lost()
        return ConnectionError("gone")

    world = World([[takes_and_goes, says()], [says()]])
    (outcome,) = await world.run()
    assert world.called == ["192.0.0.0"]
    assert isinstance(outcome, Deferred)
    assert outcome.in_doubt


async def test_what_a_kept_connection_has_answered_is_not_repeated_on_a_new_one() -> None:
    def answers_and_goes(transaction: Transaction) -> Exception:
        step = transaction.next()
        assert isinstance(step, SendCommands)
        transaction.take(AnsweredCommand(step.commands[0], OK))
        transaction.lost()
        return ConnectionError("gone")

    for server, called in ((loses, ["192.0.0.0", "192.0.0.0"]), (answers_and_goes, ["192.0.0.0"])):
        world = World([[server], [says()]], reused=[True])
        await world.run()
        assert world.called == [*called, "192.0.1.0"]


async def test_a_4xx_leads_to_the_next_candidate_not_to_the_next_address() -> None:
    world = World([[says(rcpt=LATER), says()], [says()]])
    (outcome,) = await world.run()
    assert (world.called, outcome.status) == (["192.0.0.0", "192.0.1.0"], "delivered")


async def test_only_those_that_the_first_candidate_deferred_go_to_the_second() -> None:
    world = World([[says(rcpt=[OK, LATER, NEVER, LATER])], [says(rcpt=[OK, LATER])], [says()]])
    outcomes = await world.run(4)
    assert [outcome.status.value for outcome in outcomes] == ["delivered", "delivered", "failed", "deferred"]
    assert world.called == ["192.0.0.0", "192.0.1.0"]


async def test_those_that_a_lost_connection_left_go_on_and_those_that_were_deferred_do_not() -> None:
    def half(transaction: Transaction) -> Exception:
        step = transaction.next()
        assert isinstance(step, SendCommands)
        transaction.take(AnsweredCommand(step.commands[0], OK))
        for reply in (LATER, OK):
            step = transaction.next()
            assert isinstance(step, SendCommands)
            transaction.take(AnsweredCommand(step.commands[0], reply))
        transaction.lost()
        return ConnectionError("gone")

    rcpts: list[int] = []

    def counts(transaction: Transaction) -> Exception | None:
        rcpts.append(len(transaction.recipients))
        return says()(transaction)

    world = World([[half, counts], [counts]])
    outcomes = await world.run(2)
    assert (rcpts, world.called) == ([1, 1], ["192.0.0.0", "192.0.0.1", "192.0.1.0"])
    assert [outcome.status.value for outcome in outcomes] == ["delivered", "delivered"]


async def test_recipients_past_the_limit_go_in_further_transactions_to_the_same_address() -> None:
    world = World([[says(rcpt=[OK, Reply.make(452, "4.5.3", "Too many"), OK])]])
    outcomes = await world.run(2)
    assert ({outcome.status.value for outcome in outcomes}, world.called) == ({"delivered"}, ["192.0.0.0"] * 2)


# Kept connections -----------------------------------------------------------------------------------------------------


async def test_a_kept_connection_that_was_gone_costs_no_attempt() -> None:
    calls = iter([loses, says()])
    world = World([[lambda transaction: next(calls)(transaction)]], reused=[True])
    (outcome,) = await world.run()
    assert (world.called, world.fresh) == (["192.0.0.0"] * 2, [False, True])
    assert (outcome.status, len(outcome.tries)) == ("delivered", 1)


async def test_a_new_connection_that_was_lost_is_not_tried_again() -> None:
    world = World([[loses]])
    (outcome,) = await world.run()
    assert (facts(outcome), world.called) == (("deferred", 451, "4.4.2"), ["192.0.0.0"])


async def test_a_kept_connection_without_requiretls_is_asked_anew_before_it_is_a_no() -> None:
    needs = MessageSecurity(needs_extension=True)
    world = World([[says()]], reused=[True], security=needs)
    (outcome,) = await world.run()
    assert (facts(outcome), world.fresh) == (("failed", 550, "5.7.30"), [False, True])


async def test_a_connection_whose_data_failed_is_given_up() -> None:
    world = World([[says(data=LATER)], [says()]])
    await world.run()
    assert [lease.given_up for lease in world.leases] == [True, False]


# What nobody expected -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [ZeroDivisionError, asyncio.CancelledError])
async def test_a_bug_defers_what_is_undecided_and_is_told(error: type[BaseException]) -> None:
    def explode(_: Transaction) -> None:
        raise error  # a cancellation: of something that is awaited, while nobody cancels the attempt

    world = World([[explode], [says()]])
    (outcome,) = await world.run()
    assert (facts(outcome), world.called) == (("deferred", 451, "4.3.0"), ["192.0.0.0"])
    assert [type(event.error) for event in world.events if isinstance(event, Bug)] == [error]


async def test_replies_that_were_read_before_a_bug_stand() -> None:
    def half(transaction: Transaction) -> None:
        says(rcpt=[NEVER, OK], end=OK)(transaction)
        raise ZeroDivisionError

    outcomes = await World([[half]]).run(2)
    assert [facts(outcome)[:2] for outcome in outcomes] == [("failed", 550), ("delivered", 250)]


async def test_a_bug_while_results_are_written_down_loses_none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Tally.decide
    explosions = iter([False, True])

    def decide(tally: Tally, *arguments: Any) -> None:
        if next(explosions, False):
            raise ZeroDivisionError
        usual(tally, *arguments)

    monkeypatch.setattr(Tally, "decide", decide)
    outcomes = await World([[says(rcpt=[NEVER, OK, OK])]]).run(3)
    assert [facts(outcome)[:2] for outcome in outcomes] == [("failed", 550), ("delivered", 250), ("delivered", 250)]
    assert [len(outcome.tries) for outcome in outcomes] == [1, 1, 1]


async def test_a_bug_behind_the_final_dot_is_in_doubt() -> None:
    def explode(transaction: Transaction) -> None:
        usual = transaction.take

        def take(answer: AnsweredCommand) -> None:
            if isinstance(answer.command, EndOfData):
                raise ZeroDivisionError
            usual(answer)

        transaction.take = take  # type: ignore[method-assign]
        says(rcpt=[NEVER, OK])(transaction)

    outcomes = await World([[explode], [says()]]).run(2)
    assert [(outcome.status.value, outcome.in_doubt) for outcome in outcomes] == [("failed", False), ("deferred", True)]


# Places in a queue ----------------------------------------------------------------------------------------------------


@dataclass
class Queue:
    """A `Watcher` that counts where an attempt is; from the `full` addresses it is sent away."""

    clock: FakeClock
    full: Sequence[str] = ()
    at: list[str] = field(default_factory=list)
    visited: list[str] = field(default_factory=list)
    running: list[Stoppable] = field(default_factory=list)

    def began(self, attempt: Stoppable) -> None:
        self.running.append(attempt)

    def ended(self, attempt: Stoppable) -> None:
        self.running.remove(attempt)

    def arrive(self, address: object, slots: int | None) -> datetime | None:
        assert slots == 7
        if str(address) in self.full:
            return self.clock.now() + timedelta(seconds=10)
        self.at.append(str(address))
        self.visited.append(str(address))
        return None

    def leave(self, address: object) -> None:
        self.at.remove(str(address))


async def visit(world: World, queue: Queue, recipients: int = 1) -> tuple[Outcome, ...]:
    return await world.run(recipients, watcher=queue, slots=7)


async def test_a_queue_is_told_of_each_address_while_the_attempt_is_there() -> None:
    world = World([[unusable()], [says()]])
    queue = Queue(world.clock)
    (outcome,) = await visit(world, queue)
    assert facts(outcome)[0] == "delivered"
    assert queue.visited == ["192.0.0.0", "192.0.1.0"]
    assert queue.at == []
    assert queue.running == []


async def test_an_attempt_that_the_queue_sends_away_comes_again_and_nothing_is_connected() -> None:
    world = World([[says()], [says()]])
    outcomes = await visit(world, Queue(world.clock, full=["192.0.0.0"]), recipients=2)
    assert [facts(each) for each in outcomes] == [("deferred", 451, "4.4.5")] * 2
    assert {each.eligible_at for each in outcomes if isinstance(each, Deferred)} == {
        world.clock.now() + timedelta(seconds=10)
    }
    assert world.called == []


async def test_what_was_decided_before_the_queue_sent_the_attempt_away_stands() -> None:
    world = World([[says(rcpt=[LATER, OK])], [says()]])
    outcomes = await visit(world, Queue(world.clock, full=["192.0.1.0"]), recipients=2)
    assert [each.status.value for each in outcomes] == ["deferred", "delivered"]
    assert isinstance(outcomes[0], Deferred)
    assert outcomes[0].eligible_at is not None


async def test_no_further_transaction_is_begun_when_the_attempt_has_lasted_too_long() -> None:
    world = World([[says(rcpt=[OK, Reply.make(452, "4.5.3", "Too many"), OK])]], takes=MAX_DURATION + 1)
    first, second = await world.run(2)
    assert facts(first)[0] == "delivered"
    assert facts(second) == ("deferred", 451, "4.4.1")
    assert len(world.called) == 1


# Several addresses (RFC 8305) -----------------------------------------------------------------------------------------


async def test_only_a_host_with_several_addresses_has_a_race_and_it_is_closed_in_the_end() -> None:
    closed: list[object] = []
    world = World([[overtaken, says()], [says()]])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Race, "close", lambda self: _note(closed, self))
        (outcome,) = await world.run()
    assert facts(outcome)[0] == "delivered"
    assert len(closed) == 1
    assert world.called == ["192.0.0.0", "192.0.0.1"]


async def test_an_address_that_was_overtaken_is_no_failed_try() -> None:
    world = World([[overtaken, says()]])
    (outcome,) = await world.run()
    assert [each.result.value for each in outcome.tries] == ["delivered"]
    assert not [event for event in world.events if isinstance(event, AddressFailed)]


def overtaken(_: Transaction) -> Exception | None:
    """An address that is slower than the next one."""
    raise NotImplementedError


overtaken.error = RaceLost("another one was faster")  # type: ignore[attr-defined]


async def _note(closed: list[object], race: object) -> None:
    closed.append(race)
