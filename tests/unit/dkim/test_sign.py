"""DKIM: canonical forms as RFC 6376 shows them, the signatures that RFC 8463 publishes, and what is not signed.

That others can verify what we sign is shown in tests/peers.
"""

from __future__ import annotations

import base64
import re
import threading
from datetime import timedelta
from itertools import pairwise
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dkim import sign
from mailrider.dkim.fields import OVERSIGNED
from mailrider.dkim.sign import (
    DKIMSigning,
    Header,
    NotSignable,
    RelaxedBody,
    Signer,
    Unsigned,
    body_hash,
    relaxed_field,
)
from mailrider.errors import InvalidValue
from mailrider.header.fields import MAX_HEADER as MAX_MESSAGE_HEADER
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.settings.directive import InvalidSetting
from mailrider.signing.settings import DKIMOptions, DKIMSettings
from mailrider.smtp.content import Content
from mailrider.smtp.prepend import COPIED, prepend
from mailrider.testing.clock import FakeClock
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey
from tests.support.contents import awaited

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.model.event import Event

ED25519 = SigningKey.make(KeyKind.ED25519)
RSA = SigningKey.make(KeyKind.RSA2048)
EXAMPLE = Domain("example.org")
MESSAGE = b"From: A <a@example.org>\r\nTo: b@example.net\r\nSubject: hello\r\n\r\nHello.\r\n"

# RFC 8463 A.3, but for the signatures.
DINNER = b"""From: Joe SixPack <joe@football.example.com>
To: Suzie Q <suzie@shopping.example.net>
Subject: Is dinner ready?
Date: Fri, 11 Jul 2003 21:00:37 -0700 (PDT)
Message-ID: <20030712040037.46341.5F8J@football.example.com>

Hi.

We lost the game.  Are you hungry yet?

Joe.

""".replace(b"\n", b"\r\n")
DINNER_NAMES = ["from", "to", "subject", "date", "message-id", "from", "subject", "date"]
DINNER_HASH = "2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8="
DINNER_FIELD = b""" v=1; a=ed25519-sha256; c=relaxed/relaxed;
 d=football.example.com; i=@football.example.com;
 q=dns/txt; s=brisbane; t=1528637909; h=from : to :
 subject : date : message-id : from : subject : date;
 bh=2jUSOH9NhtVGCQWNr9BrIAPreKQjO6Sn7XIkfJVOzv8=;
 b=""".replace(b"\n", b"\r\n")
DINNER_SIGNATURE = "/gCrinpcQOoIfuHNQIbq4pgh9kyIK3AQUdt9OdqQehSwhEIug4D11BusFa3bT3FY5OsU7ZbnKELq+eXdp1Q1Dw=="
BRISBANE = "nWGxne/9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A="  # RFC 8463 A.1, the private key
BRISBANE_PUBLIC = "11qYAYKxCrfVS/7TyWQHOg7hcvPapiMlrwIaaPcHURo="


def brisbane() -> SigningKey:
    pkcs8 = bytes.fromhex("302e020100300506032b657004220420") + base64.b64decode(BRISBANE)
    body = base64.encodebytes(pkcs8).decode()
    return SigningKey.load(f"-----BEGIN PRIVATE KEY-----\n{body}-----END PRIVATE KEY-----\n".encode())


def relaxed(body: bytes, chunks: Iterable[bytes] | None = None) -> bytes:
    form = RelaxedBody()
    return b"".join(some for chunk in chunks or [body] for some in form.feed(chunk)) + form.finish()


def signing(*signers: Signer) -> tuple[DKIMSigning, list[Event]]:
    events: list[Event] = []
    return DKIMSigning(signers, FakeClock(), events.append), events


def sent(content: Content) -> bytes:
    return b"".join(content.chunks())


def tags(content: Content) -> list[dict[str, str]]:
    """The tags of all signatures, without white space."""
    fields = content.header_fields("DKIM-Signature")
    pairs = [[pair.split("=", 1) for pair in re.sub(r"\s", "", each.decode()).split(";")] for each in fields]
    return [dict(each) for each in pairs]


