"""IPv4 addresses in IPv6 addresses (RFC 4291 2.5.5, 6052 2, 8215, 4380 4, 3056 2)."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest

from mailrider.delivery.settings import PROHIBITED_ADDRESSES
from mailrider.model.ip import client_key, embedded_ipv4, is_within, unmapped

FORMS = [
    "::ffff:10.1.2.3",
    "::ffff:0:10.1.2.3",
    "::10.1.2.3",
    "64:ff9b::10.1.2.3",
    "2002:a01:203::",
    "2002:a01:203:1::25",
    "2001:0:a01:203:8000:f227:f5fe:fdfc",  # the Teredo server, and
    "2001:0:cb00:7107:8000:f227:f5fe:fdfc",  # the client, RFC 4380 4
    "64:ff9b:1:a01:2:300::",  # RFC 6052 2.2: behind 48 bits,
    "64:ff9b:1:0a:1:203::",  # 56,
    "64:ff9b:1::a:102:300:0",  # 64,
    "64:ff9b:1::10.1.2.3",  # and 96
    "64:ff9b:1:1::10.1.2.3",
    "64:ff9b:1:a01:2:300:0:1",  # what follows behind is not looked at by translators
]


@pytest.mark.parametrize("text", FORMS)
def test_every_form_gives_the_ipv4_address(text: str) -> None:
    assert ip_address("10.1.2.3") in embedded_ipv4(ip_address(text))


@pytest.mark.parametrize(
    "text", ["10.1.2.3", "::", "::1", "2001:db8::a01:203", "64:ff9b:2::a01:203", "fe80::a01:203", "::1:0:a01:203"]
)
def test_other_addresses_have_none_in_them(text: str) -> None:
    assert embedded_ipv4(ip_address(text)) == ()


@pytest.mark.parametrize("text", ["10.1.2.3", *FORMS])
def test_a_network_has_its_addresses_in_every_form(text: str) -> None:
    assert is_within(ip_address(text), [ip_network("192.0.2.0/24"), ip_network("10.0.0.0/8")])
    assert not is_within(ip_address(text), [ip_network("192.0.2.0/24"), ip_network("11.0.0.0/8")])


@pytest.mark.parametrize("text", ["64:ff9b:1::", "64:ff9b:1::1", "64:ff9b:1:7f00:0:100::", "64:ff9b:1::127.0.0.1"])
def test_what_leads_to_ourselves_through_a_translator_of_the_site_is_prohibited(text: str) -> None:
    assert is_within(ip_address(text), PROHIBITED_ADDRESSES)


@pytest.mark.parametrize("text", ["64:ff9b:1::192.0.2.1", "64:ff9b:1:c000:2:100::", "64:ff9b:1:fffe::192.0.2.1"])
def test_zeros_around_another_address_are_none(text: str) -> None:
    assert not is_within(ip_address(text), PROHIBITED_ADDRESSES)


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
    [
        ("::ffff:192.0.2.1", "192.0.2.1"),
        ("::ffff:1", "::ffff:1"),
        ("::ffff:what", "::ffff:what"),
        ("192.0.2.1", "192.0.2.1"),
        ("::1", "::1"),
    ],
)
def test_ipv4_on_a_dual_stack_socket_is_told_as_ipv4(text: str, shown: str) -> None:
    assert unmapped(text) == shown
