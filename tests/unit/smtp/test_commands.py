"""Commands: what goes on the wire, what can be made, and that nothing can carry a line end there."""

from __future__ import annotations

from ipaddress import IPv6Address
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.model.address import NULL_PATH, Mailbox, ReversePath
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.envelope import MAX_ENVID, Notify, OriginalRecipient, Ret
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Body,
    Command,
    Connect,
    Data,
    Ehlo,
    EndOfData,
    Helo,
    Help,
    Lhlo,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
    StartTLS,
    Vrfy,
    decode_original_recipient,
    decode_xtext,
    encode_original_recipient,
    encode_xtext,
)
from tests.unit.model.strategies import ASCII, mailboxes, original_recipients, parses, tricky_text

if TYPE_CHECKING:
    from collections.abc import Callable

SENDER = ReversePath.parse("a@example.org")
RECIPIENT = Mailbox.parse("b@example.net")
MX = Domain("mx.example.org")

# Command -> its line; RFC 5321 4.1.1 unless said otherwise.
LINES: list[tuple[Command, str]] = [
    (Connect(), ""),
    (Ehlo(MX), "EHLO mx.example.org"),
    (Ehlo(AddressLiteral.parse("[192.0.2.1]")), "EHLO [192.0.2.1]"),
    (Helo(MX), "HELO mx.example.org"),
    (Lhlo(MX), "LHLO mx.example.org"),
    (StartTLS(), "STARTTLS"),
    (Mail(NULL_PATH), "MAIL FROM:<>"),
    (Mail(SENDER), "MAIL FROM:<a@example.org>"),
    (Mail(ReversePath.parse('"a b"@example.org')), 'MAIL FROM:<"a b"@example.org>'),
    (Mail(SENDER, size=0), "MAIL FROM:<a@example.org> SIZE=0"),
    (Mail(SENDER, size=10**20 - 1), "MAIL FROM:<a@example.org> SIZE=99999999999999999999"),
    (Mail(SENDER, body=Body.EIGHT_BIT_MIME), "MAIL FROM:<a@example.org> BODY=8BITMIME"),
    (Mail(SENDER, body=Body.SEVEN_BIT), "MAIL FROM:<a@example.org> BODY=7BIT"),
    (Mail(SENDER, smtputf8=True), "MAIL FROM:<a@example.org> SMTPUTF8"),
    (Mail(ReversePath.parse("ä@bücher.example"), smtputf8=True), "MAIL FROM:<ä@xn--bcher-kva.example> SMTPUTF8"),
    (Mail(SENDER, requiretls=True), "MAIL FROM:<a@example.org> REQUIRETLS"),  # RFC 8689 2
    (Mail(SENDER, ret=Ret.HEADERS), "MAIL FROM:<a@example.org> RET=HDRS"),
    (Mail(SENDER, ret=Ret.FULL, envid="a=b c"), "MAIL FROM:<a@example.org> RET=FULL ENVID=a+3Db+20c"),
    (Mail(SENDER, auth="<>"), "MAIL FROM:<a@example.org> AUTH=<>"),
    (Mail(SENDER, auth="e=mc2@example.org"), "MAIL FROM:<a@example.org> AUTH=e+3Dmc2@example.org"),
    (
        Mail(SENDER, 5, Body.EIGHT_BIT_MIME, True, True, Ret.FULL, "id", "<>"),
        "MAIL FROM:<a@example.org> SIZE=5 BODY=8BITMIME SMTPUTF8 REQUIRETLS RET=FULL ENVID=id AUTH=<>",
    ),
    (Rcpt(RECIPIENT), "RCPT TO:<b@example.net>"),
    (Rcpt(Mailbox.parse("postmaster")), "RCPT TO:<postmaster>"),
    (Rcpt(Mailbox.parse("ö@example.net")), "RCPT TO:<ö@example.net>"),
    (Rcpt(RECIPIENT, Notify.NEVER), "RCPT TO:<b@example.net> NOTIFY=NEVER"),
    (
        Rcpt(RECIPIENT, Notify.FAILURE | Notify.DELAY, OriginalRecipient("rfc822", "b+c@example.com")),
        "RCPT TO:<b@example.net> NOTIFY=FAILURE,DELAY ORCPT=rfc822;b+2Bc@example.com",
    ),
    (Data(), "DATA"),
    (Bdat(86, last=False), "BDAT 86"),
    (Bdat(0, last=True), "BDAT 0 LAST"),
    (EndOfData(), ""),
    (Rset(), "RSET"),
    (Noop(), "NOOP"),
    (Quit(), "QUIT"),
    (Vrfy("joe doe"), "VRFY joe doe"),
    (Help(), "HELP"),
    (Help("MAIL"), "HELP MAIL"),
    (Auth("PLAIN"), "AUTH PLAIN"),
    (Auth("PLAIN", "AGEAYg=="), "AUTH PLAIN AGEAYg=="),
    (Auth("EXTERNAL", "="), "AUTH EXTERNAL ="),
    (AuthResponse("AGEAYg=="), "AGEAYg=="),
    (AuthResponse("*"), "*"),
]


