"""What a server offers: the reply to EHLO (RFC 5321 4.1.1.1) as a value."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import (
    FULL_OFFER,
    MAX_REMEMBERED,
    NO_CAPABILITIES,
    Capabilities,
    ehlo_reply,
    parse_capabilities,
)
from tests.unit.model.strategies import tricky_text


def offered(*keywords: str) -> Capabilities:
    return parse_capabilities(Reply.from_lines(250, ("mx.example.net at your service", *keywords)))


def test_a_server_with_everything() -> None:
    everything = offered(
        "PIPELINING", "8BITMIME", "SMTPUTF8", "CHUNKING", "DSN", "STARTTLS", "REQUIRETLS", "SIZE 52428800",
        "LIMITS RCPTMAX=50 MAILMAX=20", "AUTH PLAIN login", "ENHANCEDSTATUSCODES", "X-CUSTOM a=b c",
    )  # fmt: skip
    assert everything == Capabilities(
        greeting="mx.example.net at your service",
        keywords=everything.keywords,
        pipelining=True,
        eight_bit_mime=True,
        smtputf8=True,
        chunking=True,
        dsn=True,
        starttls=True,
        requiretls=True,
        size=True,
        max_size=52428800,
        max_recipients=50,
        max_transactions=20,
        auth=frozenset({"PLAIN", "LOGIN"}),
    )
    assert everything.keywords["X-CUSTOM"] == "a=b c"


# https://github.com/slimta/python-slimta/pull/180
@pytest.mark.parametrize(
    "lines",
    [["AUTH=PLAIN LOGIN"], ["auth=plain login"], ["AUTH PLAIN", "AUTH=LOGIN PLAIN"], ["AUTH LOGIN", "AUTH PLAIN"]],
)
def test_mechanisms_may_stand_on_several_lines_and_behind_an_equals_sign(lines: list[str]) -> None:
    assert offered(*lines).auth == {"PLAIN", "LOGIN"}
    assert offered("AUTH=").auth == frozenset()


def test_a_server_with_nothing() -> None:
    assert offered() == Capabilities(greeting="mx.example.net at your service")
    assert Capabilities() == NO_CAPABILITIES


@pytest.mark.parametrize(
    ("keyword", "attribute"),
    [
        ("PIPELINING", "pipelining"),
        ("8BITMIME", "eight_bit_mime"),
        ("SMTPUTF8", "smtputf8"),
        ("CHUNKING", "chunking"),
        ("DSN", "dsn"),
        ("STARTTLS", "starttls"),
        ("REQUIRETLS", "requiretls"),
        ("SIZE", "size"),
    ],
)
def test_each_keyword_offers_one_thing_in_any_case(keyword: str, attribute: str) -> None:
    flags = {"pipelining", "eight_bit_mime", "smtputf8", "chunking", "dsn", "starttls", "requiretls", "size"}
    for line in (keyword, keyword.lower(), f"  {keyword}\t", f"{keyword} with parameters"):
        capabilities = offered(line)
        assert {name for name in flags if getattr(capabilities, name)} == {attribute}


@pytest.mark.parametrize(
    "line",
    [
        "ſTARTTLſ",
        "STARTTLS\u200b",
        "-STARTTLS",
        "STARTTLS=yes",
        "X STARTTLS",
        "250 STARTTLS",
        "",
        " ",
        "ＤＳＮ",
        "PIPELıNING",
    ],
)
def test_what_only_looks_like_a_keyword_offers_nothing(line: str) -> None:
    capabilities = offered(line)
    assert capabilities == Capabilities(greeting=capabilities.greeting, keywords=capabilities.keywords)


@pytest.mark.parametrize(
    ("line", "max_size"),
    [
        ("SIZE 1000", 1000),
        ("size 1000", 1000),
        ("SIZE", None),
        ("SIZE 0", None),  # RFC 1870 6: no fixed maximum
        ("SIZE 00", None),
        ("SIZE -1", None),
        ("SIZE 10 20", None),
        ("SIZE 10M", None),
        ("SIZE １０", None),
        ("SIZE " + "9" * 20, 10**20 - 1),
        ("SIZE " + "9" * 21, None),
    ],
)
def test_size(line: str, max_size: int | None) -> None:
    assert offered(line).size
    assert offered(line).max_size == max_size


@pytest.mark.parametrize(
    ("lines", "max_size"),
    [
        (("SIZE 10", "SIZE 1000"), 1000),
        (("SIZE 1000", "SIZE 10"), 1000),
        (("SIZE 10", "SIZE 0"), None),
        (("SIZE", "SIZE 10"), None),
    ],
)
def test_of_several_sizes_none_is_held_against_a_message_that_the_largest_lets_through(
    lines: tuple[str, ...], max_size: int | None
) -> None:
    assert offered(*lines).max_size == max_size


@pytest.mark.parametrize(
    ("line", "recipients", "transactions"),
    [
        ("LIMITS RCPTMAX=50", 50, None),
        ("LIMITS MAILMAX=20", None, 20),
        ("limits rcptmax=50 mailmax=20", 50, 20),
        ("LIMITS RCPTMAX=0 MAILMAX=", None, None),
        ("LIMITS RCPTMAX MAILMAX=many", None, None),
        ("LIMITS RCPTDOMAINMAX=1 X=Y RCPTMAX=5", 5, None),
        ("LIMITS", None, None),
        ("LIMITS =5", None, None),
    ],
)
def test_limits(line: str, recipients: int | None, transactions: int | None) -> None:
    capabilities = offered(line)
    assert (capabilities.max_recipients, capabilities.max_transactions) == (recipients, transactions)


def test_the_number_of_domains() -> None:
    assert offered("LIMITS RCPTDOMAINMAX=1").max_domains == 1
    assert offered("LIMITS MAILMAX=1").max_domains is None


def test_of_another_keyword_that_comes_twice_the_first_counts() -> None:
    assert offered("LIMITS RCPTMAX=5", "LIMITS RCPTMAX=10").max_recipients == 5


def test_the_greeting_offers_nothing() -> None:
    assert not parse_capabilities(Reply(250, None, ("STARTTLS",))).starttls


def test_the_same_reply_is_parsed_once_unless_it_would_fill_memory() -> None:
    assert offered("SIZE 5", "DSN") is offered("SIZE 5", "DSN")
    large = "X" * MAX_REMEMBERED
    assert offered(large, "DSN") is not offered(large, "DSN")
    assert offered(large, "DSN") == offered(large, "DSN")
    assert offered(large, "DSN").dsn


@given(st.lists(tricky_text.map(lambda text: text[:80]), max_size=6))
def test_any_lines_are_capabilities(lines: list[str]) -> None:
    capabilities = offered(*lines, "DSN")
    assert capabilities.dsn
    assert all(keyword.isascii() and keyword == keyword.upper() for keyword in capabilities.keywords)


def test_the_reply_that_announces_an_offer_is_made_once() -> None:
    assert ehlo_reply("mx.example.org", FULL_OFFER) is ehlo_reply("mx.example.org", FULL_OFFER)


def test_offers_that_differ_only_in_other_words_have_replies_of_their_own() -> None:
    replies = [ehlo_reply("mx.example.org", Capabilities(keywords={word: ""})).lines for word in ("X-ONE", "X-TWO")]
    assert replies == [("mx.example.org", "X-ONE"), ("mx.example.org", "X-TWO")]
