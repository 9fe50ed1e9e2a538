"""Nothing that strangers choose becomes a header field, or a body, of a notification that we write and sign.

The case that was found: on Pythons with CVE-2024-6923 (3.11.7, 3.12.1) the `email` package decoded an encoded word in
a quoted local part and wrote the line ends that it held into the header.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email import message_from_bytes, policy
from email.header import decode_header, make_header

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.dsn.compose import compose
from mailrider.dsn.notification import Notification, NotificationAuthor, NotifiedAction, NotifiedRecipient
from mailrider.dsn.parts import redact
from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, OriginalRecipient, Recipient, Ret
from mailrider.model.outcome import Deferred, Delivered, Failed
from mailrider.model.reply import Reply
from mailrider.smtp.content import Content

ORIGIN = NotificationAuthor(Domain("mx.example.org"), Domain("example.org"))
AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
FIELDS = {
    *("from", "to", "date", "message-id", "subject", "auto-submitted", "mime-version", "content-type"),
    *("content-transfer-encoding", "in-reply-to", "references"),
}
HOSTILE = "=?utf-8?q?a=0D=0ATLS-Required:_No=0D=0A=0D=0A<b>?= "


def mailbox(local: str) -> Mailbox:
    return Mailbox(local, Domain("known.test"))


def fields(octets: bytes) -> list[str]:
    """The names of the header's fields, as octets have them: no parser is asked."""
    header = octets.partition(b"\r\n\r\n")[0]
    lines = header.split(b"\r\n")
    assert not any(end in line for line in lines for end in (b"\r", b"\n", b"\0"))
    assert all(line.strip() for line in lines)
    return [line.partition(b":")[0].decode().lower() for line in lines if not line.startswith((b" ", b"\t"))]


def subject(octets: bytes) -> str:
    message = message_from_bytes(octets, policy=policy.compat32)
    raw = str(message["Subject"]).replace("\r\n", "\n")
    return raw if not raw.isascii() else str(make_header(decode_header(raw)))


def check(notification: Notification) -> bytes:
    """Written as it has to be, whatever it is about."""
    octets = compose(notification, ORIGIN)
    names = fields(octets)
    assert set(names) <= FIELDS
    assert len(names) == len(set(names))
    sender = notification.envelope.sender
    assert octets.startswith(
        b"From: Mail delivery system <MAILER-DAEMON@example.org>\r\n" + f"To: <{sender}>\r\n".encode()
    )
    assert octets.isascii() or not sender.is_ascii
    boundary = message_from_bytes(octets).get_boundary() or ""
    assert len(octets.split(b"\r\n--" + boundary.encode())) == 5  # before, three parts, behind
    redacted = redact(octets)
    assert redacted is not None
    assert fields(redacted) == names
    return octets


def notification(local: str, sender: str = "a@example.org", **options: object) -> Notification:
    who = Recipient(mailbox(local))
    envelope = Envelope(ReversePath.parse(sender), (who,), smtputf8=True)
    notified = NotifiedRecipient(who, NotifiedAction.FAILED, Failed(who, Reply.make(550, "5.1.1", "no such user")))
    return Notification(envelope, (notified,), AT, AT, "0abc", Content.inspect(b"Subject: x\r\n\r\n.\r\n"))


@pytest.mark.parametrize("sender", ["a@example.org", "ä@example.org"])
@pytest.mark.parametrize("local", [HOSTILE, "é " + HOSTILE, "=?utf-8?b?DQpYOiB5DQoNCg==?=", "é=?utf-7?q?+AA0ACg-?="])
def test_an_encoded_word_in_a_recipients_address_is_never_decoded(local: str, sender: str) -> None:
    octets = check(notification(local, sender))
    assert b"TLS-Required:" not in octets.partition(b"\r\n\r\n")[0]
    assert subject(octets) == f"Not delivered: your message to {mailbox(local)}"


def test_an_encoded_word_in_a_message_id_is_not_repeated() -> None:
    given = notification("b")
    for evil in (b"<=?utf-8?q?=0D=0AX:_y?=@x>", b"<a@x> X: y", b"<a\xff@x>", b"<" + b"a" * 600 + b">", b"a", b""):
        content = Content.inspect(b"Message-ID: " + evil + b"\r\n\r\n.\r\n")
        notified = Notification(given.envelope, given.recipients, AT, AT, "0abc", content)
        assert "in-reply-to" not in fields(check(notified))
    content = Content.inspect(b"Message-ID:\r\n <a@x>\r\n\r\n.\r\n")
    assert b"\r\nIn-Reply-To: <a@x>\r\n" in check(
        Notification(given.envelope, given.recipients, AT, AT, "0abc", content)
    )


EVIL = (
    *(
        HOSTILE,
        "=?",
        "?=",
        "?q?",
        "?b?",
        "=0D=0A",
        "DQo=",
        "utf-8",
        "é",
        "\u2028",
        "\x85",
        '"',
        "\\",
        "<",
        ">",
        "@",
        ":",
    ),
    *(" ", ",", "a", "日本", "%0d%0a", "--=0=", ";", "x" * 80, "TLS-Required: No", "\U0001f4a3", "\u200e"),
)
_evil = st.sampled_from(EVIL)
_text = st.lists(_evil, max_size=12).map("".join)
_octets = st.lists(
    st.one_of(_evil.map(str.encode), st.sampled_from([b"\r\n", b"\n", b"\r", b"\0", b"\xff", b"\r\n ", b"\r\n\t"])),
    max_size=30,
).map(b"".join)


def _mailbox(local: str) -> Mailbox | None:
    try:
        return mailbox(local)
    except InvalidValue:  # what is too long, or holds a control character, never becomes an address
        return None


def _original(text: str) -> OriginalRecipient | None:
    try:
        return OriginalRecipient("utf-8", text)
    except InvalidValue:
        return None


_mailboxes = _text.map(_mailbox).filter(bool)
_originals = _text.map(_original)
_replies = st.tuples(st.sampled_from([250, 450, 550]), _text).map(lambda made: Reply.from_lines(made[0], (made[1],)))
_envids = st.none() | st.text("=?utf-8q:ABC \\+x%0D", min_size=1, max_size=100)


@given(
    sender=_mailboxes,
    recipients=st.lists(st.tuples(_mailboxes, _originals, _replies), min_size=1, max_size=3),
    action=st.sampled_from(NotifiedAction),
    header=_octets,
    value=_octets,
    envid=_envids,
    ret=st.sampled_from(Ret),
)
def test_whatever_strangers_choose_a_notification_has_our_fields_and_parts_alone(
    sender: Mailbox,
    recipients: list[tuple[Mailbox, OriginalRecipient | None, Reply]],
    action: NotifiedAction,
    header: bytes,
    value: bytes,
    envid: str | None,
    ret: Ret,
) -> None:
    notified: list[NotifiedRecipient] = []
    for who, original, reply in recipients:
        outcome = {2: Delivered, 4: Deferred, 5: Failed}[reply.code // 100]
        recipient = Recipient(who, None, original)
        until = AT if action is NotifiedAction.DELAYED else None
        notified.append(NotifiedRecipient(recipient, action, outcome(recipient, reply, "mx.known.test"), until))
    envelope = Envelope(
        ReversePath(sender), tuple(each.recipient for each in notified), smtputf8=True, ret=ret, envid=envid
    )
    octets = b"Subject: " + value + b"\r\nMessage-ID: " + value + b"\r\n" + header + b"\r\n\r\nbody\r\n"
    check(Notification(envelope, tuple(notified), AT, AT, "0abc", Content.inspect(octets)))
