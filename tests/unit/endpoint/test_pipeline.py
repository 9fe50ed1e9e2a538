"""What the blocks of a pipeline say is done to a message: who looks at it, who signs it, and for whom."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import FakeClock
from mailrider.dkim.sign import DKIMSigning, Signer
from mailrider.endpoint.check import PASSED, REFUSED, Action, Arrival, Finding
from mailrider.endpoint.pipeline import PipelineDeliverer, Stage
from mailrider.endpoint.settings import DoorRouteSettings, EndpointSettings
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.model.outcome import AttemptReport, outcome_for
from mailrider.model.pipeline import TargetRef
from mailrider.smtp.content import Content
from mailrider.x509.signing import KeyKind, SigningKey
from tests.support.queueing import MESSAGE, TAKEN, envelope

if TYPE_CHECKING:
    from mailrider.model.envelope import Envelope
    from mailrider.model.pipeline import Target

HOME, WORLD = TargetRef("home"), TargetRef("world")
A = DoorRouteSettings(deliver_to=HOME)
B = DoorRouteSettings(deliver_to=WORLD)
ALIAS = DoorRouteSettings(deliver_to=HOME)
CLOSED = DoorRouteSettings(reject="550 5.7.1 closed")
PIPELINE = EndpointSettings(
    destination=[(["a.test"], A), (["b.test"], B), (["alias.test"], ALIAS), (["closed.test"], CLOSED)],
    deliver_to=WORLD,
)
KEY = SigningKey.make(KeyKind.ED25519)


@dataclass
class Says:
    """A check that says always the same, and remembers about whom it was asked."""

    action: Action
    asked: list[list[str]] = field(default_factory=list)

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> Finding:
        self.asked.append([str(each) for each in envelope.recipients])
        return PASSED if self.action is Action.PASS else Finding(self.action, "test", "because")


@dataclass
class Given:
    """What a target was given."""

    to: list[str]
    selectors: list[bytes]
    quarantined: bool


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

    async def deliver(self, envelope: Envelope, content: Content) -> AttemptReport:
        fields = content.header_fields("DKIM-Signature")
        selectors = [part.strip()[2:] for value in fields for part in value.split(b";") if part.strip()[:2] == b"s="]
        given = Given([str(each) for each in envelope.recipients], selectors, envelope.quarantined)
        self.targets.given.setdefault(self.name, []).append(given)
        return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))


def signing(*selectors: str) -> DKIMSigning:
    signers = [Signer(Domain("example.org"), each, KEY) for each in selectors]
    return DKIMSigning(signers, FakeClock(), discard)


async def deliver(
    stages: dict[int, Stage], *recipients: str, answers_each: bool = False
) -> tuple[dict[str, list[Given]], list[int]]:
    """What each target was given, and the code for each recipient."""
    targets = Targets()
    pipeline = PipelineDeliverer(PIPELINE, targets.of, stages, answers_each=answers_each)
    report = await pipeline.deliver(envelope(*recipients), Content.inspect(MESSAGE))
    return targets.given, [each.reply.code for each in report]


async def test_each_part_signs_what_goes_through_it() -> None:
    stages = {id(PIPELINE): Stage((), signing("whole")), id(B): Stage((), signing("whole", "part"))}
    given, _ = await deliver(stages, "1@a.test", "2@b.test", "3@c.test")
    assert given == {
        "&home": [Given(["1@a.test"], [], False)],
        "&world": [Given(["2@b.test"], [b"whole", b"part"], False), Given(["3@c.test"], [b"whole"], False)],
    }


async def test_parts_that_do_the_same_share_a_message() -> None:
    given, _ = await deliver({}, "1@a.test", "2@alias.test", "3@b.test", "4@c.test")
    assert given == {
        "&home": [Given(["1@a.test", "2@alias.test"], [], False)],
        "&world": [Given(["3@b.test", "4@c.test"], [], False)],
    }


async def test_a_part_looks_only_at_what_goes_through_it() -> None:
    check = Says(Action.PASS)
    _, codes = await deliver({id(A): Stage([check])}, "1@a.test", "2@b.test", "3@a.test")
    assert check.asked == [["1@a.test", "3@a.test"]]
    assert codes == [250] * 3
    await deliver({id(A): Stage([check])}, "2@b.test")
    assert len(check.asked) == 1


async def test_what_a_part_quarantines_is_so_for_its_recipients() -> None:
    given, _ = await deliver({id(A): Stage([Says(Action.QUARANTINE)])}, "1@a.test", "2@b.test")
    assert given["&home"] == [Given(["1@a.test"], [], True)]
    assert given["&world"] == [Given(["2@b.test"], [], False)]


@pytest.mark.parametrize("action", [Action.REJECT, Action.DEFER])
async def test_what_a_part_refuses_nobody_gets_since_smtp_has_one_answer(action: Action) -> None:
    given, codes = await deliver({id(A): Stage([Says(action)])}, "1@a.test", "2@b.test", "3@closed.test")
    assert given == {}
    code = REFUSED.code if action is Action.REJECT else 451
    assert codes == [code, code, 550]


async def test_the_strictest_part_decides() -> None:
    stages = {id(A): Stage([Says(Action.DEFER)]), id(B): Stage([Says(Action.REJECT)])}
    assert await deliver(stages, "1@a.test", "2@b.test") == ({}, [550, 550])


async def test_in_lmtp_the_others_get_it() -> None:
    stages = {id(A): Stage([Says(Action.REJECT)])}
    given, codes = await deliver(stages, "1@a.test", "2@b.test", answers_each=True)
    assert codes == [550, 250]
    assert given == {"&world": [Given(["2@b.test"], [], False)]}


def test_a_signature_that_is_given_again_is_made_once_as_the_inner_block_says() -> None:
    inner = Signer(Domain("example.org"), "s", KEY, subdomains=True)
    other = Signer(Domain("example.net"), "s", KEY)
    assert signing("r", "s").extended([inner, other])._signers == (
        Signer(Domain("example.org"), "r", KEY),
        inner,
        other,
    )