# --- Canonical forms ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        (b"A", b" X", b"a:X"),  # RFC 6376 3.4.5
        (b"B ".strip(), b" Y\t\r\n\tZ  ", b"b:Y Z"),
        (b"Subject", b"", b"subject:"),
        (b"SUBJECT", b"  a \t b\r\n   c", b"subject:a b c"),
    ],
)
def test_a_relaxed_field_is_one_line_with_single_spaces(name: bytes, value: bytes, expected: bytes) -> None:
    assert relaxed_field(name, value) == expected


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b" C \r\nD \t E\r\n\r\n\r\n", b" C\r\nD E\r\n"),  # RFC 6376 3.4.5
        (b"", b""),
        (b"\r\n\r\n", b""),
        (b" \t\r\n \r\n", b""),
        (b"a\r\n\r\n\r\nb\r\n \r\n", b"a\r\n\r\n\r\nb\r\n"),
        (b"\r\na\r\n", b"\r\na\r\n"),
        (b"a", b"a\r\n"),
        (b"a \t ", b"a\r\n"),
    ],
)
def test_a_relaxed_body_loses_white_space_and_empty_lines_at_the_ends(body: bytes, expected: bytes) -> None:
    assert relaxed(body) == expected
    assert relaxed(body, [bytes([each]) for each in body] or [b""]) == expected


LINES = st.lists(st.text("a \t.", max_size=6), max_size=8).map(lambda lines: "\r\n".join([*lines, ""]).encode())


@given(LINES, st.lists(st.integers(0, 60), max_size=6))
def test_a_relaxed_body_does_not_depend_on_where_it_is_cut(body: bytes, cuts: list[int]) -> None:
    places = sorted({0, len(body), *(cut for cut in cuts if cut < len(body))})
    chunks = [body[start:end] for start, end in pairwise(places)]
    lines = [re.sub(rb"[ \t]+", b" ", line).removesuffix(b" ") for line in body.split(b"\r\n")]
    while lines and not lines[-1]:
        lines.pop()
    assert relaxed(body, chunks or [b""]) == b"".join(line + b"\r\n" for line in lines)


def test_a_million_empty_lines_are_counted_and_not_kept() -> None:
    form = RelaxedBody()
    for _ in range(100):
        assert list(form.feed(b"\r\n" * 10_000)) == []
    pieces = list(form.feed(b"end"))
    assert sum(map(len, pieces)) == 2_000_003
    assert max(map(len, pieces)) <= 65536


# --- What RFC 8463 publishes --------------------------------------------------------------------


def test_the_body_hash_of_rfc_8463_comes_out() -> None:
    assert base64.b64encode(body_hash(Content.inspect(DINNER))).decode() == DINNER_HASH


def test_the_signature_of_rfc_8463_comes_out() -> None:
    octets = Header.of(Content.inspect(DINNER)).canonical(DINNER_NAMES) + relaxed_field(b"DKIM-Signature", DINNER_FIELD)
    assert base64.b64encode(brisbane().sign(octets)).decode() == DINNER_SIGNATURE
    assert brisbane().public == BRISBANE_PUBLIC


# --- What is signed -----------------------------------------------------------------------------


async def test_both_kinds_of_keys_sign_the_same_message() -> None:
    both, events = signing(Signer(EXAMPLE, "rsa", RSA), Signer(EXAMPLE, "ed", ED25519))
    signed = await both.modify(Content.inspect(MESSAGE))
    assert [(each["a"], each["s"]) for each in tags(signed)] == [("rsa-sha256", "rsa"), ("ed25519-sha256", "ed")]
    assert sent(signed).endswith(MESSAGE)
    assert events == []
    assert signed.header_fault() is None
    assert all(len(line) <= 78 for line in signed.header.split(b"\r\n"))


async def test_important_fields_are_signed_once_more_than_they_are_there() -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    message = b"List-Id: <l.example.org>\r\nReceived: x\r\n" + MESSAGE
    (found,) = tags(await signer.modify(Content.inspect(message)))
    names = found["h"].lower().split(":")
    there = {"from": 1, "to": 1, "subject": 1}
    assert {name: names.count(name.lower()) for name in OVERSIGNED} == {
        name: there.get(name.lower(), 0) + 1 for name in OVERSIGNED
    }
    assert names.count("list-id") == 1
    assert "received" not in names


