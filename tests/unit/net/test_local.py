"""Which addresses are ours (spec section 4, step 4)."""

from __future__ import annotations

import errno
import socket
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mailrider.net import local
from mailrider.net.local import KEPT, MAX_KEPT, OwnAddresses
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from mailrider.delivery.mx import Address


class Machine:
    """A machine with some addresses; `asked` counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = {ip_address(each) for each in addresses}
        self.asked: list[Address] = []
        self.is_mute = False
        monkeypatch.setattr(local, "_has", self._has)

    def _has(self, address: Address) -> bool | None:
        self.asked.append(address)
        return None if self.is_mute else address in self.addresses


@pytest.mark.parametrize(
    ("address", "ours"),
    [
        ("192.0.2.1", True),
        ("::ffff:192.0.2.1", True),
        ("64:ff9b::192.0.2.1", True),
        ("64:ff9b:1::192.0.2.1", True),
        ("64:ff9b:1:c000:2:100::", True),
        ("2002:c000:201::1", True),
        ("2001:0:cb00:7163:8000:f227:3fff:fdfe", True),
        ("64:ff9b:1::203.0.113.7", True),
        ("64:ff9b:1::192.0.2.2", False),
        ("64:ff9b::127.0.0.1", False),
        ("192.0.2.2", False),
        ("2001:db8::1", True),
        ("2001:db8::2", False),
        ("203.0.113.7", True),
        ("::ffff:203.0.113.7", True),
        ("127.0.0.1", False),
        ("::ffff:127.0.0.1", False),
        ("::1", False),
        ("0.0.0.0", False),
        ("::", False),
        ("224.0.0.1", False),
    ],
)
def test_ours_is_what_an_interface_other_than_loopback_has_and_what_reaches_us_through_nat(
    address: str, ours: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Machine(monkeypatch, "192.0.2.1", "2001:db8::1", "127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1")
    own = OwnAddresses(FakeClock(), [ip_address("203.0.113.7")])
    assert own(ip_address(address)) is ours


async def test_the_machine_is_asked_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock, address = Machine(monkeypatch), FakeClock(), ip_address("192.0.2.1")
    own = OwnAddresses(clock)
    assert not own(address)
    machine.addresses.add(address)
    await clock.advance(KEPT - 1)
    assert not own(address)
    await clock.advance(1)
    assert own(address)
    assert len(machine.asked) == 2


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, first = Machine(monkeypatch), ip_address("10.0.0.0")
    own = OwnAddresses(FakeClock())
    for number in range(MAX_KEPT + 1):
        own(first + number)
    own(first)
    assert machine.asked.count(first) == 2


async def test_without_an_answer_an_address_is_not_ours_and_the_next_question_is_asked_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    machine, address = Machine(monkeypatch, "192.0.2.1"), ip_address("192.0.2.1")
    own = OwnAddresses(FakeClock())
    machine.is_mute = True
    assert not own(address)
    machine.is_mute = False
    assert own(address)


class FreelyBound(socket.socket):
    """A socket on a machine with the sysctl ip_nonlocal_bind."""

    def __init__(self, family: int, kind: int) -> None:
        super().__init__(family, kind)
        if family == socket.AF_INET:
            self.setsockopt(socket.IPPROTO_IP, 15, 1)  # IP_FREEBIND
        else:
            self.setsockopt(socket.IPPROTO_IPV6, 78, 1)  # IPV6_FREEBIND


@pytest.mark.parametrize("text", ["127.0.0.1", "::1", "198.51.100.1", "2001:db8::1"])
def test_the_kernel_says_what_the_machine_has_even_if_any_address_can_be_bound(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert bool(local._has(ip_address(text))) is (text in {"127.0.0.1", "::1"})
    monkeypatch.setattr(socket, "socket", FreelyBound)
    assert bool(local._has(ip_address(text))) is (text in {"127.0.0.1", "::1"})


def test_without_a_descriptor_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    assert local._has(ip_address("127.0.0.1")) is None
