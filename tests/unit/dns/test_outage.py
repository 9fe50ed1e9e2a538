"""One line tells that nothing can be looked up any more, and one that it can again."""

from __future__ import annotations

import pytest

from mailrider.dns.answer import LookupFailure
from mailrider.dns.outage import MANY, Outage
from mailrider.dns.wire import FailedReply
from mailrider.model.domain import Domain
from mailrider.model.event import DNSAvailable, DNSUnavailable, Event

SILENT = FailedReply(LookupFailure.TIMEOUT, "192.0.2.53: no answer within 5 s")
FINE = Domain("fine.test")
NAMES = [Domain(f"mx.a{number}.test") for number in range(2 * MANY)]


@pytest.fixture
def told() -> list[Event]:
    return []


@pytest.fixture
def outage(told: list[Event]) -> Outage:
    return Outage(told.append)


def test_it_is_told_once_when_names_of_several_domains_failed_in_a_row(outage: Outage, told: list[Event]) -> None:
    for name in NAMES:
        outage.failed(name, SILENT)
    reason = f"names of {MANY} domains in a row: time-out (192.0.2.53: no answer within 5 s)"
    assert told == [DNSUnavailable(reason)]
    assert told[0].level == "error"


def test_the_end_of_it_is_told_once_and_the_next_one_anew(outage: Outage, told: list[Event]) -> None:
    for _ in range(2):
        for name in NAMES:
            outage.failed(name, FailedReply(LookupFailure.SERVFAIL))
        outage.answered(FINE)
        outage.answered(FINE)
    assert [type(each) for each in told] == [DNSUnavailable, DNSAvailable] * 2


def test_one_domain_whose_dns_is_broken_is_no_outage(outage: Outage, told: list[Event]) -> None:
    for number in range(100):
        outage.failed(Domain(f"mx{number}.broken.test"), SILENT)
    assert told == []


def test_one_answer_among_failures_is_enough(outage: Outage, told: list[Event]) -> None:
    for name in NAMES:
        outage.failed(name, SILENT)
        outage.answered(FINE)
    assert told == []


def test_domains_that_failed_while_others_did_not_are_no_outage_at_night(outage: Outage, told: list[Event]) -> None:
    for name in NAMES:
        outage.failed(name, SILENT)
        outage.answered(FINE)
    for name in NAMES * 2:
        outage.failed(name, SILENT)
    assert told == []


def test_domains_that_were_answered_since_count_again(outage: Outage, told: list[Event]) -> None:
    for name in NAMES:
        outage.failed(name, SILENT)
        outage.answered(name)
    for name in NAMES:
        outage.failed(name, SILENT)
    assert [type(each) for each in told] == [DNSUnavailable]


@pytest.mark.parametrize("failure", [LookupFailure.BOGUS, LookupFailure.MALFORMED, LookupFailure.CNAME_LOOP])
def test_answers_that_are_wrong_are_answers(outage: Outage, told: list[Event], failure: LookupFailure) -> None:
    for name in NAMES:
        outage.failed(name, FailedReply(failure))
    assert told == []