def test_of_several_fields_of_one_name_the_last_is_signed_first() -> None:
    header = Header.of(Content.inspect(b"From: a@b\r\nTo: one\r\nTo: two\r\n\r\n"))
    assert header.canonical(["To", "to", "to"]) == b"to:two\r\nto:one\r\n"


async def test_signatures_are_over_what_will_be_sent_line_ends_mended() -> None:
    clean, _ = signing(Signer(EXAMPLE, "s", ED25519))
    signed = await clean.modify(Content.inspect(MESSAGE))
    unclean = await clean.modify(Content.inspect(MESSAGE.replace(b"\r\n", b"\n").removesuffix(b"\n")))
    assert sent(unclean) == sent(signed)


async def test_a_signature_expires_when_it_is_asked_to() -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519, expiry=timedelta(hours=1)))
    (found,) = tags(await signer.modify(Content.inspect(MESSAGE)))
    assert int(found["x"]) - int(found["t"]) == 3600


async def test_a_large_message_is_signed_without_being_held() -> None:
    body = b"some text here\r\n" * 40_000
    content = Content.stored(
        lambda: iter((MESSAGE, body)), size=len(MESSAGE) + len(body), eight_bit=False, header_size=len(MESSAGE) - 10
    )
    whole = Content.inspect(MESSAGE + body)
    assert content.header == whole.header
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    signed = await signer.modify(content)
    assert callable(signed.source)
    assert sent(signed) == sent(await signer.modify(whole))


async def test_a_message_that_has_to_be_awaited_is_signed_as_any_other() -> None:
    whole = MESSAGE + b"some text here\r\n" * 40_000
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    signed = await signer.modify(awaited(whole))
    assert signed.is_awaited
    expected = await signer.modify(Content.inspect(whole))
    assert (signed.size, signed.header, signed.signed_by) == (expected.size, expected.header, expected.signed_by)
    assert sent(await signed.loaded()) == sent(expected)


# --- What is not --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        (b"From: a@example.com\r\n\r\n", "no dkim is configured for the domain"),
        (b"From: a@example.org, b@example.com\r\n\r\n", "no dkim is configured for the domain"),
        (b"From: a@sub.example.org\r\n\r\n", "no dkim is configured for the domain"),
        (b"From: a@notexample.org\r\n\r\n", "no dkim is configured for the domain"),
        (b"From: a@example.org\r\nFrom: b@example.org\r\n\r\n", "no single From field"),
        (b"To: a@example.org\r\n\r\n", "no single From field"),
        (b"From: nobody\r\n\r\n", "an address without a domain name"),
        (b"From: \r\n\r\n", "From field cannot be read"),
        (b"From: a@[192.0.2.1]\r\n\r\n", "an address without a domain name"),
        (b"From: a@example.org\r\nwrong line\r\n\r\n", "header is malformed"),
        (b"From: a@example.org\r\n" + b"To: b@example.net\r\n" * 300 + b"\r\n", "more than 200 fields"),
        (b"From: a@example.org\r\n" + b"X: y\r\n" * 10_001 + b"\r\n", "header is malformed"),
        (b"From: a@example.org\r\nX: " + b"y" * 300_000 + b"\r\n\r\n", "header is larger than 262144 octets"),
        (b"From: a@example.org\r\nX: " + b"y" * MAX_MESSAGE_HEADER, "header is too large"),
    ],
    ids=lambda value: value[:40].decode() if isinstance(value, bytes) else None,
)
async def test_what_cannot_be_signed_goes_on_as_it_is_and_the_log_says_why(message: bytes, reason: str) -> None:
    signer, events = signing(Signer(EXAMPLE, "s", ED25519))
    content = Content.inspect(message)
    assert await signer.modify(content) is content
    (event,) = events
    assert isinstance(event, Unsigned)
    assert event.domain == "example.org"
    assert reason in event.reason


async def test_an_unsigned_message_is_told_with_what_it_is_called_and_whose_key_is_missing() -> None:
    signer, events = signing(Signer(EXAMPLE, "s", ED25519))
    await signer.modify(Content.inspect(b"From: a@example.com\r\nMessage-ID: <1@example.com>\r\n\r\n"))
    reason = "no dkim is configured for the domain of its From field, example.com"
    assert events == [Unsigned("example.org", reason, message_id="<1@example.com>")]


