"""IPv4 addresses in IPv6 addresses (RFC 4291 2.5.5, 6052 2.1, 3056 2)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from mailrider.model.ip import client_key, embedded_ipv4, is_within, unmapped

FORMS = ["::ffff:10.1.2.3", "::10.1.2.3", "64:ff9b::10.1.2.3", "2002:a01:203::", "2002:a01:203:1::25"]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_gives_the_ipv4_address(text: str) -> None:
    assert embedded_ipv4(ip_address(text)) == ip_address("10.1.2.3")


@pytest.mark.parametrize(
    "text", ["10.1.2.3", "::", "::1", "2001:db8::a01:203", "64:ff9b:2::a01:203", "fe80::a01:203", "::1:0:a01:203"]
)
def test_other_addresses_have_none_in_them(text: str) -> None:
    assert embedded_ipv4(ip_address(text)) is None


@pytest.mark.parametrize("text", ["10.1.2.3", *FORMS])
def test_a_network_has_its_addresses_in_every_form(text: str) -> None:
    assert is_within(ip_address(text), [ip_network("192.0.2.0/24"), ip_network("10.0.0.0/8")])
    assert not is_within(ip_address(text), [ip_network("192.0.2.0/24"), ip_network("11.0.0.0/8")])


def test_an_ipv6_network_has_the_addresses_that_stand_in_it() -> None:
    assert is_within(ip_address("64:ff9b::10.1.2.3"), [ip_network("64:ff9b::/96")])
    assert not is_within(ip_address("10.1.2.3"), [ip_network("64:ff9b::/96")])


@pytest.mark.parametrize(
    ("address", "client"),
    [
        ("192.0.2.1", "192.0.2.1"),
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::FFFF:192.0.2.1", "192.0.2.1"),
        ("::ffff:c000:201", "192.0.2.1"),
        ("2001:db8:1:2::1", "2001:db8:1:2::/64"),
        ("2001:db8:1:2:ffff:ffff:ffff:ffff", "2001:db8:1:2::/64"),
        ("2001:db8:1:3::1", "2001:db8:1:3::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::1"),
        ("uid 1000", "uid 1000"),
        ("", ""),
    ],
)
def test_an_ipv6_network_of_64_bits_is_one_client(address: str, client: str) -> None:
    assert client_key(address) == client


@pytest.mark.parametrize(
    ("text", "shown"),
    [("::ffff:192.0.2.1", "192.0.2.1"), ("::ffff:1", "::ffff:1"), ("192.0.2.1", "192.0.2.1"), ("::1", "::1")],
)
def test_ipv4_on_a_dual_stack_socket_is_told_as_ipv4(text: str, shown: str) -> None:
    assert unmapped(text) == shown
