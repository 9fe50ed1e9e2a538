"""Encoded words: read whatever strangers write, written so that nothing of it is read otherwise."""

from __future__ import annotations

from email.header import decode_header, make_header

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mailrider.header.words import CODECS, WIDTH, decode_words, encode_words


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("grün", "grün"),
        ("=?utf-8?q?gr=C3=BCn?=", "grün"),
        ("=?UTF-8?B?Z3LDvG4=?=", "grün"),
        ("=?UTF-8?B?Z3LDvG4?=", "grün"),  # without padding
        ("=?utf-8*de?q?gr=C3=BCn?=", "grün"),  # RFC 2231 5
        ("=?iso-8859-1?Q?a_b=FC?=", "a bü"),
        ("=?gb2312?B?yPC15A==?=", "瑞典"),
        ("=?utf-8?q?a?= =?utf-8?q?b?=", "ab"),  # RFC 2047 6.2
        ("=?utf-8?q?a?=\t =?iso-8859-1?q?b?=", "ab"),
        ("=?utf-8?q?a?= and =?utf-8?q?b?=", "a and b"),
        ("x =?utf-8?q?a?= y", "x a y"),
        ("x=?utf-8?q?a?=y", "xay"),  # against the rules, and shown so by many programs
        ("=?utf-8?q?=C3?= =?utf-8?q?=BC?=", "ü"),  # a character that is split
        ("=?utf-8?q?=C3?= =?iso-8859-1?q?=BC?=", "\ufffd¼"),
        ("=?utf-8?q?what?_really??=", "what? really?"),
        ("=?utf-8?q??=", ""),
        ("=?utf-8?q?=FF?=", "\ufffd"),
        ("=?no-such?q?x?=", "=?no-such?q?x?="),
        ("=?punycode?q?x-?=", "=?punycode?q?x-?="),
        ("=?utf-8?b?x?=", "=?utf-8?b?x?="),
        ("=?utf-8?x?x?=", "=?utf-8?x?x?="),
        ("=?utf-8?q?never closed", "=?utf-8?q?never closed"),
        ("=?no-such?q?x?= =?utf-8?q?y?=", "=?no-such?q?x?= y"),
        ("", ""),
    ],
)
def test_encoded_words_are_shown_as_people_see_them(text: str, shown: str) -> None:
    assert decode_words(text) == shown


_pieces = st.sampled_from(
    ["=?", "?=", "?q?", "?b?", "=", "?", " ", "\t", "utf-8", "utf-7", "iso-2022-jp", "hz", "x", "=C3", "=BC", "AA", "ü"]
)


@given(st.lists(_pieces, max_size=40).map("".join))
def test_nothing_that_a_stranger_writes_raises(text: str) -> None:
    assert isinstance(decode_words(text), str)


@pytest.mark.parametrize("charset", CODECS)
@settings(max_examples=20)
@given(octets=st.binary(max_size=60))
def test_no_charset_raises_whatever_octets_there_are(charset: str, octets: bytes) -> None:
    encoded = "".join(f"={octet:02X}" for octet in octets)
    assert isinstance(decode_words(f"=?{charset}?q?{encoded}?="), str)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("plain", ("plain",)),
        ("", ("",)),
        ("grün", ("=?utf-8?q?gr=C3=BCn?=",)),
        ("=?utf-8?q?x?=", ("=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?=",)),
        ("a\r\nX: y", ("=?utf-8?q?a=0D=0AX=3A_y?=",)),
        ("\ud800", ("=?utf-8?q?=3F?=",)),
    ],
)
def test_only_plain_text_stays_as_it_is(text: str, lines: tuple[str, ...]) -> None:
    assert encode_words(text) == lines


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=300), st.integers(0, 30))
def test_what_is_encoded_is_read_back_as_it_was(text: str, used: int) -> None:
    lines = encode_words(text, used)
    assert all(line.isascii() and line.isprintable() for line in lines)
    assert decode_words("\r\n ".join(lines)) == text
    if lines != (text,):
        assert str(make_header(decode_header("\n ".join(lines)))) == text
        assert used + len(lines[0]) <= WIDTH
        assert all(1 + len(line) <= WIDTH for line in lines[1:])