@pytest.mark.parametrize(("command", "line"), LINES, ids=[line or type(command).__name__ for command, line in LINES])
def test_the_line_of_a_command(command: Command, line: str) -> None:
    assert command.encode() == (line + "\r\n" if line else "").encode()


def test_an_empty_auth_response_is_an_empty_line() -> None:
    assert AuthResponse("").encode() == b"\r\n"


IMPOSSIBLE: dict[str, Callable[[], object]] = {
    "negative size": lambda: Mail(SENDER, size=-1),
    "size of 21 digits": lambda: Mail(SENDER, size=10**20),
    "non-ASCII sender without SMTPUTF8": lambda: Mail(ReversePath.parse("ä@example.org")),
    "empty ENVID": lambda: Mail(SENDER, envid=""),
    "ENVID with a line end": lambda: Mail(SENDER, envid="a\r\nRSET"),
    "non-ASCII ENVID": lambda: Mail(SENDER, envid="é"),
    "ENVID too long": lambda: Mail(SENDER, envid="e" * (MAX_ENVID + 1)),
    "empty parameter AUTH": lambda: Mail(SENDER, auth=""),
    "the parameter AUTH with a line end": lambda: Mail(SENDER, auth="a\n"),
    "non-ASCII parameter AUTH": lambda: Mail(SENDER, auth="é@example.org"),
    "chunk of less than nothing": lambda: Bdat(-1, last=True),
    "an end of data that nobody answers": lambda: EndOfData(0),
    "VRFY of nothing": lambda: Vrfy(""),
    "VRFY with a line end": lambda: Vrfy("a\r\nRSET"),
    "VRFY of UTF-8": lambda: Vrfy("ä"),
    "HELP with a line end": lambda: Help("a\n"),
    "HELP of a space": lambda: Help(" "),
    "AUTH without a mechanism": lambda: Auth(""),
    "AUTH with two words": lambda: Auth("PLAIN AGEAYg=="),
    "AUTH with a response that has a line end": lambda: Auth("PLAIN", "AGEAYg==\r\n"),
    "AUTH with an empty initial response": lambda: Auth("PLAIN", ""),
    "AUTH with a response of two words": lambda: Auth("PLAIN", "a b"),
    "response with a line end": lambda: AuthResponse("a\r\nRSET"),
    "response of two words": lambda: AuthResponse("a b"),
    "EHLO with an address that has a zone": lambda: Ehlo(AddressLiteral(IPv6Address("fe80::1%\r\nRSET"))),
}


@pytest.mark.parametrize("make", IMPOSSIBLE.values(), ids=IMPOSSIBLE)
def test_what_cannot_be_sent_cannot_be_made(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue):
        make()


@pytest.mark.parametrize("command", [Auth("PLAIN", "c2VjcmV0"), AuthResponse("c2VjcmV0")])
def test_secrets_stay_out_of_repr(command: Command) -> None:
    assert "c2VjcmV0" not in repr(command)
    assert type(command).__name__ in repr(command)


