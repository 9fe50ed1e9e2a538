"""What is nearly a message, made one; and what is one, left alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.header.fields import header_fault
from mailrider.smtp.data import sending_fault
from mailrider.smtp.mend_header import mend_header

# The header as it came, as it goes on, what belongs to the body, and how many things were changed.
MENDED = {
    "without an empty line": (b"Subject: x\r\nHello\r\nNote: y\r\n", b"Subject: x\r\n", b"Hello\r\nNote: y\r\n", 1),
    "without a header": (b"Hello\r\nthere\r\n", b"", b"Hello\r\nthere\r\n", 1),
    "indented text": (b" Hello\r\n", b"", b" Hello\r\n", 1),
    "a byte order mark": (b"\xef\xbb\xbfSubject: x\r\nTo: b\r\n", b"Subject: x\r\nTo: b\r\n", b"", 1),
    "a mailbox line": (b"From a@b Sat\r\n>From c@d\r\nTo: b\r\n", b"To: b\r\n", b"", 1),
    "a mark before a mailbox line": (b"\xef\xbb\xbfFrom a@b\r\nTo: b\r\n", b"To: b\r\n", b"", 2),
    "a line without a colon": (
        b"Subject: long\r\nand longer\r\nTo: b\r\n",
        b"Subject: long\r\n and longer\r\nTo: b\r\n",
        b"",
        1,
    ),
    "one that would hide the Bcc in the body": (b"To: b\r\nx\r\nBcc: c\r\n", b"To: b\r\n x\r\nBcc: c\r\n", b"", 1),
    "text that quotes a message": (
        b"From: a\r\nSubject: x\r\nHe wrote\r\nFrom: b\r\n",
        b"From: a\r\nSubject: x\r\n",
        b"He wrote\r\nFrom: b\r\n",
        1,
    ),
    "both": (b"To: b\r\nx\r\nCc: c\r\nHello\r\n", b"To: b\r\n x\r\nCc: c\r\n", b"Hello\r\n", 2),
    "a good one": (b"To: b\r\n folded\r\n", b"To: b\r\n folded\r\n", b"", 0),
}


@pytest.mark.parametrize("case", MENDED)
def test_a_header_is_mended_and_nothing_is_lost(case: str) -> None:
    came, header, body, changes = MENDED[case]
    mended = mend_header(came)
    assert mended.header == header
    assert mended.between == (b"\r\n" + body if body else b"")
    assert len(mended.changes) == changes


lines = st.sampled_from(
    [b"To: b\r\n", b"X: y\r\n", b"text\r\n", b" x\r\n", b"From a\r\n", b"\xef\xbb\xbf", b"Cc: c\r\n"]
)


@given(st.lists(lines).map(lambda parts: b"".join(parts) + b"end: x\r\n"))
def test_what_was_mended_has_no_fault(header: bytes) -> None:
    mended = mend_header(header)
    assert not mended.header or header_fault(mended.header) is None
    assert mend_header(mended.header).changes == ()


def test_no_nul_before_a_dot_comes_to_begin_a_line() -> None:
    mended = mend_header(b"\xef\xbb\xbf\0.\r\nMAIL FROM:<boss@example.org>\r\n")
    assert sending_fault(b"Received: x\r\n" + mended.header + mended.between) == ""
