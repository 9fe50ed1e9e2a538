"""Mailboxes and the reverse-path: what is one, how it is written, what it may never carry."""

from __future__ import annotations

import pytest
from hypothesis import given

from mailrider.errors import InvalidValue
from mailrider.model.address import NULL_PATH, Mailbox, ReversePath, quote_local_part
from mailrider.model.domain import AddressLiteral, Domain
from tests.unit.model.strategies import local_parts, mailboxes, parses, tricky_text

EXAMPLE = Domain("example.org")
LOCAL_64 = "l" * 64
DOMAIN_189 = ".".join(["d" * 63, "d" * 63, "d" * 61])  # 254 octets together with 64 and the @

# What stands between the angle brackets -> local part, domain, and how it is written back.
MAILBOXES = {
    "plain": ("a@example.org", "a", EXAMPLE, "a@example.org"),
    "the local part keeps its case": ("Joe.Doe@EXAMPLE.org", "Joe.Doe", EXAMPLE, "Joe.Doe@example.org"),
    "all of atext": ("a!#$%&'*+-/=?^_`{|}~1@example.org", "a!#$%&'*+-/=?^_`{|}~1", EXAMPLE, None),
    "without a domain": ("postmaster", "postmaster", None, "postmaster"),
    "needless quotes": ('"a.b"@example.org', "a.b", EXAMPLE, "a.b@example.org"),
    "needless quoted pair": (r'"a\b"@example.org', "ab", EXAMPLE, "ab@example.org"),
    "quoted space": ('"a b"@example.org', "a b", EXAMPLE, '"a b"@example.org'),
    "quoted at sign": ('"a@b"@example.org', "a@b", EXAMPLE, '"a@b"@example.org'),
    "quoted angle bracket": ('"a> b"@example.org', "a> b", EXAMPLE, '"a> b"@example.org'),
    "quoted quote": (r'"a\"b"@example.org', 'a"b', EXAMPLE, r'"a\"b"@example.org'),
    "quoted backslash": (r'"a\\b"@example.org', r"a\b", EXAMPLE, r'"a\\b"@example.org'),
    "quoted dots in a row": ('"a..b"@example.org', "a..b", EXAMPLE, '"a..b"@example.org'),
    "quoted dot at the end": ('"a."@example.org', "a.", EXAMPLE, '"a."@example.org'),
    # https://github.com/KumoCorp/kumomta/issues/77: phones of docomo, ezweb and others
    "dots in a row": ("a..b@example.org", "a..b", EXAMPLE, '"a..b"@example.org'),
    "dot at the end": ("a.@example.org", "a.", EXAMPLE, '"a."@example.org'),
    "dot at the beginning": (".a@example.org", ".a", EXAMPLE, '".a"@example.org'),
    "quoted nothing": ('""@example.org', "", EXAMPLE, '""@example.org'),
    "quoted without a domain": ('"a b"', "a b", None, '"a b"'),
    "address literal": ("a@[192.0.2.1]", "a", AddressLiteral.parse("[192.0.2.1]"), "a@[192.0.2.1]"),
    "IPv6 literal": ("a@[IPv6:2001:DB8::1]", "a", AddressLiteral.parse("[IPv6:2001:db8::1]"), "a@[IPv6:2001:db8::1]"),
    # RFC 5321 appendix C: accepted, ignored
    "source route": ("@a.example,@b.example:u@example.org", "u", EXAMPLE, "u@example.org"),
    "source route before quotes": ('@a.example:"u v"@example.org', "u v", EXAMPLE, '"u v"@example.org'),
    # RFC 6531 3.3
    "UTF-8 local part": ("jürgen@example.org", "jürgen", EXAMPLE, "jürgen@example.org"),
    "quoted UTF-8": ('"jürgen b"@example.org', "jürgen b", EXAMPLE, '"jürgen b"@example.org'),
    "IDN": ("a@bücher.example", "a", Domain("xn--bcher-kva.example"), "a@xn--bcher-kva.example"),
    "joiners that a script needs": ("نامه\u200cها@example.org", "نامه\u200cها", EXAMPLE, None),
    "beyond the BMP": ("😀@example.org", "😀", EXAMPLE, None),
    # RFC 5321 4.5.3.1
    "64 octets before the @": (f"{LOCAL_64}@example.org", LOCAL_64, EXAMPLE, None),
    "a rewritten sender's 200 octets": ("v" * 200 + "@example.org", "v" * 200, EXAMPLE, None),
    "64 octets in UTF-8": ("é" * 32 + "@example.org", "é" * 32, EXAMPLE, None),
    "254 octets in all": (f"{LOCAL_64}@{DOMAIN_189}", LOCAL_64, Domain(DOMAIN_189), None),
}