@pytest.mark.parametrize("make", [lambda: Auth("PLAIN", "secret\n"), lambda: AuthResponse("secret\n")])
def test_secrets_stay_out_of_errors(make: Callable[[], object]) -> None:
    with pytest.raises(InvalidValue) as caught:
        make()
    assert "secret" not in str(caught.value)


# Injection -----------------------------------------------------------------------------------------------------------

texts = st.one_of(tricky_text, st.sampled_from(["a@b.example", "a", "bücher.example"]))


def _made(make: Callable[[], Command]) -> Command | None:
    try:
        return make()
    except InvalidValue:
        return None


@given(texts, texts, texts, st.booleans())
def test_no_text_becomes_a_second_line_or_an_octet_that_ends_one(one: str, other: str, third: str, flag: bool) -> None:
    attempts: list[Callable[[], Command]] = [
        lambda: Ehlo(Domain.parse(one)),
        lambda: Helo(Domain(one)),
        lambda: Lhlo(AddressLiteral.parse(one)),
        lambda: Mail(ReversePath.parse(one), smtputf8=flag, envid=other, auth=third),
        lambda: Mail(ReversePath(Mailbox(one, Domain("a.example"))), smtputf8=True, auth=other),
        lambda: Mail(NULL_PATH, envid=one),
        lambda: Rcpt(Mailbox.parse(one), Notify.parse(other)),
        lambda: Rcpt(Mailbox(one, None), original=OriginalRecipient(other, third)),
        lambda: Rcpt(RECIPIENT, original=OriginalRecipient("utf-8", one)),
        lambda: Rcpt(RECIPIENT, original=decode_original_recipient(f"utf-8;{one}")),
        lambda: Rcpt(RECIPIENT, original=decode_original_recipient(one)),
        lambda: Vrfy(one),
        lambda: Help(one),
        lambda: Auth(one, other),
        lambda: AuthResponse(one),
    ]
    for command in filter(None, map(_made, attempts)):
        line = command.encode()
        assert line.endswith(b"\r\n")
        assert not set(b"\r\n\0") & set(line[:-2])
        line.decode("utf-8", "strict")


@given(texts, texts, st.sampled_from([None, Ret.FULL]))
def test_no_text_becomes_a_further_parameter_of_mail(envid: str, auth: str, ret: Ret | None) -> None:
    mail = _made(lambda: Mail(SENDER, ret=ret, envid=envid, auth=auth))
    if mail is not None:
        words = mail.encode().decode().split(" ")
        given_names = ["RET"] * (ret is not None) + ["ENVID", "AUTH"]
        assert [word.partition("=")[0] for word in words[2:]] == given_names


@given(mailboxes, st.none() | original_recipients)
def test_no_mailbox_becomes_a_further_parameter_of_rcpt(mailbox: Mailbox, original: OriginalRecipient | None) -> None:
    line = Rcpt(mailbox, Notify.NEVER, original).encode().decode()
    rest = line.removeprefix(f"RCPT TO:<{mailbox}>").removesuffix("\r\n")
    names = [word.partition("=")[0] for word in rest.split(" ")]
    assert names == ["", "NOTIFY"] + ["ORCPT"] * (original is not None)
    assert line.isascii() is mailbox.is_ascii  # ORCPT never needs SMTPUTF8


# xtext (RFC 3461 4) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "encoded"),
    [("", ""), ("abc", "abc"), ("a+b", "a+2Bb"), ("a=b", "a+3Db"), ("a b", "a+20b"), ("!~", "!~"), ("+2B", "+2B2B")],
)
def test_xtext(text: str, encoded: str) -> None:
    assert encode_xtext(text) == encoded
    assert decode_xtext(encoded) == text


def test_more_may_be_encoded_than_must_be() -> None:
    assert decode_xtext("+61+7E") == "a~"


