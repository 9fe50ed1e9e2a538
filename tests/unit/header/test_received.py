"""What an endpoint writes into a header, and what it takes out."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.fields import ReceivedDetail, ReceivedInfo, count_received, received_field, submitted_header
from mailrider.model.domain import Domain

AT = datetime(2026, 11, 21, 3, 4, 5, tzinfo=UTC)
PASSAGE = ReceivedInfo("client.example", "[192.0.2.1]", Domain("mx.here.test"), "ESMTP", "id1", AT)
DATE = b"Date: Sat, 21 Nov 2026 03:04:05 +0000\r\n"
ID = b"Message-ID: <id1@mx.here.test>\r\n"


def test_the_received_field_tells_who_how_and_when() -> None:
    assert received_field(PASSAGE) == (
        b"Received: from client.example ([192.0.2.1])\r\n"
        b"\tby mx.here.test with ESMTP id id1;\r\n\tSat, 21 Nov 2026 03:04:05 +0000\r\n"
    )
    full = ReceivedInfo("[IPv6:::1]", "uid 8", PASSAGE.hostname, "ESMTPSA", "id2", AT, "b@x.test", "using TLSv1.3")
    assert received_field(full) == (
        b"Received: from [IPv6:::1] (uid 8)\r\n\t(using TLSv1.3)\r\n"
        b"\tby mx.here.test with ESMTPSA id id2\r\n\tfor <b@x.test>;\r\n\tSat, 21 Nov 2026 03:04:05 +0000\r\n"
    )


@pytest.mark.parametrize(
    ("detail", "client", "origin"),
    [
        (ReceivedDetail.FULL, "[192.0.2.1]", b"from client.example ([192.0.2.1])\r\n\t(using TLSv1.3)\r\n\t"),
        (ReceivedDetail.SHORT, "[192.0.2.1]", b"from [192.0.2.1]\r\n\t"),
        (ReceivedDetail.SHORT, "uid 8", b"from localhost\r\n\t"),
        (ReceivedDetail.NONE, "[192.0.2.1]", b""),
    ],
)
def test_the_received_field_hides_what_it_shall(detail: ReceivedDetail, client: str, origin: bytes) -> None:
    info = replace(PASSAGE, client=client, tls="using TLSv1.3", detail=detail)
    field = received_field(info)
    rest = b"by mx.here.test with ESMTP id id1;\r\n\tSat, 21 Nov 2026 03:04:05 +0000\r\n"
    assert field == b"Received: " + origin + rest
    assert count_received(field) == 1


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (b"", ID + DATE),
        (b"Subject: x\r\n", ID + DATE + b"Subject: x\r\n"),
        (b"date: x\r\nMESSAGE-ID : y\r\n", b"date: x\r\nMESSAGE-ID : y\r\n"),
        # https://github.com/haraka/Haraka/issues/3219
        (b"Message-ID: <>\r\nSubject: x\r\nDate:\r\n", ID + DATE + b"Subject: x\r\n"),
        (b"Message-ID:\r\n <>\r\n \r\n" + DATE + b"X: y\r\n", ID + DATE + b"X: y\r\n"),
        (b"Date: <>\r\n \r\n x\r\nMessage-ID:\r\n", ID + b"Date: <>\r\n \r\n x\r\n"),
        (b"X-Date: x\r\nMessage-ID: y\r\n", DATE + b"X-Date: x\r\nMessage-ID: y\r\n"),
        (ID + DATE + b"Bcc: a,\r\n b\r\n\tc\r\nX-Bcc: d\r\n", ID + DATE + b"X-Bcc: d\r\n"),
        (
            ID + DATE + b"Resent-Bcc: a,\r\n\tb\r\nX-Resent-Bcc: c\r\nresent-BCC :\r\n",
            ID + DATE + b"X-Resent-Bcc: c\r\n",
        ),
        (ID + b"BCC : a\r\n" + DATE + b"bcc:\r\n", ID + DATE),
        (ID + DATE + b"Subject: x\r\n Bcc: part of it\r\n", ID + DATE + b"Subject: x\r\n Bcc: part of it\r\n"),
        (ID + DATE + b"Return-Path: <x@y.test>\r\n", ID + DATE + b"Return-Path: <x@y.test>\r\n"),
    ],
)
def test_a_submitted_header_is_completed_and_otherwise_left_alone(header: bytes, expected: bytes) -> None:
    assert submitted_header(header, PASSAGE) == expected


lines = st.sampled_from(
    [
        b"Bcc: a\r\n",
        b"bcc:\r\n",
        b"Resent-Bcc: a\r\n",
        b"Subject: x\r\n",
        b" folded\r\n",
        b"\tbcc: x\r\n",
        DATE,
        ID,
        b"Bccx: y\r\n",
        b"Message-ID: <>\r\n",
    ]
)


@given(st.lists(lines).map(b"".join))
def test_no_bcc_is_left_and_nothing_is_done_twice(header: bytes) -> None:
    once = submitted_header(header, PASSAGE)
    assert not any(line.lower().startswith((b"bcc:", b"resent-bcc:")) for line in once.split(b"\r\n"))
    assert submitted_header(once, PASSAGE) == once


def test_only_received_fields_are_counted() -> None:
    assert count_received(b"Received: a\r\nX-Received: b\r\nRECEIVED :c\r\n received: d\r\n") == 2


@given(
    st.lists(st.sampled_from([b"Received", b"rEcEiVeD", b" ", b"\t", b":", b"X", b"\r\n", b"\r", b"\n"])).map(b"".join)
)
def test_received_fields_are_counted_as_lines_that_begin_so(header: bytes) -> None:
    lines = [line.lower().partition(b":") for line in header.split(b"\n")]
    assert count_received(header) == sum(name.rstrip(b" \t") == b"received" for name, colon, _ in lines if colon)
