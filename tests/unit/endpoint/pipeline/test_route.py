"""What the blocks of a pipeline say is done to a message: who looks at it, who signs it, and for whom."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.dkim.sign import DKIMSigning, Signer
from mailrider.endpoint.pipeline.check import PASSED, REFUSED, Arrival, CheckAction, CheckResult, Forwarding
from mailrider.endpoint.pipeline.route import PipelineDeliverer, RouteStage
from mailrider.endpoint.settings import EndpointRouteSettings, EndpointSettings
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Ret
from mailrider.model.event import Bug, discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, Deferred, Delivered, outcome_for
from mailrider.model.reply import Reply
from mailrider.queue.store import StoreFull, StoreUnavailable
from mailrider.settings.pipeline import TargetRef
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey
from tests.support.queueing import MESSAGE, TAKEN, envelope, recipient
from tests.support.routes import routes_of

if TYPE_CHECKING:
    from collections.abc import Coroutine

    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.queue.work import Deliverer
    from mailrider.settings.pipeline import Target

HOME, WORLD = TargetRef("home"), TargetRef("world")
A = EndpointRouteSettings(deliver_to=HOME)
B = EndpointRouteSettings(deliver_to=WORLD)
ALIAS = EndpointRouteSettings(deliver_to=HOME)
CLOSED = EndpointRouteSettings(reject="550 5.7.1 closed")
PIPELINE = EndpointSettings(
    destination=[(["a.test"], A), (["b.test"], B), (["alias.test"], ALIAS), (["closed.test"], CLOSED)],
    deliver_to=WORLD,
)
KEY = SigningKey.make(KeyKind.ED25519)


@dataclass
class Says:
    """A check that says always the same, and remembers about whom it was asked."""

    action: CheckAction
    asked: list[list[str]] = field(default_factory=list)

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        self.asked.append([str(each) for each in envelope.recipients])
        return PASSED if self.action is CheckAction.PASS else CheckResult(self.action, "test", "because")


@dataclass
class Given:
    """What a target was given."""

    to: list[str]
    selectors: list[bytes]


@dataclass
class Targets:
    """All of them take everything."""

    given: dict[str, list[Given]] = field(default_factory=dict)

    def of(self, target: Target) -> One:
        return One(self, str(target))


@dataclass
class One:
    targets: Targets
    name: str

    async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        fields = content.header_fields("DKIM-Signature")
        selectors = [part.strip()[2:] for value in fields for part in value.split(b";") if part.strip()[:2] == b"s="]
        given = Given([str(each) for each in envelope.recipients], selectors)
        self.targets.given.setdefault(self.name, []).append(given)
        return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))


def signing(*selectors: str) -> DKIMSigning:
    signers = [Signer(Domain("example.org"), each, KEY) for each in selectors]
    return DKIMSigning(signers, FakeClock(), discard)


async def deliver(
    stages: dict[int, RouteStage], *recipients: str, answers_each: bool = False
) -> tuple[dict[str, list[Given]], list[int]]:
    """What each target was given, and the code for each recipient."""
    targets = Targets()
    pipeline = PipelineDeliverer(routes_of(PIPELINE, targets.of, stages), answers_each=answers_each)
    report = await pipeline.deliver(envelope(*recipients), Content.inspect(MESSAGE))
    return targets.given, [each.reply.code for each in report]


async def test_each_part_signs_what_goes_through_it() -> None:
    stages = {id(PIPELINE): RouteStage((), signing("whole")), id(B): RouteStage((), signing("whole", "part"))}
    given, _ = await deliver(stages, "1@a.test", "2@b.test", "3@c.test")
    assert given == {
        "&home": [Given(["1@a.test"], [])],
        "&world": [Given(["2@b.test"], [b"whole", b"part"]), Given(["3@c.test"], [b"whole"])],
    }


async def test_parts_that_do_the_same_share_a_message() -> None:
    given, _ = await deliver({}, "1@a.test", "2@alias.test", "3@b.test", "4@c.test")
    assert given == {
        "&home": [Given(["1@a.test", "2@alias.test"], [])],
        "&world": [Given(["3@b.test", "4@c.test"], [])],
    }


async def test_a_part_looks_only_at_what_goes_through_it() -> None:
    check = Says(CheckAction.PASS)
    _, codes = await deliver({id(A): RouteStage([check])}, "1@a.test", "2@b.test", "3@a.test")
    assert check.asked == [["1@a.test", "3@a.test"]]
    assert codes == [250] * 3
    await deliver({id(A): RouteStage([check])}, "2@b.test")
    assert len(check.asked) == 1


@pytest.mark.parametrize("action", [CheckAction.REJECT, CheckAction.DEFER, CheckAction.QUARANTINE])
async def test_what_a_part_refuses_nobody_gets_since_smtp_has_one_answer(action: CheckAction) -> None:
    given, codes = await deliver({id(A): RouteStage([Says(action)])}, "1@a.test", "2@b.test", "3@closed.test")
    assert given == {}
    code = 451 if action is CheckAction.DEFER else REFUSED.code
    assert codes == [code, code, 550]


async def test_the_strictest_part_decides() -> None:
    stages = {id(A): RouteStage([Says(CheckAction.DEFER)]), id(B): RouteStage([Says(CheckAction.REJECT)])}
    assert await deliver(stages, "1@a.test", "2@b.test") == ({}, [550, 550])


async def test_in_lmtp_the_others_get_it() -> None:
    stages = {id(A): RouteStage([Says(CheckAction.REJECT)])}
    given, codes = await deliver(stages, "1@a.test", "2@b.test", answers_each=True)
    assert codes == [550, 250]
    assert given == {"&world": [Given(["2@b.test"], [])]}


@pytest.mark.parametrize(
    ("author", "made"),
    [
        ("a@example.org", [("example.org", "r"), ("example.org", "s")]),
        ("a@sub.example.org", [("example.org", "s")]),
        ("a@example.net", [("example.net", "s")]),
    ],
)
async def test_a_signature_that_is_given_again_is_made_once_as_the_inner_block_says(
    author: str, made: list[tuple[str, str]]
) -> None:
    inner = Signer(Domain("example.org"), "s", KEY, subdomains=True)
    other = Signer(Domain("example.net"), "s", KEY)
    signer = signing("r", "s").extended([inner, other])
    signed = await signer.modify(Content.inspect(f"From: {author}\r\n\r\n".encode()))
    found = [dict(re.findall(r"\b([ds])=([^;]+)", each.decode())) for each in signed.header_fields("DKIM-Signature")]
    assert sorted((each["d"], each["s"]) for each in found) == made


# Several targets in one transaction ----------------------------------------------------------------------------------

MAILBOXES, RELAY, QUEUE, OTHER_QUEUE = (TargetRef(name) for name in ("mailboxes", "relay", "queue", "other"))
SIGNED = EndpointRouteSettings(deliver_to=QUEUE)
MIXED = EndpointSettings(
    destination=[
        (["box.test"], EndpointRouteSettings(deliver_to=MAILBOXES)),
        (["relay.test"], EndpointRouteSettings(deliver_to=RELAY)),
        (["other.test"], EndpointRouteSettings(deliver_to=OTHER_QUEUE)),
        (["signed.test"], SIGNED),
        (["closed.test"], CLOSED),
    ],
    deliver_to=QUEUE,
)
FULL = Reply.make(452, "4.3.1", "Insufficient system storage")


@dataclass
class Queue:
    """Takes all or nothing; `answers` what it says, in turn, and then that it took it."""

    tells: bool = True
    answers: list[Reply] = field(default_factory=list)
    took: list[list[str]] = field(default_factory=list)
    told: list[list[str]] = field(default_factory=list)
    passed_on: list[tuple[list[str], bool]] = field(default_factory=list)
    envelopes: list[Envelope] = field(default_factory=list)
    error: Exception | None = None
    cannot_notify: bool = False

    async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        if self.error is not None:
            raise self.error
        reply = self.answers.pop(0) if self.answers else TAKEN
        if reply is TAKEN:
            self.took.append([str(each) for each in envelope.recipients])
            self.envelopes.append(envelope)
        return AttemptReport(tuple(outcome_for(each, reply) for each in envelope.recipients))

    def can_tell(self, sender: ReversePath) -> bool:
        return self.tells and not sender.is_null

    async def tell_failed(self, envelope: Envelope, content: Content, reply: Reply) -> bool:
        self.told.append([str(each) for each in envelope.recipients])
        return self.tells

    async def tell_passed_on(self, envelope: Envelope, content: Content, *, to_list: bool) -> None:
        if self.cannot_notify:
            raise ZeroDivisionError
        self.passed_on.append(([str(each) for each in envelope.recipients], to_list))


@dataclass
class House:
    """The targets of `MIXED`."""

    queue: Queue = field(default_factory=Queue)
    other: Queue = field(default_factory=Queue)
    direct: Targets = field(default_factory=Targets)

    def pipeline(self) -> PipelineDeliverer:
        return PipelineDeliverer(routes_of(MIXED, self.of, {id(SIGNED): RouteStage((), signing("s"))}))

    def of(self, target: Target) -> Queue | One:
        return {"&queue": self.queue, "&other": self.other}.get(str(target)) or self.direct.of(target)


COMPANIONS = [
    # the first recipient, another one, whether both may be in one transaction
    ("1@x.test", "2@y.test", True),  # one queue
    ("1@x.test", "2@other.test", True),  # two queues
    ("1@x.test", "2@signed.test", True),  # one queue, and two forms of the message
    ("1@box.test", "2@box.test", False),  # one may be full, and the other not
    ("1@box.test", "2@relay.test", False),
    ("1@relay.test", "2@relay.test", False),
    ("1@box.test", "2@x.test", False),
    ("1@x.test", "2@box.test", False),
    ("1@box.test", "2@closed.test", True),  # which is refused for itself
]


@pytest.mark.parametrize(("first", "another", "expected"), COMPANIONS)
def test_which_recipients_can_share_a_transaction(first: str, another: str, expected: bool) -> None:
    sender = ReversePath.parse("a@example.org")
    assert House().pipeline().companions(sender, Mailbox.parse(first), Mailbox.parse(another)) is expected


@pytest.mark.parametrize(("sender", "tells"), [("", True), ("a@example.org", False)])
@pytest.mark.parametrize(
    ("another", "expected"), [("2@y.test", True), ("2@other.test", False), ("2@signed.test", False)]
)
def test_where_the_sender_cannot_be_told_a_transaction_has_one_queue_and_one_form(
    sender: str, tells: bool, another: str, expected: bool
) -> None:
    pipeline = House(Queue(tells)).pipeline()
    companions = pipeline.companions(ReversePath.parse(sender), Mailbox.parse("1@x.test"), Mailbox.parse(another))
    assert companions is expected


async def codes(house: House, *recipients: str) -> list[int]:
    report = await house.pipeline().deliver(envelope(*recipients), Content.inspect(MESSAGE))
    return [each.reply.code for each in report]


async def test_two_queues_take_their_parts_of_one_message() -> None:
    house = House()
    assert await codes(house, "1@x.test", "2@other.test", "3@y.test") == [250] * 3
    assert (house.queue.took, house.other.took) == ([["1@x.test", "3@y.test"]], [["2@other.test"]])


async def test_if_the_first_queue_cannot_take_its_part_nobody_gets_anything() -> None:
    house = House(Queue(answers=[FULL]))
    assert await codes(house, "1@x.test", "2@other.test") == [452, 452]
    assert (house.queue.took, house.other.took) == ([], [])


async def test_if_a_later_queue_cannot_take_its_part_the_first_one_tells_the_sender_and_nothing_comes_twice() -> None:
    house = House(other=Queue(answers=[FULL]))
    assert await codes(house, "1@x.test", "2@other.test") == [250, 250]
    assert (house.queue.took, house.queue.told, house.other.took) == ([["1@x.test"]], [["2@other.test"]], [])


async def test_the_same_holds_for_two_forms_of_a_message_in_one_queue() -> None:
    house = House(Queue(answers=[TAKEN, FULL]))
    assert await codes(house, "1@x.test", "2@signed.test") == [250, 250]
    assert (house.queue.took, house.queue.told) == ([["1@x.test"]], [["2@signed.test"]])


async def test_members_of_a_list_with_an_owner_get_the_message_from_the_owner() -> None:
    house = House()
    given = replace(envelope("1@x.test", "2@x.test"), envid="QQ1", ret=Ret.FULL)
    forwarding = Forwarding({Mailbox.parse("2@x.test"): ReversePath.parse("owner@x.test")})
    report = await house.pipeline().deliver(given, Content.inspect(MESSAGE), arrival=Arrival(forwarding=forwarding))
    assert [type(each) for each in report] == [Delivered, Delivered]
    assert house.queue.took == [["1@x.test"], ["2@x.test"]]
    plain, owned = house.queue.envelopes
    assert (plain.sender, plain.envid, plain.ret) == (given.sender, "QQ1", Ret.FULL)
    assert (str(owned.sender), owned.envid, owned.ret) == ("owner@x.test", None, None)


@pytest.mark.parametrize("fails", [False, True])
async def test_who_asked_for_success_hears_that_an_alias_was_passed_on_once_it_is(fails: bool) -> None:
    house = House()
    house.queue.answers = [FULL] if fails else []
    forwarding = Forwarding({}, (recipient("staff@x.test"),), (recipient("list@x.test"),))
    await house.pipeline().deliver(
        envelope("1@x.test"), Content.inspect(MESSAGE), arrival=Arrival(forwarding=forwarding)
    )
    assert house.queue.passed_on == ([] if fails else [(["staff@x.test"], False), (["list@x.test"], True)])


async def test_a_notification_that_makes_trouble_does_not_undo_what_was_taken() -> None:
    house = House()
    house.queue.cannot_notify = True
    arrival = Arrival(forwarding=Forwarding({}, (recipient("staff@x.test"),)))
    (outcome,) = await house.pipeline().deliver(envelope("1@x.test"), Content.inspect(MESSAGE), arrival=arrival)
    assert isinstance(outcome, Delivered)


async def test_further_copies_of_a_message_name_the_first_as_their_origin() -> None:
    names: list[tuple[str, str]] = []

    class Names:
        async def deliver(self, envelope: Envelope, content: Content, _handover: Handover = DIRECT) -> AttemptReport:
            names.append((envelope.id, envelope.origin))
            return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))

    targets = {HOME: Names(), WORLD: Names()}
    pipeline = PipelineDeliverer(routes_of(PIPELINE, targets.__getitem__, {}), answers_each=True)
    whole = replace(envelope("1@a.test", "2@b.test", "3@c.test"), id="0d7m3k9q2xv4t")
    await pipeline.deliver(whole, Content.inspect(MESSAGE))
    assert names == [("0d7m3k9q2xv4t", ""), ("", "0d7m3k9q2xv4t")]


@dataclass
class Raises:
    """A target that raises."""

    error: BaseException

    async def deliver(self, _envelope: Envelope, _content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        raise self.error


@dataclass
class Takes:
    """A target that takes everything, once it may."""

    goes_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def deliver(self, envelope: Envelope, _content: Content, _handover: Handover = DIRECT) -> AttemptReport:
        await self.goes_on.wait()
        return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))


def to_home_and_world(home: Deliverer, world: Deliverer, events: list[Event]) -> Coroutine[Any, Any, AttemptReport]:
    """A message for one recipient at each of them."""
    targets = {HOME: home, WORLD: world}
    pipeline = PipelineDeliverer(routes_of(PIPELINE, targets.__getitem__, {}), events.append, answers_each=True)
    return pipeline.deliver(envelope("1@a.test", "2@b.test"), Content.inspect(MESSAGE))


@pytest.mark.parametrize(
    ("error", "status"),
    [(ZeroDivisionError(), "4.3.0"), (asyncio.CancelledError(), "4.3.0"), (StoreFull("no space"), "4.3.1")],
)
async def test_where_one_target_raises_its_recipients_wait_and_what_the_others_report_stands(
    error: BaseException, status: str
) -> None:
    events: list[Event] = []
    world = Takes()
    delivering = asyncio.ensure_future(to_home_and_world(Raises(error), world, events))
    for _ in range(10):
        await asyncio.sleep(0)
    assert not delivering.done()
    world.goes_on.set()
    broken, taken = await delivering
    assert (type(broken), str(broken.reply.status), type(taken)) == (Deferred, status, Delivered)
    assert [type(event.error) for event in events if isinstance(event, Bug)] == [type(error)]


async def test_where_no_target_has_a_store_it_is_as_if_nobody_had_been_asked() -> None:
    events: list[Event] = []
    with pytest.raises(StoreUnavailable, match="here"):
        await to_home_and_world(Raises(StoreUnavailable("here")), Raises(StoreUnavailable("there")), events)
    assert events == []


async def test_our_own_cancellation_ends_all_targets() -> None:
    delivering = asyncio.ensure_future(to_home_and_world(Takes(), Takes(), []))
    for _ in range(10):
        await asyncio.sleep(0)
    delivering.cancel()
    with pytest.raises(asyncio.CancelledError):
        await delivering


@pytest.mark.parametrize("first", [False, True])
async def test_a_later_queue_that_raises_could_not_take_its_part(first: bool) -> None:
    house = House()
    (house.queue if first else house.other).error = ZeroDivisionError()
    if first:
        with pytest.raises(ZeroDivisionError):
            await codes(house, "1@x.test", "2@other.test")
        assert (house.queue.took, house.other.took) == ([], [])
    else:
        assert await codes(house, "1@x.test", "2@other.test") == [250, 250]
        assert (house.queue.took, house.queue.told, house.other.took) == ([["1@x.test"]], [["2@other.test"]], [])
