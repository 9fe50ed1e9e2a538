"""Notifications: read back by Python's own parser, and by flufl.bounce, which knows what mail servers write."""

from __future__ import annotations

import base64
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from typing import TYPE_CHECKING, Any

import pytest
from flufl.bounce import all_failures

from mailrider.dsn.compose import compose
from mailrider.dsn.human_part import advice_for
from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedAction, NotifiedRecipient
from mailrider.dsn.parts import MAX_RETURNED, redact
from mailrider.model.domain import Domain
from mailrider.model.envelope import OriginalRecipient, Ret
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.smtp.content import Content
from tests.support.queueing import MESSAGE, deferred, delivered, envelope, failed, in_doubt, recipient

if TYPE_CHECKING:
    from email.message import EmailMessage

ORIGIN = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
UTF8 = "From: a@example.org\r\nMessage-ID: <1@example.org>\r\nSubject: grüße\r\n\r\nHallo.\r\n".encode()


def notification(
    *notified: NotifiedRecipient,
    octets: bytes | None = MESSAGE,
    action: NotifiedAction = NotifiedAction.FAILED,
    outcome: Any = failed,
    **options: Any,
) -> Notification:
    who = recipient("b@example.net")
    given = envelope(who, **options)
    content = None if octets is None else Content.inspect(octets)
    until = AT + timedelta(days=4) if action is NotifiedAction.DELAYED else None
    return Notification(
        given, notified or (NotifiedRecipient(who, action, outcome(who), until),), AT, AT, "0abc", content
    )


def parsed(given: Notification) -> EmailMessage:
    octets = compose(given, ORIGIN)
    assert octets.count(b"\n") == octets.count(b"\r\n") == octets.count(b"\r")
    assert max(map(len, octets.split(b"\r\n"))) <= 998
    message = message_from_bytes(octets, policy=policy.SMTP)
    assert not any(part.defects for part in message.walk())
    return message


def parts(given: Notification) -> list[EmailMessage]:
    return list(parsed(given).iter_parts())  # type: ignore[arg-type] # EmailMessage, by its policy


def report(given: Notification) -> list[dict[str, str]]:
    """The machine-readable part: its groups of fields."""
    groups = parts(given)[1].get_payload()
    return [{name: " ".join(str(value).split()) for name, value in group.items()} for group in groups]  # type: ignore[union-attr] # messages


def letter_lines(given: Notification) -> str:
    return " ".join(parts(given)[0].get_content().split())


def test_a_notification_is_a_report_that_no_program_answers() -> None:
    message = parsed(notification())
    assert message.get_content_type() == "multipart/report"
    assert message["Content-Type"].params["report-type"] == "delivery-status"
    assert message["Auto-Submitted"] == "auto-replied"
    assert message["To"] == "a@example.org"
    assert message["From"].addresses[0].addr_spec == "MAILER-DAEMON@example.org"
    assert message["In-Reply-To"] == message["References"] == "<1@example.org>"
    assert message["Date"].datetime == AT
    assert [part.get_content_type() for part in message.iter_parts()] == [
        "text/plain",
        "message/delivery-status",
        "text/rfc822-headers",
    ]


def test_a_person_reads_what_happened_to_whom_and_what_to_do() -> None:
    text = letter_lines(notification())
    assert "Your message could not be delivered to b@example.net. This is final" in text
    assert "Subject: hello" in text
    assert "Reason: mx.example.net said: no such user (550 5.1.1)" in text
    assert "Check the address for mistakes" in text


