"""Which addresses belong to the public internet, whatever this Python's `ipaddress` knows."""

from __future__ import annotations

from ipaddress import ip_address

import pytest

from mailrider.model.ip import is_global


@pytest.mark.parametrize(
    "address",
    [
        "9.9.9.9",
        "2620:fe::fe",
        "::ffff:9.9.9.9",
        "64:ff9b::909:909",
        "2002:909:909::1",
        "2001:0:909:909:0:0:f6f6:f6f6",
    ],
)
def test_public_addresses_are_global_and_others_as_the_ipv4_address_inside(address: str) -> None:
    assert is_global(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "10.1.2.3",
        "100.64.0.1",
        "127.0.0.1",
        "169.254.169.254",
        "192.0.0.8",
        "203.0.113.9",
        "240.0.0.1",
        "::1",
        "::",
        "fe80::1",
        "fd00::1",
        "2001:db8::1",
        "2001:2::1",
        "3fff::1",
        "ff02::1",
        "::ffff:10.0.0.1",
        "64:ff9b::a00:1",
        "2002:a00:1::1",
        "2001:0:a00:1:0:0:f6f6:f6f6",
    ],
)
def test_private_and_special_addresses_are_not(address: str) -> None:
    assert not is_global(ip_address(address))