@pytest.mark.parametrize(
    "author",
    [
        "a@example.org, b@evil.test",
        "a@example.org b@evil.test",
        "a@example.org)b@evil.test",
        "a@example.org; b@evil.test",
        "a@example.org@evil.test",
        "(a@example.org) b@evil.test",
        "(a@example.org b@evil.test",
        "b@evil.test <a@example.org>",
        "a@example.org <b@evil.test>",
        "<b@evil.test> <a@example.org>",
        "<a@example.org> b@evil.test",
        "<<a@example.org>>",
        "<@evil.test:a@example.org>",
        '"a@example.org" <b@evil.test>',
        '"a"@example.org"@evil.test',
        "Team: a@example.org; b@evil.test",
        "Team: a@example.org, b@evil.test;",
    ],
)
async def test_who_may_be_somebody_else_to_some_reader_is_not_signed_for(author: str) -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    content = Content.inspect(f"From: {author}\r\n\r\n".encode())
    assert await signer.modify(content) is content


@pytest.mark.parametrize(
    "author",
    ["a@example.org,", "a@example.org (A, B)", "a@example.org <a@example.org>", "Team: a@example.org, b@example.org;"],
)
async def test_who_is_the_same_to_every_reader_is_signed_for(author: str) -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    content = Content.inspect(f"From: {author}\r\n\r\n".encode())
    assert (await signer.modify(content)).header_fields("DKIM-Signature")


async def test_a_large_header_is_read_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    threads: list[threading.Thread] = []

    def noted(content: Content) -> bytes:
        threads.append(threading.current_thread())
        return body_hash(content)

    monkeypatch.setattr(sign, "body_hash", noted)
    await signer.modify(Content.inspect(b"From: a@example.org\r\n\r\n"))
    await signer.modify(Content.inspect(b"From: a@example.org\r\nX: " + b"y" * 20_000 + b"\r\n\r\n"))
    assert [each is threading.main_thread() for each in threads] == [True, False]


async def test_subdomains_are_signed_for_where_that_is_wished() -> None:
    signer, events = signing(Signer(EXAMPLE, "s", ED25519, subdomains=True))
    content = Content.inspect(b"From: a@sub.example.org\r\n\r\n")
    assert tags(await signer.modify(content))[0]["d"] == "example.org"
    assert events == []


async def test_each_domain_is_signed_for_with_its_own_key() -> None:
    both, _ = signing(Signer(EXAMPLE, "one", ED25519), Signer(Domain("example.com"), "two", ED25519))
    (found,) = tags(await both.modify(Content.inspect(b"From: a@EXAMPLE.com\r\n\r\n")))
    assert (found["d"], found["s"]) == ("example.com", "two")


async def test_international_authors_are_compared_as_a_labels() -> None:
    signer, _ = signing(Signer(Domain.parse("bücher.example"), "s", ED25519))
    (found,) = tags(await signer.modify(Content.inspect("From: Ä <ä@bücher.example>\r\n\r\n".encode())))
    assert found["d"] == "xn--bcher-kva.example"


# --- Keys and settings --------------------------------------------------------------------------


@pytest.mark.parametrize("key", [RSA, ED25519])
def test_a_key_survives_its_file_and_shows_only_its_public_half(key: SigningKey) -> None:
    assert SigningKey.load(key.pem()).public == key.public
    assert "PRIVATE" not in repr(key)


