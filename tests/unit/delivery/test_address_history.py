"""What could not be connected to comes last for five minutes, and nothing is left out."""

from __future__ import annotations

from ipaddress import ip_address
from typing import TYPE_CHECKING

from mailrider.delivery import race as race_module
from mailrider.delivery.race import IN_A_ROW, REMEMBERED, AddressHistory
from mailrider.model.domain import Domain
from mailrider.model.route import Candidate, Host
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    import pytest

V6, V4, OTHER_V6, OTHER_V4 = map(ip_address, ("2001:db8::1", "192.0.2.1", "2001:db8::2", "192.0.2.2"))
ALL = (V6, V4, OTHER_V6, OTHER_V4)


def order(address_history: AddressHistory, addresses: tuple[object, ...] = ALL) -> tuple[object, ...]:
    return address_history.ordered(Host(Candidate(Domain("mx.test")), addresses)).addresses  # type: ignore[arg-type]


async def test_an_address_that_failed_comes_last_for_some_minutes() -> None:
    clock = FakeClock()
    address_history = AddressHistory(clock)
    assert order(address_history) == ALL
    address_history.failed(V6)
    assert order(address_history) == (V4, OTHER_V6, OTHER_V4, V6)
    await clock.advance(REMEMBERED)
    assert order(address_history) == ALL


def test_one_that_is_connected_to_again_is_back_in_its_place() -> None:
    address_history = AddressHistory(FakeClock())
    address_history.failed(V6)
    address_history.worked(V6)
    assert order(address_history) == ALL


async def test_a_family_of_which_several_addresses_in_a_row_did_not_answer_comes_last() -> None:
    clock = FakeClock()
    address_history = AddressHistory(clock)
    for number in range(IN_A_ROW):
        assert order(address_history) == ALL
        address_history.failed(ip_address(f"2001:db8:1::{number}"))
    assert order(address_history) == (V4, OTHER_V4, V6, OTHER_V6)
    address_history.worked(OTHER_V6)
    assert order(address_history) == ALL
    for number in range(IN_A_ROW):
        address_history.failed(ip_address(f"2001:db8:1::{number}"))
    await clock.advance(REMEMBERED)
    assert order(address_history) == ALL


def test_a_refusal_says_nothing_against_the_family() -> None:
    address_history = AddressHistory(FakeClock())
    for number in range(2 * IN_A_ROW):
        address_history.failed(ip_address(f"2001:db8:1::{number}"), answered=True)
    assert order(address_history) == ALL


def test_a_host_with_one_address_has_no_order() -> None:
    address_history = AddressHistory(FakeClock())
    address_history.failed(V6)
    assert order(address_history, (V6,)) == (V6,)


def test_the_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(race_module, "MAX_ENTRIES", 3)
    address_history = AddressHistory(FakeClock())
    address_history.failed(V4)
    for number in range(3):
        address_history.failed(ip_address(f"198.51.100.{number}"), answered=True)
    assert order(address_history) == ALL
