"""The envelope and the DSN wishes in it (RFC 3461)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.envelope import MAX_ENVID, MAX_ORCPT, Envelope, Notify, OriginalRecipient, Recipient, check_envid
from tests.unit.model.strategies import parses, tricky_text

RECIPIENT = Recipient(Mailbox.parse("b@example.net"))


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("NEVER", Notify.NEVER, "NEVER"),
        ("never", Notify.NEVER, "NEVER"),
        ("SUCCESS", Notify.SUCCESS, "SUCCESS"),
        ("delay,Failure", Notify.FAILURE | Notify.DELAY, "FAILURE,DELAY"),
        ("DELAY,FAILURE,SUCCESS", Notify.SUCCESS | Notify.FAILURE | Notify.DELAY, "SUCCESS,FAILURE,DELAY"),
        ("SUCCESS,SUCCESS", Notify.SUCCESS, "SUCCESS"),
    ],
)
def test_notify(text: str, value: Notify, written: str) -> None:
    assert Notify.parse(text) == value
    assert value.words == written


@pytest.mark.parametrize(
    "text",
    ["", ",", "NEVER,SUCCESS", "SUCCESS,NEVER", "NEVER,", "SUCCESS,", " SUCCESS", "ALWAYS", "SUCCESS\r\n", "ſUCCESS"],
)
def test_what_is_no_notify(text: str) -> None:
    with pytest.raises(InvalidValue, match="NOTIFY takes"):
        Notify.parse(text)


@given(st.sets(st.sampled_from([Notify.SUCCESS, Notify.FAILURE, Notify.DELAY])))
def test_notify_survives_writing_and_parsing(flags: set[Notify]) -> None:
    value = Notify.NEVER
    for flag in flags:
        value |= flag
    assert Notify.parse(value.words) == value


@given(tricky_text)
def test_any_text_is_a_notify_or_an_invalid_value(text: str) -> None:
    parses(Notify.parse, text)


@pytest.mark.parametrize(
    ("address_type", "address"),
    [
        ("rfc822", "b@example.net"),
        ("rfc822", "not even an address"),
        ("X-type1", "?"),
        ("utf-8", "jürgen@bücher.example"),
        ("UTF-8", "نامه\u200cها@example.org"),
        ("rfc822", "a" * MAX_ORCPT),
    ],
)
def test_original_recipients(address_type: str, address: str) -> None:
    assert OriginalRecipient(address_type, address).address == address


@pytest.mark.parametrize(
    ("address_type", "address"),
    [
        ("", "b@example.net"),
        ("rfc 822", "b@example.net"),
        ("rfc822\r\n", "b@example.net"),
        ("rfc822;x", "b@example.net"),
        ("x" * 65, "b@example.net"),  # the line of RCPT would be longer than servers take
        ("rfc822", ""),
        ("rfc822", "b@example.net\r\n"),
        ("rfc822", "jürgen@example.org"),  # RFC 6533 3: that is what type utf-8 is for
        ("utf-8", "a\u0085b"),
        ("utf-8", "a\u2028b"),
        ("utf-8", "a\udc80b"),
        ("rfc822", "a" * (MAX_ORCPT + 1)),
    ],
    ids=ascii,
)
def test_what_is_no_original_recipient(address_type: str, address: str) -> None:
    with pytest.raises(InvalidValue):
        OriginalRecipient(address_type, address)


@pytest.mark.parametrize("envid", ["a", "QQ314159", "with space + and =", "e" * MAX_ENVID])
def test_envelope_identifiers(envid: str) -> None:
    check_envid(envid)
    assert Envelope(NULL_PATH, (RECIPIENT,), envid=envid).envid == envid


@pytest.mark.parametrize("envid", ["", "é", "a\r\n", "a\n", "\t", "e" * (MAX_ENVID + 1)], ids=ascii)
def test_what_is_no_envelope_identifier(envid: str) -> None:
    with pytest.raises(InvalidValue, match="ENVID"):
        check_envid(envid)
    with pytest.raises(InvalidValue, match="ENVID"):
        Envelope(NULL_PATH, (RECIPIENT,), envid=envid)


def test_an_envelope_has_a_recipient() -> None:
    with pytest.raises(InvalidValue, match="at least one recipient"):
        Envelope(NULL_PATH, ())


def test_a_recipient_is_shown_as_its_address() -> None:
    assert str(RECIPIENT) == "b@example.net"


def test_what_is_told_of_a_message_that_is_gone_is_what_is_known_of_it() -> None:
    assert Envelope(NULL_PATH, (RECIPIENT,)).facts(10) == {"size": 10}
    known = {"message_id": "<1@a.test>", "origin": "0d7m3k9q2xv4t", "client": "192.0.2.1", "signed": ("a.test:s",)}
    assert Envelope(NULL_PATH, (RECIPIENT,), **known).facts(10) == {"size": 10, **known}  # type: ignore[arg-type] # each


def test_an_envelope_with_some_of_its_recipients() -> None:
    other = Recipient(Mailbox.parse("c@example.net"))
    envelope = Envelope(NULL_PATH, (RECIPIENT, other))
    assert envelope.only([1]).recipients == (other,)
    assert envelope.only([0, 1]) is envelope


def test_a_message_under_another_name_remembers_what_it_was_called() -> None:
    named = Envelope(NULL_PATH, (RECIPIENT,), id="one")
    assert named.under_name("one") is named
    assert named.under_name("one", ("a.test:s",)).signed == ("a.test:s",)
    copy = named.under_name("two")
    assert (copy.id, copy.origin) == ("two", "one")
    assert Envelope(NULL_PATH, (RECIPIENT,), origin="zero").under_name("one").origin == "zero"