@pytest.mark.parametrize(
    "text", ["+", "+2", "+2b", "+GG", "a b", "a=b", "é", "a\n", "+0D+0A", "+00", "+7F", "+E9", "+٢0"]
)
def test_what_is_no_xtext(text: str) -> None:
    with pytest.raises(InvalidValue, match="xtext"):
        decode_xtext(text)


@pytest.mark.parametrize("text", ["é", "a\r\n", "\0", "\x7f", "\udc80"], ids=ascii)
def test_only_printable_ascii_becomes_xtext(text: str) -> None:
    with pytest.raises(InvalidValue, match="xtext"):
        encode_xtext(text)


@given(st.text(st.sampled_from(ASCII)))
def test_printable_ascii_survives_xtext(text: str) -> None:
    encoded = encode_xtext(text)
    assert not set(encoded) & set(" =")
    assert decode_xtext(encoded) == text


@given(st.text(st.sampled_from("+0123456789ABCDEFabc =é\n")))
def test_any_text_is_xtext_or_an_invalid_value(text: str) -> None:
    if parses(decode_xtext, text):
        decode_xtext(text).encode("ascii")


# ORCPT (RFC 3461 4.2, RFC 6533 3) ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address_type", "address", "encoded"),
    [
        ("rfc822", "b@example.net", "rfc822;b@example.net"),
        ("rfc822", "a+b=c@example.net", "rfc822;a+2Bb+3Dc@example.net"),
        ("utf-8", "jürgen@bücher.example", r"utf-8;j\x{FC}rgen@b\x{FC}cher.example"),
        ("utf-8", "例え@example.net", r"utf-8;\x{4F8B}\x{3048}@example.net"),
        ("utf-8", "😀@example.net", r"utf-8;\x{1F600}@example.net"),
        ("utf-8", r"a+b=c\d e@example.net", r"utf-8;a\x{2B}b\x{3D}c\x{5C}d\x{20}e@example.net"),
        ("UTF-8", "é", r"UTF-8;\x{E9}"),
    ],
)
def test_original_recipients(address_type: str, address: str, encoded: str) -> None:
    original = OriginalRecipient(address_type, address)
    assert encode_original_recipient(original) == encoded
    assert decode_original_recipient(encoded) == original


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("utf-8;jürgen@example.net", "jürgen@example.net"),  # utf-8-addr-unitext, with SMTPUTF8
        (r"utf-8;j\x{fc}rgen@example.net", "jürgen@example.net"),
        (r"utf-8;a\x{5C}x{41}@example.net", r"a\x{41}@example.net"),  # what was decoded is not decoded again
        (r"utf-8;a\b", r"a\b"),
        ("utf-8;a+b", "a+b"),
    ],
)
def test_other_ways_to_write_an_original_recipient(text: str, address: str) -> None:
    assert decode_original_recipient(text) == OriginalRecipient("utf-8", address)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "b@example.net",
        ";b@example.net",
        "rfc822;",
        "rfc822;+0D+0A",
        "rfc822;é@example.net",
        "rfc 822;b",
        "utf-8;",
        r"utf-8;a\x{0A}b",
        r"utf-8;\x{D800}",
        r"utf-8;\x{110000}",
        r"utf-8;\x{FFFFFF}",
        r"utf-8;\x{2028}",
        "utf-8;a\r\nRSET",
        "utf-8;a\udc80",
    ],
    ids=ascii,
)
def test_what_is_no_original_recipient(text: str) -> None:
    with pytest.raises(InvalidValue):
        decode_original_recipient(text)


@given(original_recipients)
def test_an_original_recipient_survives_the_wire(original: OriginalRecipient) -> None:
    encoded = encode_original_recipient(original)
    assert encoded.isascii()
    assert not set(encoded) & set(" =\r\n\0")
    assert decode_original_recipient(encoded) == original


@given(tricky_text)
def test_any_text_is_an_original_recipient_or_an_invalid_value(text: str) -> None:
    for sample in (text, f"rfc822;{text}", f"utf-8;{text}", f"utf-8;\\x{{{text}}}"):
        parses(decode_original_recipient, sample)
