"""Which addresses are ours."""

from __future__ import annotations

import errno
import socket
import sys
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mailrider.net import local
from mailrider.net.local import KEPT, MAX_KEPT, ROUTES, ROUTES_IPV6, Gateways, OwnAddresses, container
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from mailrider.delivery.mx import Address


class Machine:
    """A machine with some addresses; `asked` counts how often it was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
        self.addresses = {ip_address(each) for each in addresses}
        self.asked: list[Address] = []
        self.is_mute = False
        monkeypatch.setattr(local, "has_address", self._has)

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
    # Linux has each address of 127.0.0.0/8, also as IPv6 writes it.
    Machine(
        monkeypatch, "192.0.2.1", "2001:db8::1", "127.0.0.1", "::ffff:127.0.0.1", "::1", "0.0.0.0", "::", "224.0.0.1"
    )
    own = OwnAddresses(FakeClock(), [ip_address("203.0.113.7")])
    assert own(ip_address(address)) is ours


async def test_the_machine_is_asked_again_after_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    machine, clock, address = Machine(monkeypatch), FakeClock(), ip_address("192.0.2.1")
    own = OwnAddresses(clock)
    assert own.look_up(address) == (False, clock.monotonic() + KEPT)
    machine.addresses.add(address)
    await clock.advance(KEPT - 1)
    assert own.look_up(address) == (False, clock.monotonic() + 1)
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
    own, now = OwnAddresses(clock := FakeClock()), clock.monotonic()
    machine.is_mute = True
    assert own.look_up(address) == (False, now)
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
    assert bool(local.has_address(ip_address(text))) is (text in {"127.0.0.1", "::1"})
    monkeypatch.setattr(socket, "socket", FreelyBound)
    assert bool(local.has_address(ip_address(text))) is (text in {"127.0.0.1", "::1"})


def test_without_a_descriptor_nothing_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> socket.socket:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(socket, "socket", fail)
    assert local.has_address(ip_address("127.0.0.1")) is None


# Gateways ------------------------------------------------------------------------------------------------------------

TABLE = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t{gateway}\t0003\t0\t0\t0\t00000000\t0\t0\t0
eth0\t{network}\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0
ppp0\t00000000\t00000000\t0001\t0\t0\t0\t00000000\t0\t0\t0
"""
NOWHERE = "0" * 32
TABLE_IPV6 = f"""{NOWHERE} 00 {NOWHERE} 00 {{gateway}} 00000400 1 0 00000003 eth0
fd{"0" * 30} 40 {NOWHERE} 00 {NOWHERE} 00 1 0 1 eth0
"""


def hexadecimal(address: str) -> str:
    octets = ip_address(address).packed
    return f"{int.from_bytes(octets, sys.byteorder if len(octets) == 4 else 'big'):0{len(octets) * 2}X}"


def tables(**changes: str) -> dict[str, str]:
    first = TABLE.format(gateway=hexadecimal("172.17.0.1"), network=hexadecimal("172.17.0.0"))
    return {ROUTES: first, ROUTES_IPV6: TABLE_IPV6.format(gateway=hexadecimal("fe80::1")), **changes}


def gateways(files: dict[str, str], clock: FakeClock | None = None) -> Gateways:
    def read(path: str) -> str:
        if path not in files:
            raise FileNotFoundError(path)
        return files[path]

    return Gateways(clock or FakeClock(), read)


def test_the_gateways_are_those_of_the_default_routes() -> None:
    assert gateways(tables())() == frozenset({ip_address("172.17.0.1"), ip_address("fe80::1")})


def test_a_kernel_without_ipv6_has_gateways_of_ipv4() -> None:
    files = tables()
    del files[ROUTES_IPV6]
    assert gateways(files)() == frozenset({ip_address("172.17.0.1")})


@pytest.mark.parametrize("text", [None, "header\nnonsense\n", "header\neth0 00000000 ZZ 0003 0 0 0 00000000"])
def test_where_the_system_does_not_say_the_gateways_are_not_known(text: str | None) -> None:
    files = tables()
    if text is None:
        del files[ROUTES]
    else:
        files[ROUTES] = text
    assert gateways(files)() is None


async def test_gateways_are_asked_for_again_after_a_minute() -> None:
    clock, files = FakeClock(), tables()
    known = gateways(files, clock)
    before = known()
    files[ROUTES] = files[ROUTES_IPV6] = ""
    assert known() == before
    await clock.advance(KEPT)
    assert known() == frozenset()


@pytest.mark.parametrize("mark", ["/.dockerenv", "/run/.containerenv", None])
def test_a_container_is_known_by_its_marks(mark: str | None) -> None:
    def read(path: str) -> str:
        if path != mark:
            raise FileNotFoundError(path)
        return ""

    assert container(read) is (mark is not None)
