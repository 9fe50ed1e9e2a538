"""Names in DNS messages: what they are, and how little work a hostile message makes."""

from __future__ import annotations

import dns.exception
import dns.wire
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dns.names import MAX_LABELS, NameReader

DEEP = b"\1a" * 127 + b"\0"  # the longest name that there can be: 255 octets


@pytest.mark.parametrize(
    ("message", "start", "expected"),
    [
        (b"\0", 0, (".", 1)),
        (b"\2MX\4TEST\0", 0, ("mx.test", 9)),
        (b"\4test\0\2mx\xc0\0rest", 6, ("mx.test", 11)),
        (b"\4test\0\2mx\xc0\0\xc0\6", 11, ("mx.test", 13)),
        (b"\3a.b\3\0\xff \0", 0, ("a\\.b.\\000\\255\\032", 9)),
        (DEEP, 0, (".".join("a" * 127), 255)),
    ],
)
def test_a_name_is_text_in_lower_case_and_ends_where_the_next_field_begins(
    message: bytes, start: int, expected: tuple[str, int]
) -> None:
    names = NameReader(message)
    assert [names.read(start), names.read(start)] == [expected, expected]


@pytest.mark.parametrize(
    ("message", "start"),
    [
        (b"", 0),
        (b"\4tes", 0),
        (b"\4test", 0),
        (b"\xc0", 0),
        (b"\xc0\0", 0),  # points at itself
        (b"\xc0\2\xc0\0", 0),  # forwards
        (b"\1a\xc0\0", 2),  # into itself, by way of a label
        (b"\x40a\0", 0),
        (b"\1b" + DEEP, 0),  # 257 octets
        (b"\77" + b"x" * 63 + b"\0", 1),
        (DEEP + b"\1b\xc0\0", 255),
    ],
)
def test_what_is_no_name_is_refused(message: bytes, start: int) -> None:
    with pytest.raises((ValueError, IndexError)):
        NameReader(message).read(start)


@given(st.lists(st.sampled_from([*b"\0\1\2\3Aa-.\x40\xc0\xc0\xff"]), min_size=1, max_size=80).map(bytes), st.data())
def test_names_are_those_that_dnspython_reads(message: bytes, data: st.DataObject) -> None:
    places = data.draw(st.lists(st.integers(0, len(message) - 1), min_size=1, max_size=6))
    names = NameReader(message)
    for start in places:
        parser = dns.wire.Parser(message, start)
        try:
            expected = parser.get_name(decompress=True).to_text(omit_final_dot=True).lower(), parser.current
        except dns.exception.DNSException:
            continue
        assert names.read(start) == expected


def test_a_label_is_read_once_however_many_names_point_at_it() -> None:
    times = MAX_LABELS - 127  # each pointer counts, and the labels once
    names = NameReader(DEEP + b"\xc0\0" * times)
    assert {names.read(255 + 2 * number)[0] for number in range(times)} == {".".join("a" * 127)}


def test_pointers_at_pointers_are_followed_once() -> None:
    chain = b"\1a\0" + b"".join((0xC000 | max(0, 3 + 2 * (number - 1))).to_bytes(2) for number in range(1, 1000))
    first = b"\xc0\0"
    names = NameReader(b"\1a\0" + first + chain[3:])
    assert {names.read(3 + 2 * number)[0] for number in range(1000)} == {"a"}


def test_a_message_has_no_more_labels_than_are_read() -> None:
    names = NameReader(DEEP * 100)
    fit = MAX_LABELS // 127
    for number in range(fit):
        names.read(255 * number)
    with pytest.raises(ValueError, match=f"more than {MAX_LABELS} labels"):
        names.read(255 * fit)
