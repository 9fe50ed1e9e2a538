"""Whom a stranger's word may make us connect to."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from mailrider.net.address_guard import ANYWHERE, AddressGuard

INTERNAL = (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))


@pytest.mark.parametrize(
    ("guard", "address", "words"),
    [
        (AddressGuard(), "9.9.9.9", ""),
        (AddressGuard(), "10.0.0.1", "no part of the public internet"),
        (AddressGuard(), "::ffff:10.0.0.1", "no part of the public internet"),
        (AddressGuard(), "64:ff9b::a00:1", "no part of the public internet"),
        (AddressGuard(INTERNAL), "10.0.0.1", ""),
        (AddressGuard(INTERNAL), "fd00::1", ""),
        (AddressGuard(INTERNAL), "::ffff:10.0.0.1", ""),
        (AddressGuard(INTERNAL), "192.168.0.1", "no part of the public internet"),
        # Teredo, of which the server or the client is inside: either may get the packets.
        (AddressGuard(INTERNAL), "2001:0:a00:1::80ff:fffe", "no part of the public internet"),
        (AddressGuard(INTERNAL, INTERNAL), "10.0.0.1", "in prohibited_addresses"),
        (AddressGuard(prohibited=(ip_network("9.0.0.0/8"),)), "9.9.9.9", "in prohibited_addresses"),
        (AddressGuard(prohibited=(ip_network("9.0.0.0/8"),)), "::ffff:9.9.9.9", "in prohibited_addresses"),
        (AddressGuard.beside(()), "127.0.0.1", ""),
        (AddressGuard.beside(INTERNAL), "127.0.0.1", "no part of the public internet"),
        (AddressGuard.beside([ip_network("9.0.0.0/8")], INTERNAL), "10.0.0.1", ""),
        (ANYWHERE, "::1", ""),
    ],
)
def test_only_the_public_internet_and_what_is_allowed_may_be_connected_to(
    guard: AddressGuard, address: str, words: str
) -> None:
    refusal = guard.refusal(ip_address(address))
    assert (words in refusal) if words else not refusal
