from __future__ import annotations

from collections import OrderedDict
from ipaddress import IPv4Address
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from mailrider.dns.answer import Answer, MalformedTLSA, MXRecord, Record, RecordType
from mailrider.dns.cache import AnswerCache, weigh
from mailrider.model.domain import Domain
from mailrider.model.security import TLSARecord
from mailrider.testing.clock import FakeClock

A, TXT = RecordType.A, RecordType.TXT


def answer(name: str, expires: float, *records: Record) -> Answer[Any]:
    return Answer(Domain(name), records, authentic=False, expires=expires)


async def test_an_answer_is_given_until_it_expires_and_not_a_moment_longer() -> None:
    clock = FakeClock()
    cache = AnswerCache(10, clock)
    kept = answer("a.test", clock.monotonic() + 5)
    cache.put(A, kept)
    await clock.advance(4.999)
    assert cache.get(Domain("a.test"), A) is kept
    await clock.advance(0.001)
    assert cache.get(Domain("a.test"), A) is None
    assert len(cache) == 0


def test_name_and_type_are_the_key() -> None:
    clock = FakeClock()
    cache = AnswerCache(10, clock)
    cache.put(A, answer("a.test", clock.monotonic() + 5))
    assert cache.get(Domain("a.test"), RecordType.AAAA) is None
    assert cache.get(Domain("b.test"), A) is None


def test_an_answer_without_a_lifetime_is_not_kept_and_ends_an_older_one() -> None:
    clock = FakeClock()
    cache = AnswerCache(10, clock)
    cache.put(A, answer("a.test", clock.monotonic() + 5))
    cache.put(A, answer("a.test", clock.monotonic()))
    assert len(cache) == 0


def test_the_least_recently_used_makes_room() -> None:
    clock = FakeClock()
    cache = AnswerCache(2, clock)
    for name in ("a.test", "b.test"):
        cache.put(A, answer(name, clock.monotonic() + 5))
    assert cache.get(Domain("a.test"), A)
    cache.put(A, answer("c.test", clock.monotonic() + 5))
    assert cache.get(Domain("b.test"), A) is None
    assert cache.get(Domain("a.test"), A)


def test_a_cache_of_size_zero_keeps_nothing() -> None:
    clock = FakeClock()
    cache = AnswerCache(0, clock)
    cache.put(A, answer("a.test", clock.monotonic() + 5))
    assert cache.get(Domain("a.test"), A) is None


def test_large_answers_take_several_places() -> None:
    assert weigh(answer("a.test", 0)) == 1
    assert weigh(answer("a.test", 0, *[IPv4Address(n) for n in range(63)], Domain("b.test"))) == 2
    assert weigh(answer("a.test", 0, b"x" * 5000)) == 5
    assert weigh(answer("a.test", 0, TLSARecord(2, 0, 0, b"c" * 2048), MalformedTLSA("03"))) == 3
    assert weigh(answer("a.test", 0, *[MXRecord(1, None, "x" * 200)] * 10)) == 2


def test_an_answer_larger_than_the_cache_is_not_kept_and_drives_nobody_out() -> None:
    clock = FakeClock()
    cache = AnswerCache(3, clock)
    cache.put(A, answer("a.test", clock.monotonic() + 5))
    cache.put(TXT, answer("big.test", clock.monotonic() + 5, b"x" * 4096))
    assert len(cache) == 1


def test_clear_forgets_everything() -> None:
    clock = FakeClock()
    cache = AnswerCache(1, clock)
    cache.put(A, answer("a.test", clock.monotonic() + 5))
    cache.clear()
    assert cache.get(Domain("a.test"), A) is None
    cache.put(A, answer("b.test", clock.monotonic() + 5))
    assert cache.get(Domain("b.test"), A)


class _HandClock(FakeClock):
    """Moves without a loop."""

    def pass_by(self, seconds: float) -> None:
        self._monotonic += seconds


class CacheMachine(RuleBasedStateMachine):
    """Against a model that is a plain ordered dict, swept at every step."""

    SIZE = 6

    def __init__(self) -> None:
        super().__init__()
        self.clock = _HandClock()
        self.cache = AnswerCache(self.SIZE, self.clock)
        self.model: OrderedDict[str, Answer[Any]] = OrderedDict()

    names = st.sampled_from([f"{letter}.test" for letter in "abcdefghij"])

    @rule(name=names, ttl=st.integers(0, 3), octets=st.sampled_from([0, 1023, 1024, 4000, 9000]))
    def put(self, name: str, ttl: int, octets: int) -> None:
        kept = answer(name, self.clock.monotonic() + ttl, b"x" * octets)
        self.cache.put(TXT, kept)
        self.model.pop(name, None)
        if ttl and weigh(kept) <= self.SIZE:
            self.model[name] = kept
        while sum(map(weigh, self.model.values())) > self.SIZE:
            self.model.popitem(last=False)

    @rule(name=names)
    def get(self, name: str) -> None:
        expected = self.model.get(name)
        if expected is not None and expected.expires <= self.clock.monotonic():
            del self.model[name]
            expected = None
        assert self.cache.get(Domain(name), TXT) is expected
        if expected is not None:
            self.model.move_to_end(name)

    @rule(seconds=st.integers(1, 2))
    def wait(self, seconds: int) -> None:
        self.clock.pass_by(seconds)

    @invariant()
    def is_bounded(self) -> None:
        assert len(self.cache) == len(self.model) <= self.SIZE


TestCache = CacheMachine.TestCase
