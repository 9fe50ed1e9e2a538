"""What a refusal means for a message that demands levels itself: for good or for now (RFC 8689 5)."""

from __future__ import annotations

import pytest

from mailrider.delivery.attempt_record import AttemptRecord
from mailrider.delivery.tally import Tally
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.envelope import Recipient
from mailrider.model.event import discard
from mailrider.model.route import Candidate
from mailrider.model.security import NO_REQUIREMENT, NO_SECURITY, MXLevel, Refusal, Requirement, Security, TLSLevel
from mailrider.policy.base import Admission
from mailrider.policy.requiretls import REQUIRETLS
from tests.support.problems import problem

A, MX = Domain("a.test"), Candidate(Domain("mx.test"))
FOR_GOOD, FOR_NOW = (Refusal("dane", 451, "4.7.1", "no", for_now=each) for each in (False, True))
ENOUGH = Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED)
LOCAL = Requirement(min_mx=MXLevel.MTASTS, mx_reason="local_policy")


def record(own: Requirement) -> tuple[Tally, AttemptRecord]:
    tally = Tally([Recipient(Mailbox("b", A))], own)
    return tally, AttemptRecord(tally, A, own, "id", discard, lambda _: None)


def end_of(tally: Tally) -> tuple[str, str]:
    (outcome,) = tally.conclude()
    return outcome.status.value, str(outcome.reply.enhanced)


REFUSED = {
    "its certificate": (REQUIRETLS, "192.0.2.1", FOR_GOOD, NO_SECURITY, ("failed", "5.7.10")),
    "what failed for now": (REQUIRETLS, "192.0.2.1", FOR_NOW, NO_SECURITY, ("deferred", "4.7.0")),
    "nothing that it has shown": (REQUIRETLS, None, FOR_GOOD, NO_SECURITY, ("deferred", "4.7.0")),
    "something else, its levels suffice": (REQUIRETLS, "192.0.2.1", FOR_GOOD, ENOUGH, ("deferred", "4.7.1")),
    "a policy, the message demands nothing": (
        NO_REQUIREMENT,
        "192.0.2.1",
        FOR_GOOD,
        NO_SECURITY,
        ("deferred", "4.7.1"),
    ),
}


@pytest.mark.parametrize(("own", "address", "refusal", "security", "expected"), REFUSED.values(), ids=REFUSED)
def test_a_host_is_refused_for_good_only_for_what_it_has_shown(
    own: Requirement, address: str | None, refusal: Refusal, security: Security, expected: tuple[str, str]
) -> None:
    tally, written = record(own)
    written.refuse(MX, address, refusal, security)
    assert end_of(tally) == expected


LEVELS = {
    "nobody can award it": (REQUIRETLS, REQUIRETLS, Admission(MXLevel.NONE), ("failed", "5.7.10")),
    "a lookup failed": (REQUIRETLS, REQUIRETLS, Admission(MXLevel.NONE, problem("SERVFAIL")), ("deferred", "4.7.0")),
    "a refusal for now": (REQUIRETLS, REQUIRETLS, Admission(MXLevel.NONE, None, FOR_NOW), ("deferred", "4.7.0")),
    "the operator demands it": (NO_REQUIREMENT, LOCAL, Admission(MXLevel.NONE), ("deferred", "4.7.0")),
}


@pytest.mark.parametrize(("own", "demanded", "admission", "expected"), LEVELS.values(), ids=LEVELS)
def test_a_missing_mx_level_is_for_good_only_if_it_is_certain_and_the_message_demands_it(
    own: Requirement, demanded: Requirement, admission: Admission, expected: tuple[str, str]
) -> None:
    tally, written = record(own)
    written.refuse_level(MX, admission, demanded)
    assert end_of(tally) == expected
