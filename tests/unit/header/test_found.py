"""The header: its end, its fields, its faults."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.fields import (
    MAX_HEADER,
    MAX_LINES,
    HeaderFault,
    header_cut,
    header_end,
    header_fault,
    header_fields,
    is_too_long,
    without_bcc,
)


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"A: 1\r\n\r\nbody", 6),
        (b"A: 1\n\nbody", 5),
        (b"A: 1\n\r\nbody", 5),
        (b"A: 1\r\n\nbody", 6),
        (b"A: 1\n\nB: 2\r\n\r\n", 5),
        (b"A: 1\n\r\nB: 2\n\n", 5),
        (b"A: 1\n\n\r\nbody", 5),
        (b"\r\nbody", 0),
        (b"\nbody", 0),
        (b"A: 1\r\nB: 2\r\n", -1),
        (b"A: 1\n\r\r\nbody", -1),
        (b"A: 1\r\n \r\nbody", -1),
        (b"\r\r\n", -1),
        (b"\r", -1),
        (b"", -1),
    ],
)
def test_the_first_empty_line_ends_the_header(message: bytes, end: int) -> None:
    assert header_end(message) == end


@given(st.text(alphabet="a:\r\n ", max_size=30), st.integers(0, 30))
def test_the_end_is_found_when_the_message_grows(text: str, at: int) -> None:
    message = text.encode()
    end = header_end(message)
    seen = header_end(message[:at])
    assert seen == end if seen >= 0 else header_end(message, min(at, len(message))) == end


def test_a_header_is_cut_at_the_last_line_within_its_bound() -> None:
    line = b"X: " + b"x" * 95 + b"\r\n"
    message = line * (MAX_HEADER // 100 + 10) + b"\r\nbody"
    assert header_end(message) == -1
    assert header_cut(message) == MAX_HEADER // 100 * 100
    assert header_cut(b"x" * (MAX_HEADER + 1)) == 0
    assert header_cut(b"x" * MAX_HEADER) == MAX_HEADER


def test_fields_are_found_by_name_unfolded_and_trimmed() -> None:
    header = (
        b"TLS-Required: No\r\nSubject: TLS-Required: x\r\ntls-required :\r\n  two\r\n\tlines \r\nTLS-Required-2: y\r\n"
    )
    assert header_fields(header, "TLS-Required") == [b"No", b"two\tlines"]
    assert header_fields(header, "subject") == [b"TLS-Required: x"]
    assert header_fields(header, "Required") == []
    assert header_fields(b"", "Subject") == []
    assert header_fields(b"Subject:\r\nFrom: a\r\n", "Subject") == [b""]


_lines = st.sampled_from(
    [
        b"To: a\r\n",
        b"to\t:b\r\n",
        b"TO :\r\n",
        b" To: c\r\n",
        b"\tto: d \r\n",
        b"Tox: e\r\n",
        b"X-To: f\r\n",
        b"To\r\n",
        b"T\xff: g\r\n",
    ]
)


@given(st.lists(_lines))
def test_fields_are_those_that_a_reader_of_lines_finds(lines: list[bytes]) -> None:
    expected: list[bytes] = []
    inside = False
    for line in lines:
        name, colon, value = line.removesuffix(b"\r\n").partition(b":")
        if line[:1] in b" \t":
            if inside:
                expected[-1] += line.removesuffix(b"\r\n")
            continue
        inside = bool(colon) and name.rstrip(b" \t").lower() == b"to"
        if inside:
            expected.append(value)
    assert header_fields(b"".join(lines), "To") == [each.strip() for each in expected]


def test_a_header_of_very_many_lines_has_a_fault() -> None:
    header = b"a:\r\n" * MAX_LINES
    assert not is_too_long(header)
    assert header_fault(header) is None
    assert is_too_long(header + b"b:\r\n")
    assert str(header_fault(header + b"b:\r\n")) == "header line 10001: a header has no more than 10000 lines"


def test_a_good_header_has_no_fault() -> None:
    assert header_fault(b"Subject: a\r\n folded\r\n\tmore\r\nX-Y.Z_1 : 2\r\nS\r\n"[:-3]) is None


@pytest.mark.parametrize(
    ("header", "line", "words"),
    [
        (b"", None, "does not begin with a line like"),
        (b"Hello world\r\n", None, "begins with 'Hello world'"),
        (b" Subject: x\r\n", None, "begins with ' Subject: x'"),
        (b"Subject: x\r\nHello,\r\n", 2, "'Hello,' is not a field"),
        (b"Subject: x\r\n y\r\n: z\r\n", 3, "': z' is not a field"),
        (b"Subject: x\r\nN\xc3\xa4me: y\r\n", 2, "'Näme: y' is not a field"),
        (b"Subject: x\r\n" + b"y" * 100 + b"\r\n", 2, "y" * 60 + "...' is not a field"),
        (b"From joe@example.org Mon Jan  1 00:00:00 2026\r\nSubject: x\r\n", 1, "`From ` line"),
    ],
)
def test_a_fault_names_the_line(header: bytes, line: int | None, words: str) -> None:
    fault = header_fault(header)
    assert fault is not None
    assert fault.line == line
    assert words in fault.reason


def test_a_fault_reads_as_a_sentence() -> None:
    assert str(HeaderFault(None, "it is empty")) == "no header: it is empty"
    assert str(HeaderFault(7, "it is odd")) == "header line 7: it is odd"


def test_bcc_goes_with_all_its_lines_and_nothing_else_does() -> None:
    header = b"Bcc: a,\r\n b\r\nX-Bcc: c\r\nResent-BCC: d\r\nSubject: x\r\n"
    assert without_bcc(header) == b"X-Bcc: c\r\nSubject: x\r\n"
    assert without_bcc(kept := b"Subject: x\r\n") is kept
