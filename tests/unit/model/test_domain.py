"""Domains and address literals: what they are, how they compare, how they are shown."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.domain import (
    MAX_DOMAIN,
    MAX_DOMAIN_TEXT,
    AddressLiteral,
    Domain,
    owner_of,
    parse_next_hop,
    reverse_name,
)
from tests.unit.model.strategies import domains, literals, parses, tricky_text

LABEL_63 = "a" * 63
NAME_253 = ".".join([LABEL_63, LABEL_63, LABEL_63, "b" * 61])

# What people write -> the form that is compared and sent.
DOMAINS = {
    "example.org": "example.org",
    "Example.ORG": "example.org",
    "example.org.": "example.org",
    "localhost": "localhost",
    "a.b.c.d.example": "a.b.c.d.example",
    "1.example": "1.example",
    "3com.example": "3com.example",
    "example.a1": "example.a1",
    # RFC 5321 has no underscore, real MX hosts do.
    "mail_1.example": "mail_1.example",
    "_mta-sts.example": "_mta-sts.example",
    # R-LDH labels exist, and what is in DNS must be reachable: only U-labels are judged by IDNA.
    "ab--cd.example": "ab--cd.example",
    "xn--a.example": "xn--a.example",
    f"{LABEL_63}.example": f"{LABEL_63}.example",
    NAME_253: NAME_253,
    NAME_253 + ".": NAME_253,
    # IDN (RFC 5890, mapped per UTS 46, non-transitional)
    "bücher.example": "xn--bcher-kva.example",
    "BÜCHER.example": "xn--bcher-kva.example",
    "bu\u0308cher.example": "xn--bcher-kva.example",
    "XN--BCHER-KVA.example": "xn--bcher-kva.example",
    "straße.example": "xn--strae-oqa.example",
    "例え.テスト": "xn--r8jz45g.xn--zckzah",
    "例え。テスト": "xn--r8jz45g.xn--zckzah",
    "例え.テスト.": "xn--r8jz45g.xn--zckzah",
    "ｅｘａｍｐｌｅ.org": "example.org",
    "exam\u00adple.org": "example.org",
    "кто.рф": "xn--j1ail.xn--p1ai",
    # Mixed scripts are legal names; where it stands for "paypal" the A-label shows that it is not.
    "р\u0430ypal.example": "xn--ypal-43d9g.example",
    "אתר.example": "xn--4db2cf.example",
}

NO_DOMAINS = [
    "",
    ".",
    "..",
    "example..org",
    ".example.org",
    "example.org..",
    "exa mple.org",
    " example.org",
    "example.org ",
    "example.org\n",
    "example.org\r\nRSET",
    "exam\0ple.org",
    "-example.org",
    "example-.org",
    "exam*ple.org",
    "*.example.org",
    "exam/ple.org",
    "user@example.org",
    "[192.0.2.1]",
    # RFC 3696 2: no top-level domain is all digits; it would be an address without brackets.
    "192.0.2.1",
    "example.123",
    "12",
    LABEL_63 + "a.example",
    NAME_253 + "b",
    # IDN
    "bücher..example",
    "例え。テスト。",
    "bü\r\ncher.example",
    "bü\u2028cher.example",
    "b\udcfccher.example",
    "b\ud800.example",
    "xn--ü.example",
    "-ü.example",
    "ü.１２",
    "אa.example",
    "\u0661.example",
    "😀.example",
    "\u200d.example",
    "a\u0338.example\u2028",
    "ü" * 60 + ".example",
    "℀.example",
    "ü." + LABEL_63 + "a",
]


@pytest.mark.parametrize(("text", "ascii_form"), DOMAINS.items())
def test_domains_are_kept_as_lower_case_a_labels(text: str, ascii_form: str) -> None:
    assert Domain.parse(text).ascii == ascii_form
    assert str(Domain.parse(text)) == ascii_form


@pytest.mark.parametrize("text", NO_DOMAINS, ids=ascii)
def test_what_is_no_host_name_is_no_domain(text: str) -> None:
    with pytest.raises(InvalidValue, match="not a"):
        Domain.parse(text)


@pytest.mark.parametrize("text", ["Example.org", "example.org.", "bücher.example", "", "a b"])
def test_a_value_that_was_not_parsed_must_be_in_its_final_form(text: str) -> None:
    with pytest.raises(InvalidValue):
        Domain(text)


def test_domains_that_mean_the_same_are_equal() -> None:
    assert Domain.parse("BÜCHER.Example.") == Domain.parse("xn--bcher-kva.example")
    assert len({Domain.parse("BÜCHER.Example."), Domain.parse("xn--bcher-kva.example")}) == 1


@pytest.mark.parametrize(
    ("ascii_form", "shown"),
    [
        ("example.org", "example.org"),
        ("xn--bcher-kva.example", "bücher.example"),
        ("xn--strae-oqa.example", "straße.example"),
        ("xn--99zzzz9.example", "xn--99zzzz9.example"),  # no punycode
        ("_a.xn--bcher-kva.example", "_a.xn--bcher-kva.example"),  # no IDN as a whole
    ],
)
def test_people_are_shown_the_u_labels_where_there_are_any(ascii_form: str, shown: str) -> None:
    assert Domain(ascii_form).unicode == shown


def test_the_parent_is_one_label_up() -> None:
    assert Domain("a.b.example").parent == Domain("b.example")
    assert Domain("example").parent is None


def test_text_that_maps_to_nothing_is_not_looked_at_without_end() -> None:
    soft_hyphens = "\u00ad" * MAX_DOMAIN_TEXT
    assert Domain.parse(soft_hyphens[:500] + "example.org") == Domain("example.org")
    with pytest.raises(InvalidValue):
        Domain.parse(soft_hyphens + "example.org")


@given(tricky_text)
def test_any_text_is_a_domain_or_an_invalid_value(text: str) -> None:
    if parses(Domain.parse, text):
        domain = Domain.parse(text)
        assert len(domain.ascii) <= MAX_DOMAIN
        assert Domain.parse(domain.ascii) == domain


@given(domains)
def test_a_domain_survives_writing_and_parsing(domain: Domain) -> None:
    assert Domain.parse(str(domain)) == domain
    assert Domain.parse(domain.ascii.upper() + ".") == domain


@given(st.text(st.sampled_from("aäßøщא例ー٣"), min_size=1, max_size=10))
def test_an_internationalized_domain_survives_being_shown_and_parsed(label: str) -> None:
    if parses(Domain.parse, f"{label}.example"):
        domain = Domain.parse(f"{label}.example")
        assert Domain.parse(domain.unicode) == domain


# Address literals (RFC 5321 4.1.3) -----------------------------------------------------------------------------------

LITERALS = {
    "[192.0.2.1]": IPv4Address("192.0.2.1"),
    "[IPv6:2001:db8::1]": IPv6Address("2001:db8::1"),
    "[ipv6:2001:DB8:0:0:0:0:0:1]": IPv6Address("2001:db8::1"),
    "[IPv6:::1]": IPv6Address("::1"),
    "[IPv6:::ffff:192.0.2.1]": IPv6Address("::ffff:192.0.2.1"),
}

NO_LITERALS = [
    "",
    "[]",
    "[",
    "]",
    "192.0.2.1",
    "[192.0.2.1",
    "192.0.2.1]",
    "[192.0.2]",
    "[192.0.2.256]",
    "[192.0.2.01]",
    "[192.0.2.1 ]",
    "[192.0.2.1]\n",
    "[１９２.0.2.1]",
    "[2001:db8::1]",  # the tag is part of it
    "[IPv6:192.0.2.1]",
    "[IPv6:]",
    "[IPv6:fe80::1%eth0]",
    "[IPv6:fe80::1%\r\nRSET]",
    "[X400:c=us]",
    "[[192.0.2.1]]",
]


@pytest.mark.parametrize(("text", "ip"), LITERALS.items())
def test_literals_hold_an_ip_address(text: str, ip: IPv4Address | IPv6Address) -> None:
    assert AddressLiteral.parse(text).ip == ip


@pytest.mark.parametrize("text", NO_LITERALS)
def test_what_is_no_address_in_brackets_is_no_literal(text: str) -> None:
    with pytest.raises(InvalidValue, match="literal"):
        AddressLiteral.parse(text)


def test_a_literal_made_from_an_address_has_no_zone_either() -> None:
    with pytest.raises(InvalidValue, match="zone"):
        AddressLiteral(IPv6Address("fe80::1%\r\nRSET"))


def test_literals_are_written_with_their_tag() -> None:
    assert str(AddressLiteral(IPv4Address("192.0.2.1"))) == "[192.0.2.1]"
    literal = AddressLiteral(IPv6Address("2001:db8::1"))
    assert (str(literal), literal.ascii, literal.unicode) == ("[IPv6:2001:db8::1]",) * 3


@given(literals)
def test_a_literal_survives_writing_and_parsing(literal: AddressLiteral) -> None:
    assert AddressLiteral.parse(str(literal)) == literal


@given(tricky_text)
def test_any_text_is_a_literal_or_an_invalid_value(text: str) -> None:
    parses(AddressLiteral.parse, text)
    parses(AddressLiteral.parse, f"[IPv6:{text}]")


@pytest.mark.parametrize(
    ("name", "owner"),
    [
        ("example.org", "example.org"),
        ("a.b.example.org", "example.org"),
        ("mail.example.co.uk", "example.co.uk"),
        ("co.uk", "co.uk"),
        ("mail.provider.de", "provider.de"),
        ("localhost", "localhost"),
    ],
)
def test_whose_domain_it_is(name: str, owner: str) -> None:
    assert owner_of(name) == owner


def test_a_next_hop_is_a_domain_or_a_literal_in_brackets() -> None:
    assert parse_next_hop("example.org") == Domain("example.org")
    assert parse_next_hop("[192.0.2.1]") == AddressLiteral.parse("[192.0.2.1]")


def test_the_names_of_an_address_stand_under_its_reverse() -> None:
    assert reverse_name(IPv4Address("192.0.2.1")) == Domain("1.2.0.192.in-addr.arpa")
    assert reverse_name(IPv6Address("2001:db8::1")).ascii.endswith(".8.b.d.0.1.0.0.2.ip6.arpa")
