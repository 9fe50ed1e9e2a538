"""The memory of opportunistic fallback."""

from __future__ import annotations

from mailrider.delivery.connection.fallback import MAX_ENTRIES, REMEMBERED, FallbackMemory
from mailrider.model.domain import Domain
from mailrider.testing.clock import FakeClock
from tests.support.problems import problem

BROKEN, SECOND = problem("bad certificate"), problem("again")
A, B = Domain("a.test"), Domain("b.test")


async def test_a_failure_is_remembered_for_ten_minutes() -> None:
    clock = FakeClock()
    memory = FallbackMemory(clock)
    assert memory.recall("192.0.2.1", A) is None
    memory.failed("192.0.2.1", A, BROKEN)
    await clock.advance(REMEMBERED - 1)
    assert memory.recall("192.0.2.1", A) == BROKEN
    await clock.advance(1)
    assert memory.recall("192.0.2.1", A) is None


def test_it_is_of_one_address_and_one_recipient_domain() -> None:
    memory = FallbackMemory(FakeClock())
    memory.failed("192.0.2.1", A, BROKEN)
    assert (memory.recall("192.0.2.2", A), memory.recall("192.0.2.1", B)) == (None, None)


def test_a_success_clears_it() -> None:
    memory = FallbackMemory(FakeClock())
    memory.failed("192.0.2.1", A, BROKEN)
    memory.worked("192.0.2.1", A)
    memory.worked("192.0.2.1", A)
    assert memory.recall("192.0.2.1", A) is None


async def test_a_new_failure_counts_anew() -> None:
    clock = FakeClock()
    memory = FallbackMemory(clock)
    memory.failed("192.0.2.1", A, BROKEN)
    await clock.advance(REMEMBERED - 1)
    memory.failed("192.0.2.1", A, SECOND)
    await clock.advance(REMEMBERED - 1)
    assert memory.recall("192.0.2.1", A) == SECOND


def test_it_is_bounded_and_forgets_the_oldest() -> None:
    memory = FallbackMemory(FakeClock())
    memory.failed("first", A, BROKEN)
    memory.failed("second", A, BROKEN)
    memory.failed("first", A, SECOND)
    for number in range(MAX_ENTRIES - 1):
        memory.failed(f"address {number}", A, BROKEN)
    assert (memory.recall("first", A), memory.recall("second", A)) == (SECOND, None)
