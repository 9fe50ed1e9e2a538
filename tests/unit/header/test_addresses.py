"""Lists of addresses: what means the same to every reader is accepted, and the rest refused."""

from __future__ import annotations

from email.headerregistry import Address as StandardAddress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.header.addresses import (
    MAX_AUTHORS,
    MAX_AUTHORS_FIELD,
    Address,
    parse_addresses,
    parse_authors,
)

# What says clearly who is meant, whoever reads it.
CLEAR = [
    ("a@x", ["a@x"]),
    ("<a@x>", ["a@x"]),
    ("A <a@x>", ["a@x"]),
    ("A B. C <a@x>", ["a@x"]),
    ("A<a@x>", ["a@x"]),
    ("< a@x >", ["a@x"]),
    ('"B, b@y" <a@x>', ["a@x"]),
    ('"a \\" <b@y>" <a@x>', ["a@x"]),
    ('"a b"@x', ['"a b"@x']),
    ('"b@y"@x', ['"b@y"@x']),
    ("a..b@x, a.@x", ["a..b@x", "a.@x"]),  # as some phones write them
    ("a@[192.0.2.1], B <b@[IPv6:::1]>", ["a@[192.0.2.1]", "b@[IPv6:::1]"]),
    ("ä@ü, Ä <ö@x>", ["ä@ü", "ö@x"]),
    ("=?utf-8?q?b?= <a@x>", ["a@x"]),
    ("[list] A <a@x>", ["a@x"]),
    ("root", ["root"]),
    ("root (Cron Daemon)", ["root"]),
    ("a@x, b@y", ["a@x", "b@y"]),
    ("a@x,b@y,", ["a@x", "b@y"]),  # commas too many (RFC 5322 4.4)
    (",, a@x , ,b@y,,", ["a@x", "b@y"]),
    (",", []),
    ("a@x (Smith, A)", ["a@x"]),  # commas in comments
    ("a@x (b@y, <c@z>)", ["a@x"]),
    ("(b@y) a@x (c (d, e) f) , b@y", ["a@x", "b@y"]),
    ("(\\)) a@x", ["a@x"]),
    ("A (b) <a@x> (c)", ["a@x"]),
    ("undisclosed-recipients:;", []),
    ("undisclosed-recipients:", []),
    ("Team: a@x, B <b@y>;", ["a@x", "b@y"]),
    ("Team: a@x;, c@z", ["a@x", "c@z"]),
    ("c@z, Team: a@x,;", ["c@z", "a@x"]),
    ('"Te:am": a@x;', ["a@x"]),
    ('"b@y": a@x;', ["a@x"]),
    ("=?b@x, b=?@x", ["=?b@x", "b=?@x"]),
    ("a@x,\r\n\tb@y", ["a@x", "b@y"]),
    ("<>", []),
    ("A <>, a@x", ["a@x"]),
    ("", []),
    (" \t", []),
    ("()", []),
]

# What one reader takes for this address, and another one for that.
UNCLEAR = [
    "a@x b@y",
    "a@x <b@y> c@z",
    "<a@x> <b@y>",
    "<a@x> b",
    "<<a@x>>",
    "<a@x",
    "a@x>",
    "<a@x, b@y>",
    "<a b@x>",
    "a@x)b@y",
    "(a@x",
    "a@x (b",
    "a@x (\\",
    '"a@x',
    'a@x"b@y"',
    'a@x"b"@y',
    "a@b@x",
    "a @x",
    "a@ x",
    "a(c)@x",
    "a@(c)x",
    "<@y:a@x>",
    "@x",
    "a@",
    "<a@>",
    "[192.0.2.1]",
    "a@x[192.0.2.1]",
    "A B",
    "a@x; b@y",
    "a@x;",
    "Team: Other: a@x;;",
    "Team: a@x;;",
    "Team: a@x; b@y",
    ": a@x;",
    "A\\B <a@x>",
    "a\0@x",
    "a@x\x7f",
    '"a\n"@x',
    "\ud800@x",
    "a@x\u2028",
    "\x85 a@x",
    "ceo@y: a@x;",  # "Composition kills" (USENIX Security 2020): a reader may show the name of the group as the author
    "[ceo@y]: a@x;",
    # https://github.com/python/cpython/issues/152519, https://github.com/bbottema/simple-java-mail/issues/652
    "=?utf-8?q?ceo=40y=3E=00?=@x",
    "A <=?utf-8?b?Y2VvQHk=?=@x>",
    '"=?utf-8?q?ceo=40y=3E?="@x',
    "\N{KELVIN SIGN}a@x <ka@x>",
    # https://github.com/nodemailer/nodemailer/issues/1766, https://github.com/wneessen/go-mail/issues/495
    '"ceo@y z"@x',
    '"ceo@y"',
    '"a> <ceo"@x',
]


