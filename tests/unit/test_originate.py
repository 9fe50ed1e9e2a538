"""What the library adds to a message, and to which one it adds nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from email.message import EmailMessage

import pytest

from mailrider.app.originate import originate
from mailrider.app.submission import prepare
from mailrider.errors import InvalidValue
from mailrider.header.fields import MAX_HEADER
from mailrider.model.domain import Domain
from mailrider.smtp.content import Content

HOST = Domain("mx.example.org")
NOW = datetime(2026, 11, 30, 9, 17, 59, 123, tzinfo=UTC)
DATE = b"Date: Mon, 30 Nov 2026 09:17:59 +0000\r\n"
ID = b"Message-ID: <token@mx.example.org>\r\n"
REST = b"From: a@example.org\r\nSubject: x\r\n\r\nhello\r\n"


def originated(message: bytes, host: Domain | None = HOST) -> bytes:
    return b"".join(originate(Content.inspect(message), host, lambda: NOW, lambda: "token").chunks())


MESSAGES = {
    "neither": (REST, ID + DATE),
    "no date": (b"message-id: <x@y>\r\n" + REST, DATE),
    "no id": (b"date: yesterday\r\n" + REST, ID),
    "no date, and another field of such a name": (b"Date-Of-Birth: 1990\r\nMessage-ID: <x@y>\r\n" + REST, DATE),
    "white space before the colon": (b"Date\t: yesterday\r\nMessage-ID : <x@y>\r\n" + REST, b""),
    "both": (b"Date: yesterday\r\nMessage-ID: <x@y>\r\n" + REST, b""),
    "signed": (b"DKIM-Signature: v=1\r\n" + REST, b""),
    "has travelled": (b"Received: from x\r\n" + REST, b""),
    "no header that can be read": (b"Hello there\r\n\r\nhello\r\n", b""),
}


@pytest.mark.parametrize(("message", "added"), MESSAGES.values(), ids=MESSAGES)
def test_date_and_message_id_are_added_where_a_message_starts(message: bytes, added: bytes) -> None:
    assert originated(message) == added + message


# https://github.com/haraka/Haraka/issues/3219: Gmail refuses them
@pytest.mark.parametrize("empty", [b"", b" ", b" <>", b" < >", b"\r\n ", b" \r\n\t<>\r\n "])
def test_a_date_or_message_id_that_says_nothing_is_none(empty: bytes) -> None:
    assert originated(b"message-id:" + empty + b"\r\n" + DATE + REST) == ID + DATE + REST
    assert originated(ID + b"Date:" + empty + b"\r\n" + REST) == DATE + ID + REST
    folded = b"Message-ID:\r\n <x@y>\r\n" + DATE + REST
    assert originated(folded) == folded
    without_date = b"Message-ID:\r\n <x@y>\r\n" + REST
    assert originated(without_date) == DATE + without_date


def test_a_date_that_python_cannot_read_is_none() -> None:
    message = EmailMessage()
    message["Date"] = "yesterday"
    (date,) = prepare(message, "a@example.org", ["b@example.net"]).content.header_fields("Date")
    assert date


BCC = b"Bcc: c@example.net,\r\n d@example.net\r\nresent-bcc: e@example.net\r\n"


# https://github.com/lettre/lettre/issues/309, https://github.com/pimalaya/himalaya/issues/747
@pytest.mark.parametrize(
    "before", [ID + DATE, ID, b"", b"DKIM-Signature: v=1\r\n"], ids=["all", "ID", "none", "signed"]
)
def test_nobody_sees_who_gets_a_blind_copy(before: bytes) -> None:
    assert originated(before + BCC + REST) == originated(before + REST)


@pytest.mark.parametrize("bad", [b"Hello there\r\n", b"X: y\r\n" * 10_000], ids=["no field", "too many"])
def test_nor_in_a_header_that_cannot_be_read(bad: bytes) -> None:
    assert originated(BCC + bad + REST) == bad + REST


def test_what_may_be_the_body_stays() -> None:
    message = b"Hello there\r\nBcc: is no field\r\n" + REST
    assert originated(message) == message


def test_a_header_that_is_too_large_to_be_looked_at_is_refused() -> None:
    message = b"X: " + b"y" * MAX_HEADER + b"\r\n" + BCC + REST
    with pytest.raises(InvalidValue, match="header line 1: a header has no more than 1048576 octets"):
        prepare(message, "a@example.org", ["b@example.net"])


def test_the_message_object_of_a_program_keeps_its_bcc_and_what_is_sent_has_none() -> None:
    message = EmailMessage()
    message["From"], message["Bcc"] = "a@example.org", "c@example.net"
    message.set_content("Bcc: stays\n")
    sent = b"".join(prepare(message, "a@example.org", ["c@example.net"]).content.chunks())
    assert sent.lower().count(b"bcc:") == 1
    assert sent.endswith(b"\r\n\r\nBcc: stays\r\n")
    assert message["Bcc"] == "c@example.net"


def test_what_has_travelled_keeps_the_bcc_that_its_author_left_in() -> None:
    message = b"Received: from x\r\nBcc: c@example.net\r\n" + REST
    assert originated(message) == message


def test_without_a_name_of_ours_there_is_no_message_id() -> None:
    assert originated(REST, None) == DATE + REST


@pytest.mark.parametrize(
    "message",
    [b"", b"\r\n", b"\n", EmailMessage()],
    ids=["nothing", "CRLF", "LF", "EmailMessage"],
)
def test_an_empty_message_is_refused(message: bytes | EmailMessage) -> None:
    with pytest.raises(InvalidValue, match="the message is empty"):
        prepare(message, "a@example.org", ["b@example.net"])


def test_a_message_without_a_body_is_none_that_is_empty() -> None:
    assert originated(b"From: a@example.org\r\n\r\n").endswith(b"From: a@example.org\r\n\r\n")
