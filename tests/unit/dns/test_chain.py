from __future__ import annotations

import itertools
from ipaddress import IPv4Address
from typing import Any

import dns.rcode
import pytest

from mailrider.dns.answer import MAX_CNAMES, Answer, LookupFailure, RecordType
from mailrider.dns.chain import MAX_NEGATIVE_TTL, MAX_TTL, ChainLookup
from mailrider.dns.wire import FailedReply
from mailrider.model.domain import Domain
from tests.unit.dns.messages import Row, ask, reply

NOW = 1000.0
ADDRESS = IPv4Address("192.0.2.1")


def alias(name: str, target: str) -> Row:
    return (f"{name}.", "CNAME", f"{target}.")


def address(name: str) -> Row:
    return (f"{name}.", "A", str(ADDRESS))


class Asker:
    """A walk that is fed with replies to what it asks."""

    def __init__(self, name: str = "a.test", record_type: str = "A", *, trusted: bool = True) -> None:
        self.lookup = ChainLookup(Domain(name), RecordType(record_type), trusted=trusted)
        self.type = record_type

    def take(self, *rows: Row, ad: bool = True, **more: object) -> Answer[Any] | FailedReply | None:
        question = ask(self.lookup.current.ascii, self.type)
        flags = "QR RD RA AD" if ad else "QR RD RA"
        return self.lookup.take(reply(question, rows, flags=flags, **more), NOW)

    def answer(self, *rows: Row, **more: Any) -> Answer[Any]:
        answer = self.take(*rows, **more)
        assert isinstance(answer, Answer), answer
        return answer

    def failure(self, *rows: Row, **more: Any) -> LookupFailure:
        failed = self.take(*rows, **more)
        assert isinstance(failed, FailedReply), failed
        return failed.failure


def test_records_at_the_name_are_the_answer() -> None:
    assert Asker().answer(address("a.test")) == Answer(Domain("a.test"), (ADDRESS,), authentic=True, expires=NOW + 300)


def test_a_chain_in_one_reply_is_followed_in_any_order() -> None:
    answer = Asker().answer(address("c.test"), alias("b.test", "c.test"), alias("a.test", "b.test"))
    assert answer.records == (ADDRESS,)
    assert answer.name == Domain("a.test")
    assert answer.chain == (Domain("b.test"),)
    assert answer.canonical == Domain("c.test")


def test_a_reply_that_ends_on_a_cname_is_followed_by_a_question() -> None:
    asker = Asker()
    assert asker.take(alias("a.test", "b.test")) is None
    assert asker.lookup.current == Domain("b.test")
    answer = asker.answer(address("b.test"))
    assert answer.canonical == Domain("b.test")
    assert answer.chain == ()
    assert answer.authentic


@pytest.mark.parametrize("unsigned", [0, 1])
def test_an_answer_is_authentic_only_if_every_reply_was(unsigned: int) -> None:
    asker = Asker()
    assert asker.take(alias("a.test", "b.test"), ad=unsigned != 0) is None
    assert not asker.answer(address("b.test"), ad=unsigned != 1).authentic


def test_nothing_is_authentic_from_servers_that_are_not_trusted() -> None:
    assert not Asker(trusted=False).answer(address("a.test")).authentic
    assert not Asker(trusted=False).answer(rcode=dns.rcode.NXDOMAIN, soa="test.").authentic


def test_an_answer_lives_as_long_as_its_shortest_lived_part() -> None:
    asker = Asker()
    assert asker.take(alias("a.test", "b.test"), ttl=20) is None
    assert asker.answer(address("b.test"), ttl=300).expires == NOW + 20
    other = Asker()
    assert other.take(alias("a.test", "b.test"), ttl=300) is None
    assert other.answer(address("b.test"), ttl=0).expires == NOW


def test_no_answer_lives_longer_than_a_day_and_no_absence_longer_than_an_hour() -> None:
    assert Asker().answer(address("a.test"), ttl=10_000_000).expires == NOW + MAX_TTL
    denial = reply(ask("a.test", "A"), soa="test.")
    denial.denials["test"] = 1_000_000
    answer = ChainLookup(Domain("a.test"), RecordType.A, trusted=True).take(denial, NOW)
    assert isinstance(answer, Answer)
    assert answer.expires == NOW + MAX_NEGATIVE_TTL