def test_a_machine_reads_the_fields_of_rfc_3464() -> None:
    who = recipient("b@example.net", original=OriginalRecipient("rfc822", "list@example.com"))
    about, each = report(notification(NotifiedRecipient(who, NotifiedAction.FAILED, failed(who)), envid="QQ+314"))
    assert about == {
        "Original-Envelope-Id": "QQ+314",
        "Reporting-MTA": "dns; mx.example.org",
        "Arrival-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    }
    assert each == {
        "Original-Recipient": "rfc822; list@example.com",
        "Final-Recipient": "rfc822; b@example.net",
        "Action": "failed",
        "Status": "5.1.1",
        "Remote-MTA": "dns; mx.example.net",
        "Diagnostic-Code": "smtp; 550 5.1.1 no such user",
        "Last-Attempt-Date": "Sun, 01 Mar 2026 12:00:00 +0000",
    }


def test_a_tool_that_knows_all_mail_servers_finds_the_failed_address() -> None:
    message = message_from_bytes(compose(notification(), ORIGIN))
    assert all_failures(message)[1] == {b"b@example.net"}


def test_a_tool_that_knows_all_mail_servers_does_not_hold_a_delay_for_a_failure() -> None:
    given = notification(action=NotifiedAction.DELAYED, outcome=deferred)
    message = message_from_bytes(compose(given, ORIGIN))
    temporary, permanent = all_failures(message)
    assert temporary == {b"b@example.net"}
    assert not permanent


def test_a_delay_says_that_nothing_has_to_be_done_and_until_when_it_is_tried() -> None:
    given = notification(action=NotifiedAction.DELAYED, outcome=deferred)
    assert "You need not do anything" in letter_lines(given)
    _, each = report(given)
    assert (each["Action"], each["Status"]) == ("delayed", "4.2.0")
    assert each["Will-Retry-Until"] == "Thu, 05 Mar 2026 12:00:00 +0000"


def test_a_delay_in_doubt_says_so() -> None:
    assert "may have arrived all the same" in letter_lines(
        notification(action=NotifiedAction.DELAYED, outcome=in_doubt)
    )


def test_a_success_says_that_it_was_passed_on() -> None:
    given = notification(action=NotifiedAction.RELAYED, outcome=delivered)
    assert "passed on to a server that does not report further" in letter_lines(given)
    _, each = report(given)
    assert (each["Action"], each["Status"]) == ("relayed", "2.0.0")


def test_the_class_of_the_status_follows_from_the_action() -> None:
    who = recipient("b@example.net")
    bare = Reply.make(550, None, "no")
    assert (
        report(notification(NotifiedRecipient(who, NotifiedAction.FAILED, Failed(who, bare))))[1]["Status"] == "5.0.0"
    )
    assert (
        report(notification(NotifiedRecipient(who, NotifiedAction.DELAYED, Deferred(who, bare))))[1]["Status"]
        == "4.0.0"
    )
    assert (
        report(notification(NotifiedRecipient(who, NotifiedAction.RELAYED, Delivered(who, bare))))[1]["Status"]
        == "2.0.0"
    )


def test_our_own_reasons_are_not_passed_off_as_a_servers() -> None:
    who = recipient("b@example.net")
    _, each = report(
        notification(
            NotifiedRecipient(who, NotifiedAction.FAILED, Failed(who, Reply.make(550, "5.1.2", "no such domain")))
        )
    )
    assert each["Diagnostic-Code"] == "x-mailrider; 550 5.1.2 no such domain"
    assert "Remote-MTA" not in each
    ours = Reply.make(550, "5.7.10", "mx.example.net does not reach the levels")
    _, each = report(notification(NotifiedRecipient(who, NotifiedAction.FAILED, Failed(who, ours, "mx.example.net"))))
    assert each["Diagnostic-Code"] == "x-mailrider; 550 5.7.10 mx.example.net does not reach the levels"
    assert each["Remote-MTA"] == "dns; mx.example.net"


def test_where_nothing_was_tried_no_attempt_is_dated() -> None:
    who = recipient("b@example.net")
    notified = NotifiedRecipient(who, NotifiedAction.DELAYED, deferred(who), was_tried=False)
    assert "Last-Attempt-Date" not in report(notification(notified))[1]


def test_several_recipients_are_told_of_in_one_notification() -> None:
    notified = tuple(
        NotifiedRecipient(who, NotifiedAction.FAILED, failed(who))
        for who in map(recipient, ("b@example.net", "c@example.net"))
    )
    message = parsed(notification(*notified))
    assert message["Subject"] == "Not delivered: your message to b@example.net and 1 more"
    assert len(report(notification(*notified))) == 3


@pytest.mark.parametrize(
    ("ret", "size", "requiretls", "action", "form"),
    [
        (None, 0, False, NotifiedAction.FAILED, "text/rfc822-headers"),
        (Ret.HEADERS, 0, False, NotifiedAction.FAILED, "text/rfc822-headers"),
        (Ret.FULL, 0, False, NotifiedAction.FAILED, "message/rfc822"),
        (Ret.FULL, 0, False, NotifiedAction.DELAYED, "text/rfc822-headers"),
        (Ret.FULL, 0, True, NotifiedAction.FAILED, "text/rfc822-headers"),
        (Ret.FULL, MAX_RETURNED, False, NotifiedAction.FAILED, "text/rfc822-headers"),
    ],
)
def test_as_much_is_returned_as_is_asked_for_and_allowed(
    ret: Ret | None, size: int, requiretls: bool, action: NotifiedAction, form: str
) -> None:
    octets = MESSAGE + b"x" * size + b"\r\n"
    given = notification(octets=octets, ret=ret, requiretls=requiretls, action=action)
    returned = parts(given)[2]
    assert returned.get_content_type() == form
    if form == "message/rfc822":
        assert returned.get_payload(0)["Subject"] == "hello"  # type: ignore[index] # a message
    else:
        assert "Subject: hello" in returned.get_content()
        assert "Hello." not in returned.get_content()


def test_a_huge_header_is_cut() -> None:
    header = b"".join(b"X-%d: %s\r\n" % (number, b"x" * 500) for number in range(1000))
    assert len(compose(notification(octets=header + b"\r\n.\r\n"), ORIGIN)) < MAX_RETURNED + 5000


def test_a_message_that_cannot_be_read_any_more_is_told_of_without_it() -> None:
    assert len(parts(notification(octets=None))) == 2
    assert "Subject:" not in letter_lines(notification(octets=None))


def test_a_message_over_secure_transport_is_not_quoted() -> None:
    assert "hello" not in letter_lines(notification(requiretls=True))


def test_content_that_holds_the_delimiter_does_not_break_the_notification() -> None:
    first = compose(notification(ret=Ret.FULL), ORIGIN)
    boundary = message_from_bytes(first).get_boundary()
    evil = MESSAGE + f"--{boundary}--\r\n".encode()
    assert len(parts(notification(octets=evil, ret=Ret.FULL))) == 3


def international(sender: str) -> bytes:
    """About a recipient that needs UTF-8."""
    who = recipient("büro@example.net", original=OriginalRecipient("utf-8", "büro@example.net"))
    given = notification(sender=sender, octets=UTF8, smtputf8=True)
    return compose(replace(given, recipients=(NotifiedRecipient(who, NotifiedAction.FAILED, failed(who)),)), ORIGIN)


def test_a_sender_that_needs_utf_8_gets_the_forms_of_rfc_6533() -> None:
    octets = international("jürgen@example.org")
    assert b"Content-Type: message/global-delivery-status" in octets
    assert "Final-Recipient: utf-8; büro@example.net".encode() in octets
    assert "Original-Recipient: utf-8; büro@example.net".encode() in octets
    assert b"Content-Type: message/global-headers" in octets
    assert "Subject: grüße".encode() in octets


def test_any_other_sender_gets_addresses_in_their_7_bit_form() -> None:
    octets = international("a@example.org")
    assert octets.isascii()
    assert b"Content-Type: message/delivery-status" in octets
    assert rb"Final-Recipient: utf-8; b\x{FC}ro@example.net" in octets
    assert rb"Original-Recipient: utf-8; b\x{FC}ro@example.net" in octets
    returned = list(message_from_bytes(octets, policy=policy.SMTP).iter_parts())[2]
    assert returned.get_content_type() == "text/rfc822-headers"
    assert "Subject: grüße" in returned.get_content()


def test_a_sender_that_needs_utf_8_gets_a_header_in_utf_8() -> None:
    given = notification(sender="jürgen@example.org", smtputf8=True, octets=UTF8)
    assert "To: <jürgen@example.org>".encode() in compose(given, ORIGIN)


EIGHT_BIT = "From: a@example.org\r\nMessage-ID: <1@example.org>\r\n\r\nGrüße.\r\n".encode()
LONG = MESSAGE + b"x" * 999 + b"\r\n"
ZERO = MESSAGE + b"\0\r\n"


@pytest.mark.parametrize("ret", [Ret.HEADERS, Ret.FULL])
@pytest.mark.parametrize("octets", [MESSAGE, UTF8, EIGHT_BIT, LONG, ZERO, b"Subject: \xff\r\n\r\n.\r\n"])
def test_a_notification_is_7_bit_whatever_it_returns(octets: bytes, ret: Ret) -> None:
    written = compose(notification(octets=octets, ret=ret), ORIGIN)
    assert written.isascii()
    assert b"\0" not in written
    assert b"8bit" not in written
    assert max(map(len, written.split(b"\r\n"))) <= 998


@pytest.mark.parametrize("octets", [MESSAGE, UTF8, EIGHT_BIT, LONG, ZERO])
def test_a_whole_message_is_returned_octet_by_octet(octets: bytes) -> None:
    written = compose(notification(octets=octets, ret=Ret.FULL), ORIGIN)
    part = written.split(b"--" + (message_from_bytes(written).get_boundary() or "").encode())[3]
    head, _, body = part.partition(b"\r\n\r\n")
    if octets == MESSAGE:
        assert head.startswith(b"\r\nContent-Type: message/rfc822\r\n")
        assert body == octets + b"\r\n"
    else:
        assert head.startswith(b"\r\nContent-Type: message/global\r\n")  # the only kind that may be encoded
        assert base64.b64decode(body) == octets


@pytest.mark.parametrize(("octets", "form"), [(UTF8, b"global"), (EIGHT_BIT, b"rfc822")])
def test_what_needs_smtputf8_anyway_returns_octets_as_they_are(octets: bytes, form: bytes) -> None:
    written = compose(notification(sender="jürgen@example.org", octets=octets, ret=Ret.FULL), ORIGIN)
    assert b"Content-Type: message/" + form + b"\r\n" in written
    assert octets in written
    header = written.partition(b"\r\n\r\n")[0]
    assert header.endswith(b"Content-Transfer-Encoding: 8bit")  # RFC 2045 6.4: as its parts


# https://github.com/haraka/Haraka/issues/848
@pytest.mark.parametrize("said", ["no such user", "4.7.1 temporary, but 550", "5.1.1111 odd"])
def test_a_reply_without_a_right_enhanced_code_is_repeated_without_one(said: str) -> None:
    who = recipient("b@example.net")
    outcome = Failed(who, Reply.make(550, "5.0.0", f"mx said: {said}"), "mx")
    each = report(notification(NotifiedRecipient(who, NotifiedAction.FAILED, outcome)))[1]
    assert (each["Diagnostic-Code"], each["Status"]) == (f"smtp; 550 {said}", "5.0.0")


def test_replies_with_characters_beyond_ascii_are_replaced_where_the_report_is_ascii() -> None:
    who = recipient("b@example.net")
    reply = Reply.make(550, "5.1.1", "mx said: kein Empfänger")
    given = notification(NotifiedRecipient(who, NotifiedAction.FAILED, Failed(who, reply, "mx")))
    assert report(given)[1]["Diagnostic-Code"] == "smtp; 550 5.1.1 kein Empf?nger"
    assert "kein Empfänger" in letter_lines(given)


@pytest.mark.parametrize("subject", [b"=?utf-8?q?gr=C3=BC=C3=9Fe?=", "grüße".encode()])
def test_the_subject_is_shown_decoded(subject: bytes) -> None:
    assert "grüße" in letter_lines(notification(octets=b"Subject: " + subject + b"\r\n\r\n.\r\n"))


@pytest.mark.parametrize(
    "charset", ["no-such", "hex", "rot13", "undefined", "idna", "unicode_escape", "../x", "x" * 99]
)
def test_a_subject_in_a_charset_that_is_none_keeps_nobody_from_being_told(charset: str) -> None:
    octets = f"Subject: =?{charset}?b?AAAA?=\r\n\r\n.\r\n".encode()
    assert f"=?{charset}?b?AAAA?=" in letter_lines(notification(octets=octets))


def test_a_subject_that_does_not_decode_is_shown_as_it_is() -> None:
    assert "=?no-such?q?x?=" in letter_lines(notification(octets=b"Subject: =?no-such?q?x?=\r\n\r\n.\r\n"))


@pytest.mark.parametrize("sender", ["a@example.org", "jürgen@example.org"])
@pytest.mark.parametrize("subject", ["secret\r\n plan", "secret plän"])
def test_redaction_leaves_message_id_and_date_only(subject: str, sender: str) -> None:
    header = f"Date: Sun, 01 Mar 2026 11:00:00 +0000\r\nSubject: {subject}\r\n".encode() + MESSAGE
    octets = compose(notification(octets=header, requiretls=True, sender=sender), ORIGIN)
    redacted = redact(octets)
    assert redacted is not None
    assert b"secret" in octets
    assert b"secret" not in redacted
    assert b"plan" not in redacted
    message = message_from_bytes(redacted, policy=policy.SMTP)
    last = list(message.iter_parts())[2]
    assert last.get_content_type() == "text/rfc822-headers"
    assert b"Message-ID: <1@example.org>" in redacted
    assert b"Date: Sun, 01 Mar 2026 11:00:00 +0000" in redacted
    assert all_failures(message_from_bytes(redacted))[1] == {b"b@example.net"}


FORGED = b'Subject: x\r\n\r\n\r\n\tboundary="=0"\r\n--=0--=0--=0--=0\r\n'


@pytest.mark.parametrize("octets", [MESSAGE, FORGED, compose(notification(octets=None), ORIGIN)])
def test_what_is_no_notification_with_a_header_is_not_redacted(octets: bytes) -> None:
    assert redact(octets) is None


@pytest.mark.parametrize(
    ("code", "words"),
    [
        ("5.1.1", "Check the address"),
        ("5.2.2", "mailbox is full"),
        ("5.7.99", "refused"),
        ("5.9.9", "other means"),
        # What may be our own fault is not blamed on others.
        ("5.4.7", "tell your own postmaster"),
        ("4.4.3", "tell your own postmaster"),
        ("4.4.1", "tell your own postmaster"),
    ],
)
def test_advice_fits_the_code(code: str, words: str) -> None:
    assert words in advice_for(EnhancedCode.parse(code))