@pytest.mark.parametrize("pem", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_key_is_refused(pem: bytes) -> None:
    with pytest.raises(InvalidValue):
        SigningKey.load(pem)


@pytest.mark.parametrize("selector", ["", "a_b", "-a", "a.", "a b", "ä", "x" * 64])
def test_a_selector_is_a_name_in_dns(selector: str) -> None:
    with pytest.raises(InvalidValue):
        DKIMSettings.of(["example.org"], selector)


def test_a_signature_without_from_cannot_be_configured() -> None:
    with pytest.raises(InvalidSetting, match="From"):
        DKIMOptions(oversign_fields=("Subject",))
    with pytest.raises(InvalidSetting, match="sign_fields"):
        DKIMOptions(sign_fields=("DKIM-Signature",))


# --- Fields in front ----------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 10, COPIED + 10])
@pytest.mark.parametrize("message", [MESSAGE, MESSAGE.replace(b"\r\n", b"\n"), b"\r\nbody\r\n"])
def test_what_is_put_before_a_message_is_part_of_its_header(message: bytes, size: int) -> None:
    content = Content.inspect(message + b"x" * size)
    more = prepend(content, "X-Ä: y\r\n".encode())
    again = Content.inspect("X-Ä: y\r\n".encode() + sent(content))
    assert (more.size, more.eight_bit, more.header_size) == (again.size, True, again.header_size)
    assert sent(more) == sent(again)
    assert more.header == again.header
    assert prepend(content, b"") is content


async def test_so_is_what_is_put_before_a_message_that_has_to_be_awaited() -> None:
    more = prepend(awaited(MESSAGE), "X-Ä: y\r\n".encode())
    again = Content.inspect("X-Ä: y\r\n".encode() + MESSAGE)
    assert (more.size, more.eight_bit, more.header) == (again.size, True, again.header)
    assert sent(await more.loaded()) == sent(again)


def test_what_has_no_header_is_not_signed() -> None:
    with pytest.raises(NotSignable):
        Header.of(Content.inspect(b"no header\r\n"))


# --- Once ---------------------------------------------------------------------------------------


async def test_a_message_is_signed_once_for_a_domain_and_selector() -> None:
    both, _ = signing(Signer(EXAMPLE, "rsa", RSA), Signer(EXAMPLE, "ed", ED25519))
    once = await both.modify(Content.inspect(MESSAGE))
    again = await both.modify(Content.inspect(b"Received: x\r\n" + sent(once)))
    assert [each["s"] for each in tags(again)] == ["rsa", "ed"]
    other, _ = signing(Signer(EXAMPLE, "next", ED25519))
    assert [each["s"] for each in tags(await other.modify(once))] == ["next", "rsa", "ed"]


BROKEN = {
    "another body": (b"Hello.", b"Hullo."),
    "another subject": (b"Subject: hello", b"Subject: hullo"),
    "another key's": (b" s=s;", b" s=t;"),
    "another algorithm": (b"a=ed25519-sha256", b"a=rsa-sha256"),
    "another form": (b"c=relaxed/relaxed", b"c=simple/relaxed"),
    "part of the body": (b"v=1;", b"v=1; l=1;"),
    "no signature": (b"b=", b"b=!"),
    "no h": (b"\th=", b"\ty="),
    "a time that is none": (b"v=1;", b"v=1; x=soon;"),
    "a tag that is none": (b"v=1;", b"v=1; nonsense;"),
    "one field more": (b"To: b@example.net", b"To: b@example.net\r\nReply-To: c@example.net"),
}


@pytest.mark.parametrize(("there", "instead"), BROKEN.values(), ids=BROKEN)
async def test_a_signature_that_is_not_right_is_no_reason_to_leave_ours_out(there: bytes, instead: bytes) -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    broken = sent(await signer.modify(Content.inspect(MESSAGE))).replace(there, instead)
    assert broken.count(instead)
    again = sent(await signer.modify(Content.inspect(broken)))
    assert again.count(b"DKIM-Signature:") == 2


async def test_a_signature_that_is_over_is_made_anew() -> None:
    clock = FakeClock()
    signer = DKIMSigning([Signer(EXAMPLE, "s", ED25519, expiry=timedelta(hours=1))], clock, discard)
    signed = await signer.modify(Content.inspect(MESSAGE))
    assert await signer.modify(signed) is signed
    clock.jump(timedelta(hours=2))
    assert len(tags(await signer.modify(signed))) == 2


async def test_a_list_may_add_its_sender_and_its_fields() -> None:
    signer, _ = signing(Signer(EXAMPLE, "s", ED25519))
    signed = sent(await signer.modify(Content.inspect(MESSAGE)))
    through_a_list = b"Sender: l@list.example\r\nList-Id: <l.list.example>\r\nList-Post: <mailto:l@list.example>\r\n"
    again = await signer.modify(Content.inspect(through_a_list + signed))
    assert len(tags(again)) == 1, "the signature still holds"
    sender_there = await signer.modify(Content.inspect(b"Sender: s@example.org\r\n" + MESSAGE))
    assert tags(sender_there)[0]["h"].lower().split(":").count("sender") == 1
