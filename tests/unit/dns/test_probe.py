"""Is a server fit for validation in this process: what its answers show, and what follows from all of them."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import dns.message
import dns.rcode
import pytest

from mailrider.dns.answer import RecordType
from mailrider.dns.probe import (
    MAX_KEYS_MESSAGE,
    Fitness,
    KeysAnswer,
    Plan,
    Prober,
    ProbeResult,
    Validating,
    judge_probe,
    next_plan,
    read_keys,
    read_keys_answer,
)
from mailrider.dns.unbound import Validated
from mailrider.dns.validating import Failing, Unvalidated
from mailrider.dns.wire import Question
from mailrider.model.domain import Domain
from mailrider.testing.clock import FakeClock
from tests.unit.dns.messages import message
from tests.unit.dns.world import ONE, TWO, Server, World, answer, keys_message

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.dns.servers import ServerAddress

QUERY = dns.message.make_query(".", "DNSKEY", want_dnssec=True)
QUESTION = Question(Domain("iana.org"), RecordType.MX, 0)
KEYS = Validated(keys_message(QUERY), secure=True)
SIGNED = Validated(answer(QUESTION), secure=True)
BOGUS = Validated(message(QUESTION, rcode=dns.rcode.SERVFAIL), bogus=True, why="wrong signature")
NO_SUCH_NAME = Validated(message(QUESTION, rcode=dns.rcode.NXDOMAIN), secure=True)
INSECURE = Validated(answer(QUESTION))
SERVFAIL = Validated(message(QUESTION, rcode=dns.rcode.SERVFAIL))
NO_ANSWER = Validated(error="no answer within 15 s")
GOOD, BARE, CUT, DEAD = KeysAnswer(True), KeysAnswer(), KeysAnswer(is_truncated=True), KeysAnswer(error="time-out")

FIT, SILENT, STRIPS, OTHER_KEYS = Fitness.FIT, Fitness.SILENT, Fitness.STRIPS, Fitness.OTHER_KEYS

PROBES: dict[str, tuple[Any, Fitness, str]] = {
    "all is well": ((KEYS, SIGNED, BOGUS, GOOD, GOOD), FIT, ""),
    "over TLS nothing is asked past the validator": ((KEYS, SIGNED, BOGUS), FIT, ""),
    "too large for UDP": ((KEYS, SIGNED, BOGUS, CUT, GOOD), FIT, ""),
    "a closed network whose root proves that the names do not exist": (
        (KEYS, NO_SUCH_NAME, NO_SUCH_NAME, GOOD, GOOD),
        FIT,
        "",
    ),
    "the bogus name is down": ((KEYS, SIGNED, NO_ANSWER, GOOD, GOOD), FIT, ""),
    "a validating forwarder refuses the bogus name": ((KEYS, SIGNED, SERVFAIL, GOOD, GOOD), FIT, ""),
    "stripped over UDP": ((KEYS, SIGNED, BOGUS, BARE, GOOD), STRIPS, "without signatures (RRSIG) over UDP"),
    "stripped over TCP": ((KEYS, SIGNED, BOGUS, GOOD, BARE), STRIPS, "without signatures (RRSIG) over TCP"),
    "truncated over TCP": ((KEYS, SIGNED, BOGUS, CUT, CUT), STRIPS, "over TCP"),
    "silent over UDP": ((NO_ANSWER, NO_ANSWER, NO_ANSWER, DEAD, GOOD), SILENT, "over UDP: time-out"),
    "no TCP": ((KEYS, SIGNED, BOGUS, CUT, DEAD), SILENT, "over TCP: time-out"),
    "keys of another root": (
        (BOGUS, BOGUS, BOGUS, GOOD, GOOD),
        OTHER_KEYS,
        "fit no trust anchor: wrong signature",
    ),
    "no keys": (
        (NO_ANSWER, SIGNED, BOGUS, GOOD, GOOD),
        SILENT,
        "no keys of the root: no answer within 15 s",
    ),
    "SERVFAIL for the keys": (
        (SERVFAIL, SIGNED, BOGUS, GOOD, GOOD),
        SILENT,
        "no keys of the root: SERVFAIL",
    ),
    "only the root's signatures come": (
        (KEYS, BOGUS, BOGUS, GOOD, GOOD),
        STRIPS,
        "iana.org does not validate",
    ),
    "the signed name is down": ((KEYS, SERVFAIL, BOGUS, GOOD, GOOD), SILENT, "iana.org: SERVFAIL"),
    "the signed name is not signed": ((KEYS, INSECURE, BOGUS, GOOD, GOOD), SILENT, "iana.org: not signed"),
    "an empty packet": ((KEYS, Validated(), BOGUS, GOOD, GOOD), SILENT, "iana.org: no answer"),
    "bogus data is taken for insecure": ((KEYS, SIGNED, INSECURE, GOOD, GOOD), STRIPS, "dnssec-failed.org"),
}


@pytest.mark.parametrize("case", PROBES)
def test_what_the_answers_show(case: str) -> None:
    asked, fitness, reason = PROBES[case]
    finding = judge_probe(*asked)
    assert finding.fitness is fitness
    assert reason in finding.reason
    assert bool(finding.reason) is bool(finding.root_keys == ())


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (keys_message(QUERY), GOOD),
        (keys_message(QUERY, signed=False), BARE),
        (keys_message(dns.message.make_query(".", "DNSKEY")), None),  # another id
        (b"", None),
        (b"\0" * 100, None),
        (b"\0" * (MAX_KEYS_MESSAGE + 1), KeysAnswer(error="more than 8192 octets")),
    ],
)
def test_a_server_s_own_answer_for_the_keys(octets: bytes, expected: KeysAnswer | None) -> None:
    assert read_keys_answer(QUERY, octets) == expected


def test_a_server_that_refuses() -> None:
    refusal = dns.message.make_response(QUERY)
    refusal.set_rcode(dns.rcode.REFUSED)
    assert read_keys_answer(QUERY, refusal.to_wire()) == KeysAnswer(error="REFUSED")


def test_the_keys_of_the_root_are_read_from_the_validator_s_packet() -> None:
    (key,) = read_keys(keys_message(QUERY))
    assert key[:4] == bytes((1, 1, 3, 13))  # 257, 3, 13


@pytest.mark.parametrize(
    "packet", [b"", b"x", b"\0" * (MAX_KEYS_MESSAGE + 1), answer(QUESTION), keys_message(QUERY)[:-1]]
)
def test_none_are_read_from_anything_else(packet: bytes) -> None:
    assert read_keys(packet) == ()


def found(one: Fitness, two: Fitness) -> dict[ServerAddress, ProbeResult]:
    return {ONE: ProbeResult(one, "says this"), TWO: ProbeResult(two, "says that")}


VALIDATING = Validating((ONE, TWO))
OFF = Unvalidated("it was off")

PLANS = [
    # before, of the first, of the second, mode, servers with `yes`; and the mode with `auto`
    (None, FIT, FIT, Validating, (ONE, TWO), Validating),
    (None, FIT, STRIPS, Validating, (ONE,), Validating),
    (None, FIT, SILENT, Validating, (ONE,), Validating),
    (None, FIT, OTHER_KEYS, Validating, (ONE,), Validating),
    (None, STRIPS, STRIPS, Failing, (), Unvalidated),
    (None, SILENT, STRIPS, Failing, (), Unvalidated),
    (None, OTHER_KEYS, STRIPS, Failing, (), Failing),
    (OFF, FIT, STRIPS, Validating, (ONE,), Validating),
    (OFF, STRIPS, STRIPS, Failing, (), Unvalidated),
    (VALIDATING, FIT, SILENT, Validating, (ONE, TWO), Validating),
    (VALIDATING, FIT, STRIPS, Validating, (ONE,), Validating),
    (VALIDATING, STRIPS, STRIPS, Validating, (ONE, TWO), Validating),
    (VALIDATING, OTHER_KEYS, OTHER_KEYS, Validating, (ONE, TWO), Validating),
    (Validating((TWO,)), STRIPS, STRIPS, Validating, (TWO,), Validating),
    (
        Validating(()),
        STRIPS,
        STRIPS,
        Validating,
        (ONE, TWO),
        Validating,
    ),  # other servers now
]


@pytest.mark.parametrize(("before", "one", "two", "mode", "servers", "with_auto"), PLANS)
def test_what_follows(
    before: Plan | None,
    one: Fitness,
    two: Fitness,
    mode: type[Plan],
    servers: tuple[ServerAddress, ...],
    with_auto: type[Plan],
) -> None:
    plan = next_plan(before, found(one, two), may_turn_off=False)
    assert type(plan) is mode
    assert not isinstance(plan, Validating) or plan.servers == servers
    assert type(next_plan(before, found(one, two), may_turn_off=True)) is with_auto


def test_a_plan_without_a_server_says_why_of_each() -> None:
    plan = next_plan(None, found(STRIPS, SILENT), may_turn_off=False)
    assert plan == Failing("nothing can be validated (192.0.2.1:53: says this; 192.0.2.2:53: says that)")


class Refusing(World):
    """Nobody listens there."""

    async def ask_udp(self, server: ServerAddress, query: bytes, accept: Callable[[bytes], Any]) -> Any:
        raise ConnectionRefusedError(111, "Connection refused")


async def test_who_cannot_be_asked_is_told_in_the_systems_words() -> None:
    world = Refusing()
    world.servers = {ONE: Server.FIT}
    prober = Prober(world.open_validator, world, FakeClock(), random.Random(1), timeout=5, patience=15)
    found = (await prober.probe((ONE,)))[ONE]
    assert (found.fitness, found.reason) == (SILENT, "the root's keys over UDP: Connection refused")
