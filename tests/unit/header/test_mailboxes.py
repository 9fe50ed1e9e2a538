"""Names before addresses: whoever reads them finds the name and the address that were given, and nothing else."""

from __future__ import annotations

from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.addresses import parse_addresses
from mailrider.header.mailboxes import compose_folded, mailbox, text

NAMES = [
    # name, and what stands before the address
    ("", ""),
    ("Ann", "Ann "),
    ("Ann B. Cox", '"Ann B. Cox" '),
    ("Cox, Ann", '"Cox, Ann" '),
    ('a "b" \\c', '"a \\"b\\" \\\\c" '),
    (" a  b ", '" a  b " '),
    ("=?utf-8?q?x?=", "=?utf-8?q?=3D=3Futf-8=3Fq=3Fx=3F=3D?= "),
    ("Jörg", "=?utf-8?q?J=C3=B6rg?= "),
    ("a\r\nBcc: b", "=?utf-8?q?a=0D=0ABcc=3A_b?= "),
]


@pytest.mark.parametrize(("name", "written"), NAMES)
def test_a_name_is_written_so_that_it_stays_one(name: str, written: str) -> None:
    address = "a@b.test" if not written else "<a@b.test>"
    assert compose_folded("To", mailbox(name, "a@b.test")) == f"To: {written}{address}\r\n"


def test_utf_8_may_stay_where_it_is_allowed() -> None:
    assert compose_folded("To", mailbox("Jörg, Ann", "a@b.test", utf8=True)) == 'To: "Jörg, Ann" <a@b.test>\r\n'


def test_an_address_in_utf_8_is_always_in_brackets_and_so_is_none() -> None:
    assert mailbox("", "ü@b.test") == ["<ü@b.test>"]
    assert mailbox("", "") == ["<>"]


@given(st.text(max_size=300), st.integers(0, 40))
def test_no_name_adds_an_address_or_a_line(name: str, used: int) -> None:
    field = compose_folded("To", [*mailbox(name, "a@b.test", used=used), ",", *mailbox(name, "c@d.test", used=used)])
    assert all(line[:1] in "T " and "\r" not in line and "\n" not in line for line in field.split("\r\n")[:-1])
    value = field[4:].replace("\r\n", "")
    assert [each.text for each in parse_addresses(value)] == ["a@b.test", "c@d.test"]


@given(st.text(st.characters(codec="utf-8"), max_size=300))
def test_a_text_is_read_as_it_was_but_for_line_ends(given: str) -> None:
    field = compose_folded("Subject", text(given, used=len("Subject: ")))
    unfolded = field[9:].replace("\r\n", "")
    for each in "\r\n\0":
        given = given.replace(each, " ")
    assert "".join(str(make_header(decode_header(unfolded))).split()) == "".join(given.split())
    assert max(map(len, field.split("\r\n"))) <= 210


def test_a_word_that_no_line_has_room_for_becomes_encoded_words() -> None:
    assert max(map(len, compose_folded("Subject", text("x" * 2000)).split("\r\n"))) <= 90