NO_MAILBOXES = {
    "nothing": "",
    "the null path": "<>",
    "angle brackets": "<a@example.org>",
    "no local part": "@example.org",
    "no domain behind the @": "a@",
    "nothing but dots": "..@example.org",
    "only an @": "@",
    "two domains": "a@b@example.org",
    "space": "a b@example.org",
    "space at the end": "a@example.org ",
    "space at the beginning": " a@example.org",
    "a further parameter": "a@example.org> SIZE=1",
    "comment": "a(comment)@example.org",
    "a list": "a@example.org,b@example.org",
    "open quotes": '"a@example.org',
    "open quoted pair": '"a\\"@example.org',
    "quotes in the middle": 'a"b"@example.org',
    "text behind quotes": '"a"b@example.org',
    "quoted pair of UTF-8": '"a\\é"@example.org',
    "trailing dot": "a@example.org.",
    "trailing ideographic dot": "a@例え.テスト。",
    "numeric domain": "a@192.0.2.1",
    "open literal": "a@[192.0.2.1",
    "literal with a zone": "a@[IPv6:fe80::1%1]",
    "text behind a literal": "a@[192.0.2.1]b",
    "only a source route": "@a.example:",
    "open source route": "@a.example,u@example.org",
    "CRLF in the local part": "a\r\nRSET@example.org",
    "CRLF in quotes": '"a\r\nRSET"@example.org',
    "quoted CR": '"a\\\r"@example.org',
    "LF at the end": "a@example.org\n",
    "CRLF in a source route": "@a\r\n:u@example.org",
    "NUL": "a\0@example.org",
    "tab": '"a\tb"@example.org',
    "delete": "a\x7f@example.org",
    "C1 control": "a\x85b@example.org",
    "line separator": "a\u2028b@example.org",
    "bidirectional override": "a\u202eb@example.org",
    "bidirectional isolate": '"a\u2066b"@example.org',
    "octets that are not UTF-8": b"j\xfcrgen@example.org".decode(errors="surrogateescape"),
    "octets that are not UTF-8 in the domain": b"a@b\xfccher.example".decode(errors="surrogateescape"),
    "255 octets in all": f"{LOCAL_64}@{DOMAIN_189}d",
    "255 octets in all by quotes": f'"{"l" * 62} "@{DOMAIN_189}',
    "longer than anything": "a" * 100_000 + "@example.org",
}


@pytest.mark.parametrize(("text", "local", "domain", "written"), MAILBOXES.values(), ids=MAILBOXES)
def test_mailboxes(text: str, local: str, domain: Domain | AddressLiteral | None, written: str | None) -> None:
    mailbox = Mailbox.parse(text)
    assert mailbox == Mailbox(local, domain)
    assert str(mailbox) == (text if written is None else written)


@pytest.mark.parametrize("text", NO_MAILBOXES.values(), ids=NO_MAILBOXES)
def test_what_is_no_mailbox(text: str) -> None:
    with pytest.raises(InvalidValue):
        Mailbox.parse(text)


@pytest.mark.parametrize("text", ["a@example.org.", "a@\u4f8b\u3048.\u30c6\u30b9\u30c8\u3002"])
def test_a_dot_behind_a_domain_is_named_as_what_is_wrong(text: str) -> None:
    with pytest.raises(InvalidValue, match="a domain in an address does not end in a dot"):
        Mailbox.parse(text)


@pytest.mark.parametrize(
    "local", ["a\r\nb", "a\0", "a\x85", "a\u2028", "a\u202e", "a\udc80", "a" * 255, "é" * 130], ids=ascii
)
def test_a_mailbox_is_validated_however_it_is_made(local: str) -> None:
    with pytest.raises(InvalidValue):
        Mailbox(local, EXAMPLE)


def test_a_mailbox_made_from_parts_is_no_longer_than_a_parsed_one() -> None:
    Mailbox(LOCAL_64, Domain(DOMAIN_189))
    with pytest.raises(InvalidValue, match="254 octets"):
        Mailbox(LOCAL_64, Domain("d." + DOMAIN_189))


def test_only_the_local_part_can_need_smtputf8() -> None:
    assert Mailbox.parse("a@bücher.example").is_ascii
    assert not Mailbox.parse("ä@example.org").is_ascii


@pytest.mark.parametrize(
    ("local", "written"),
    [
        ("a", "a"),
        ("a.b", "a.b"),
        ("", '""'),
        ("a b", '"a b"'),
        (".", '"."'),
        ('"', r'"\""'),
        ("\\", r'"\\"'),
        ("ä", "ä"),
    ],
)
def test_a_local_part_is_quoted_only_if_it_must_be(local: str, written: str) -> None:
    assert quote_local_part(local) == written


@given(mailboxes)
def test_a_mailbox_survives_writing_and_parsing(mailbox: Mailbox) -> None:
    assert Mailbox.parse(str(mailbox)) == mailbox


@given(tricky_text, tricky_text)
def test_any_text_is_a_mailbox_or_an_invalid_value(one: str, other: str) -> None:
    for text in (one, f"{one}@{other}", f'"{one}"@example.org', f"{one}@example.org"):
        if parses(Mailbox.parse, text):
            mailbox = Mailbox.parse(text)
            assert Mailbox.parse(str(mailbox)) == mailbox
            str(mailbox).encode()


@given(local_parts, tricky_text)
def test_nothing_may_stand_behind_a_mailbox(local: str, trailing: str) -> None:
    address = f"{quote_local_part(local)}@example.org"
    if trailing and not parses(Domain.parse, f"example.org{trailing}"):
        assert not parses(Mailbox.parse, address + trailing)


# The reverse-path ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["", "<>"])
def test_the_null_reverse_path(text: str) -> None:
    path = ReversePath.parse(text)
    assert path == NULL_PATH
    assert path.is_null
    assert path.is_ascii
    assert path.domain is None
    assert str(path) == ""


def test_a_reverse_path_with_a_mailbox() -> None:
    path = ReversePath.parse("Jürgen@BÜCHER.example")
    assert path.mailbox == Mailbox("Jürgen", Domain("xn--bcher-kva.example"))
    assert not path.is_null
    assert not path.is_ascii
    assert path.domain == Domain("xn--bcher-kva.example")
    assert str(path) == "Jürgen@xn--bcher-kva.example"


def test_a_sender_has_a_domain() -> None:
    with pytest.raises(InvalidValue, match="without a domain"):
        ReversePath.parse("postmaster")
    with pytest.raises(InvalidValue, match="without a domain"):
        ReversePath(Mailbox("postmaster", None))


@pytest.mark.parametrize("text", [" ", "<", "<a@example.org>", "a@", "\n"])
def test_what_is_no_reverse_path(text: str) -> None:
    with pytest.raises(InvalidValue):
        ReversePath.parse(text)