@pytest.mark.parametrize(("rcode", "exists"), [(dns.rcode.NOERROR, True), (dns.rcode.NXDOMAIN, False)])
def test_an_absence_is_an_answer(rcode: dns.rcode.Rcode, exists: bool) -> None:
    answer = Asker().answer(soa="test.", rcode=rcode)
    assert answer.records == ()
    assert answer.exists is exists
    assert answer.authentic
    assert answer.expires == NOW + 60


def test_an_absence_without_soa_or_with_that_of_another_zone_is_not_remembered() -> None:
    assert Asker().answer().expires == NOW
    assert Asker().answer(soa="other.test.").expires == NOW


def test_nxdomain_is_about_the_last_name_of_the_chain() -> None:
    answer = Asker().answer(alias("a.test", "gone.test"), rcode=dns.rcode.NXDOMAIN, soa="test.")
    assert not answer.exists
    assert answer.canonical == Domain("gone.test")


def test_an_soa_above_the_target_says_that_the_chain_has_ended() -> None:
    answer = Asker().answer(alias("a.test", "b.test"), soa=".")
    assert answer.records == ()
    assert answer.exists


def test_an_soa_of_another_zone_says_nothing_about_the_target() -> None:
    assert Asker().take(alias("a.test", "b.example"), soa="test.") is None


def test_a_target_without_records_is_asked_for_once() -> None:
    asker = Asker()
    assert asker.take(alias("a.test", "b.test")) is None
    assert asker.answer().records == ()


@pytest.mark.parametrize(
    "rows",
    [
        [alias("a.test", "a.test")],
        [alias("a.test", "b.test"), alias("b.test", "a.test")],
        [alias("a.test", "b.test"), alias("b.test", "c.test"), alias("c.test", "b.test")],
    ],
)
def test_a_chain_that_turns_back_on_itself_is_a_failure(rows: list[Row]) -> None:
    assert Asker().failure(*rows) is LookupFailure.CNAME_LOOP


def test_a_loop_over_several_replies_is_a_failure() -> None:
    asker = Asker()
    assert asker.take(alias("a.test", "b.test")) is None
    assert asker.failure(alias("b.test", "a.test")) is LookupFailure.CNAME_LOOP


def chain(links: int) -> list[Row]:
    names = ["a.test", *(f"l{n}.test" for n in range(1, links + 1))]
    return [alias(name, target) for name, target in itertools.pairwise(names)]


def test_a_chain_of_the_longest_length_is_followed() -> None:
    answer = Asker().answer(*chain(MAX_CNAMES), address(f"l{MAX_CNAMES}.test"))
    assert len(answer.chain) == MAX_CNAMES - 1


def test_a_longer_chain_is_a_failure_in_one_reply_or_in_many() -> None:
    assert Asker().failure(*chain(MAX_CNAMES + 1)) is LookupFailure.CNAME_CHAIN
    asker = Asker()
    for row in chain(MAX_CNAMES):
        assert asker.take(row) is None
    last = asker.lookup.current.ascii
    assert asker.failure(alias(last, "further.test")) is LookupFailure.CNAME_CHAIN


def test_a_cname_that_was_asked_for_is_not_followed() -> None:
    answer = Asker("a.test", "CNAME").answer(alias("a.test", "b.test"), alias("b.test", "c.test"))
    assert answer.records == (Domain("b.test"),)
    assert answer.canonical is None


def test_records_beside_a_cname_are_the_answer() -> None:
    assert Asker().answer(alias("a.test", "b.test"), address("a.test")).canonical is None


def test_a_cname_to_what_is_no_host_name_is_a_failure() -> None:
    assert Asker().failure(("a.test.", "CNAME", r"no\032host.test.")) is LookupFailure.MALFORMED


def test_unreadable_records_are_a_failure() -> None:
    assert Asker().failure(("a.test.", "A", b"\1")) is LookupFailure.MALFORMED


def test_a_name_that_does_not_exist_and_has_records_is_a_failure() -> None:
    assert Asker().failure(address("a.test"), rcode=dns.rcode.NXDOMAIN) is LookupFailure.MALFORMED