@pytest.mark.parametrize(("text", "addresses"), CLEAR)
def test_what_is_clear_is_read(text: str, addresses: list[str]) -> None:
    assert [each.text for each in parse_addresses(text)] == addresses


@pytest.mark.parametrize("text", UNCLEAR)
def test_what_is_unclear_is_refused(text: str) -> None:
    with pytest.raises(InvalidValue):
        parse_authors(text.encode("utf-8", "surrogatepass"))


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a@x <a@x>", ("a@x",)),
        ("b@y <a@x>", ("b@y",)),
        ("b@y c@z B <a@x>", ("b@y", "c@z")),
        ('"b@y" <a@x>', ()),
        ('"b"@y <a@x>', ('"b"@y',)),
        ("B (b@y) <a@x>", ()),
        ("[b@y] <a@x>", ("[b@y]",)),
    ],
)
def test_an_address_that_a_display_name_shows_without_quotes_is_told(text: str, shown: tuple[str, ...]) -> None:
    assert parse_addresses(text) == [Address("a@x", shown)]


@pytest.mark.parametrize("field", [b"alice@x.test <alice@x.test>", b"Alice@X.test <alice@x.test>"])
def test_an_author_whose_display_name_is_his_address_is_one_author(field: bytes) -> None:
    assert [str(each) for each in parse_authors(field)] == ["alice@x.test"]


# https://github.com/lieser/dkim_verifier/issues/389: names in Latin-1, which old programs do not encode
@pytest.mark.parametrize(
    "field",
    [b"J\xf6rg <a@x.test>", b'"J\xf6rg, K\xf6ln" <a@x.test>', b'"J\xf6rg \\"J\\"" <a@x.test>', b"a@x.test (J\xf6rg)"],
)
def test_an_author_may_have_a_name_in_another_character_set(field: bytes) -> None:
    assert [str(each) for each in parse_authors(field)] == ["a@x.test"]


@pytest.mark.parametrize(
    "field",
    [
        b"\xf6@x.test",
        b"a@\xf6.test",
        b"<\xf6@x.test>",
        b'"\xf6"@x.test',
        b"<a@x.test\xf6>",
        b"\xf6",
        b'"\xf6"',
        b"\xf6 boss@x.test <a@x.test>",
        b"boss@x.test\xf6 <a@x.test>",
        b'"\x83\\" <boss@x.test>, " <a@x.test>',  # Shift JIS: one letter of two octets, and the end of the name
    ],
)
def test_octets_of_another_character_set_hide_no_author(field: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_authors(field)


@pytest.mark.parametrize(
    "field",
    [
        b"boss@x.test <alice@x.test>",
        b"alice@x.test boss@x.test <alice@x.test>",
        b"alice@x.test <alice@x.test>, boss@x.test <alice@x.test>",
        b"",
        b"<>",
        b"Team:;",
        b"\xff@x.test",
        b"a@-x",
        b"a@x.test, " * (MAX_AUTHORS + 1),
        b" " * MAX_AUTHORS_FIELD + b"a@x.test",
    ],
)
def test_authors_who_are_not_certain_are_none(field: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_authors(field)


_pieces = st.sampled_from(["a@x", "b", '"', "<", ">", "(", ")", ",", ":", ";", "\\", "[", "]", "@", " ", "ü", "."])


@given(st.lists(_pieces, max_size=20).map("".join))
@example("a" * 50_000 + "@")
@example('"' + "\\a" * 50_000)
@example("(" * 50_000)
@example("[" * 50_000)
def test_a_list_is_read_or_refused_and_nothing_else(text: str) -> None:
    try:
        found = parse_addresses(text)
    except InvalidValue:
        return
    assert all(each.text and each.text in text for each in found)


_locals = st.text("abc.!#$%&'*+-/=?^_`{|}~ @,<>()", min_size=1, max_size=10)
_names = st.text("ab ,;:<>@()[].", max_size=10)


@given(st.lists(st.tuples(_names, _locals), min_size=1, max_size=4))
def test_a_list_that_pythons_own_writer_made_is_read(parts: list[tuple[str, str]]) -> None:
    written = [StandardAddress(name, local, "x.test") for name, local in parts]
    found = parse_addresses(", ".join(map(str, written)))
    assert [each.text for each in found] == [each.addr_spec for each in written]
