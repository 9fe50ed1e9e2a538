"""Arguments become values, and results something to look at; without any I/O."""

from __future__ import annotations

import base64
import email
import email.policy
import re
from email.generator import BytesGenerator
from email.header import Header
from email.headerregistry import Address, Group
from email.message import EmailMessage, Message
from email.mime.multipart import MIMEMultipart
from email.mime.text import MIMEText
from functools import partial
from io import BytesIO
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.app.submission import DSN, Submission, prepare
from mailrider.header.addresses import parse_addresses
from mailrider.model.event import Bug
from mailrider.model.outcome import Delivered
from mailrider.model.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from mailrider.model.event import Event

MESSAGE = b"Subject: x\r\n\r\nhello\r\n"


def submission(
    message: Any = MESSAGE, sender: Any = "a@b.test", recipients: Any = ("x@a.test",), **more: Any
) -> Submission:
    return prepare(message, sender, recipients, **more)


def octets(message: Any, **more: Any) -> bytes:
    """What will be sent, without the Date that is added where there is none: tests/unit/test_originate.py."""
    sent = b"".join(map(bytes, submission(message, **more).content.chunks()))
    return re.sub(rb"\ADate: [^\r]*\r\n", b"", sent)


class WritesText:
    def as_bytes(self) -> str:
        return "Subject: x\n\n"


# Wrong arguments raise at once ----------------------------------------------------------------------------------------

WRONG = {
    "a message that is text": (
        {"message": "Subject: x\n\n"},
        TypeError,
        "bytes or an email.message.EmailMessage, not str",
    ),
    "a message that is a file": ({"message": object()}, TypeError, "not object"),
    "a class of messages": ({"message": EmailMessage}, TypeError, "not type"),
    "a message that writes text": ({"message": WritesText()}, TypeError, "not WritesText"),
    "no message": ({"message": None}, TypeError, "not NoneType"),
    "a sender that is None": ({"sender": None}, TypeError, "empty for the null reverse-path, not NoneType"),
    "one recipient for a list": ({"recipients": "x@a.test"}, TypeError, "a list of addresses, not one string"),
    "recipients as bytes": ({"recipients": b"x@a.test"}, TypeError, "a recipient is a string, not int"),
    "a recipient that is None": ({"recipients": [None]}, TypeError, "not NoneType"),
    "nobody": ({"recipients": []}, ValueError, "there is nobody to send to"),
    "recipients that are none": ({"recipients": 7}, TypeError, "not iterable"),
    "a no that would be a yes": ({"quarantine": "no"}, TypeError, "quarantine is True or False, not str"),
    "a wish that is a word": ({"requiretls": "yes"}, TypeError, "requiretls is True or False, not str"),
    "a number for SMTPUTF8": ({"smtputf8": 1}, TypeError, "smtputf8 is True or False, not int"),
    "a DSN that is a word": ({"dsn": "NEVER"}, TypeError, r"dsn is mailrider.DSN\(...\), not str"),
}


@pytest.mark.parametrize(("arguments", "error", "words"), WRONG.values(), ids=WRONG)
def test_wrong_arguments_raise(arguments: dict[str, Any], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        submission(**arguments)


@pytest.mark.parametrize(
    ("wishes", "words"),
    [
        ({"notify": "SOMETIMES"}, "NOTIFY takes"),
        ({"notify": "NEVER,DELAY"}, "NOTIFY takes"),
        ({"ret": "BODY"}, "RET takes FULL or HDRS, not 'BODY'"),
        ({"ret": "hdr\N{LATIN SMALL LETTER LONG S}"}, "RET takes FULL or HDRS"),
        ({"envid": ""}, "ENVID is 1 to 100"),
        ({"envid": "x" * 101}, "ENVID is 1 to 100"),
        ({"envid": "ü"}, "ENVID is 1 to 100"),
    ],
)
def test_wishes_for_dsns_that_nobody_has_raise_where_they_are_made(wishes: dict[str, str], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        mailrider.DSN(**wishes)


@pytest.mark.parametrize(
    "directives",
    [
        {"port": 0},
        {"port": "smtp"},
        {"connect_timeout": -1},
        {"local_ip": "here"},
        {"mx_auth": ["dane"]},
        {"hostname": "-"},
    ],
    ids=str,
)
def test_settings_that_cannot_be_raise_where_they_are_made(directives: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(directives))):
        mailrider.Remote(**{"hostname": "client.test", **directives})


def test_a_directive_that_does_not_exist_raises() -> None:
    with pytest.raises(TypeError, match="conect_timeout"):
        mailrider.Remote(hostname="client.test", conect_timeout=1)  # type: ignore[call-arg]


def test_settings_come_as_a_whole_or_one_by_one() -> None:
    with pytest.raises(TypeError, match="either settings or directives"):
        mailrider.Remote(mailrider.RemoteSettings(hostname="a.test"), hostname="b.test")


@pytest.mark.parametrize("kind", [mailrider.Remote, mailrider.Smarthost, mailrider.Queue])
def test_settings_of_another_kind_raise(kind: Any) -> None:
    with pytest.raises(TypeError, match=r"settings are \w+\(\.\.\.\), not str"):
        kind("mx.example.org")


def test_a_host_name_is_required_at_once() -> None:
    with pytest.raises(mailrider.ConfigError, match="hostname is required"):
        mailrider.Remote()
    with pytest.raises(mailrider.ConfigError, match="hostname is required"):
        mailrider.Smarthost(host=["tcp://127.0.0.1:25"])


def test_a_queue_that_delivers_needs_a_target_at_once() -> None:
    with pytest.raises(mailrider.ConfigError, match="needs a target"):
        mailrider.Queue(hostname="a.test")
    mailrider.Queue(hostname="a.test", deliver=False)


async def test_a_remote_is_used_within_async_with() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await mailrider.Remote(hostname="a.test").send(MESSAGE, "a@b.test", ["x@a.test"])


# Addresses ------------------------------------------------------------------------------------------------------------


def test_an_address_that_is_none_is_a_result_in_its_place() -> None:
    prepared = submission(recipients=["one@a.test", "nonsense@", "two@a.test"])
    assert prepared.envelope is not None
    assert [str(each) for each in prepared.envelope.recipients] == ["one@a.test", "two@a.test"]
    ok = Reply.make(250, "2.0.0", "Ok")
    report = prepared.report([Delivered(each, ok) for each in prepared.envelope.recipients])
    assert [(each.recipient, each.status.value, each.reply.code) for each in report] == [
        ("one@a.test", "delivered", 250),
        ("nonsense@", "failed", 501),
        ("two@a.test", "delivered", 250),
    ]
    assert (len(report), report[1].mx) == (3, None)


def test_a_message_that_others_may_see_another_end_of_fails_for_everybody() -> None:
    message = EmailMessage()
    message.set_content("a\n\0.\nMAIL FROM:<boss@example.org>\n", cte="7bit")
    prepared = submission(message=message, recipients=["a@b.test", "c@d.test"])
    assert prepared.envelope is None
    assert [str(each.reply) for each in prepared.report(())] == 2 * [
        "554 5.6.0 The message has a NUL before the dot that begins a line: other servers may see its end there"
    ]


def test_a_sender_that_is_none_fails_everybody_and_says_so_once_each() -> None:
    prepared = submission(sender="nobody", recipients=["one@a.test", "nonsense@"])
    assert prepared.envelope is None
    assert [str(each.reply.enhanced) for each in prepared.report(())] == ["5.1.7", "5.1.7"]


@pytest.mark.parametrize("sender", ["a@b.test", "nobody", ""])
def test_a_quarantined_message_is_refused_as_such_whatever_else_is_wrong(sender: str) -> None:
    prepared = submission(sender=sender, recipients=["one@a.test", "nonsense@"], quarantine=True)
    refused = [0, 1] if sender == "nobody" else [1]
    assert [(index, str(each.reply)) for index, each in prepared.refused.items()] == [
        (index, "550 5.7.0 The message is quarantined and will not be sent on") for index in refused
    ]


def test_recipients_may_come_from_anything_that_can_be_iterated() -> None:
    prepared = submission(recipients=(f"{n}@a.test" for n in range(2)))
    assert prepared.texts == ("0@a.test", "1@a.test")


def test_whether_smtputf8_is_needed_follows_from_the_addresses_unless_it_is_said() -> None:
    def needs(**arguments: Any) -> bool:
        envelope = submission(**arguments).envelope
        assert envelope is not None
        return envelope.smtputf8

    assert [needs(), needs(sender="ü@b.test"), needs(recipients=["x@a.test", "ü@a.test"])] == [False, True, True]
    assert [needs(sender="a@ü.test"), needs(smtputf8=True), needs(sender="ü@b.test", smtputf8=False)] == [
        False,
        True,
        False,
    ]
    default = email.policy.default
    for chosen, needed in ((email.policy.SMTPUTF8, True), (default.clone(utf8=True), True), (default, False)):
        message = EmailMessage(policy=chosen)
        message["Subject"] = "x"
        assert needs(message=message) is needed


def test_wishes_for_dsns_reach_the_envelope() -> None:
    envelope = submission(recipients=["x@a.test", "ü@a.test"], dsn=mailrider.DSN("failure", "hdrs", "id")).envelope
    assert envelope is not None
    assert (envelope.ret and envelope.ret.value, envelope.envid) == ("HDRS", "id")
    assert [
        (each.notify and each.notify.words, each.original and each.original.address_type)
        for each in envelope.recipients
    ] == [
        ("FAILURE", "rfc822"),
        ("FAILURE", "utf-8"),
    ]


# Messages -------------------------------------------------------------------------------------------------------------


def test_bytes_are_taken_as_they_are() -> None:
    assert octets(MESSAGE) == MESSAGE


def new_message() -> EmailMessage:
    message = EmailMessage()
    message["From"] = Address("Müller", "a", "b.test")
    message["Subject"] = "Grüße"
    message.set_content("Grüße\n.\n")
    return message


def test_a_message_that_was_made_is_encoded_for_everybody() -> None:
    header, _, body = octets(new_message()).partition(b"\r\n\r\n")
    assert header.isascii()
    assert header.count(b"\n") == header.count(b"\r\n")
    parsed = email.message_from_bytes(header, policy=email.policy.default)
    assert (parsed["From"], parsed["Subject"]) == ("Müller <a@b.test>", "Grüße")
    assert body == "Grüße\r\n.\r\n".encode()


def test_in_a_message_with_smtputf8_the_header_is_utf8() -> None:
    header = octets(new_message(), smtputf8=True).partition(b"\r\n\r\n")[0].decode()
    assert header.startswith("From: Müller <a@b.test>\r\nSubject: Grüße\r\n")
    assert octets(new_message(), recipients=["ü@a.test"]).startswith("From: Müller".encode())


# https://github.com/python/cpython/pull/122540: encoded words in addresses, or an exception, by the version of Python
ADDRESSED = {
    "to": ("To", "x@bücher.test", b"To: x@xn--bcher-kva.test\r\n"),
    "with a name": ("From", "Jörg <x@bücher.test>", b"From: =?utf-8?q?J=C3=B6rg?= <x@xn--bcher-kva.test>\r\n"),
    "several": ("Cc", "a@b.test, c@ü.test", b"Cc: a@b.test, c@xn--tda.test\r\n"),
    "a group": ("To", "we: a@ü.test;, b@ü.test", b"To: we: a@xn--tda.test;, b@xn--tda.test\r\n"),
}


@pytest.mark.parametrize(("name", "text", "expected"), ADDRESSED.values(), ids=ADDRESSED)
def test_domains_in_the_fields_that_a_program_made_are_written_in_ascii(name: str, text: str, expected: bytes) -> None:
    message = EmailMessage()
    message[name] = text
    assert octets(message).startswith(expected)
    assert text.encode() in octets(message, smtputf8=True)


def words(octets: str) -> str:
    return f"=?utf-8?b?{base64.b64encode(octets.encode()).decode()}?="


FIELDS_OF_TEXT = ["Content-Type", "Content-Transfer-Encoding", "MIME-Version"]
LONG = "long " * 20
# In Pythons before 3.13.2 quotes get lost when a line is folded or a word decoded, and what is a line end within an
# encoded word becomes one. https://github.com/python/cpython/issues/80222, .../87720, .../121650, .../132105
CHOSEN_BY_OTHERS: dict[str, tuple[str, Any, list[str]]] = {
    "an address in a long name": ("To", Address(f'x "y" <evil@evil.test>, {LONG}', "a", "b.test"), ["a@b.test"]),
    "an address in encoded words": ("To", f"{words('evil@evil.test, x')} <a@b.test>", ["a@b.test"]),
    "an address in quoted encoded words": ("To", f'"{words("evil@evil.test, x")}" <a@b.test>', ["a@b.test"]),
    "a quote in a name": ("Cc", [Address('a" <evil@evil.test>', "a", "b.test"), Address("c", "c", "d.test")], []),
    "the name of a group": ("To", Group(f"evil@evil.test, {LONG}", (Address("x", "a", "b.test"),)), ["a@b.test"]),
    "a long Sender": ("Sender", Address(f"evil@evil.test, {LONG}", "a", "b.test"), []),
    "a line end in a subject": ("Subject", f"{words('Voicebox ' * 8 + chr(10))} {LONG}", []),
    "a field in a subject": ("Subject", f"{words('x' + chr(13) + chr(10) + 'Bcc: evil@evil.test')} {LONG}", []),
    "a body in a subject": ("Subject", f"{words('x' + chr(10) + chr(10) + '<b>')} {LONG}", []),
    "a field in another field": ("X-Customer", f"{words('x' + chr(10) + 'Bcc: evil@evil.test')} {LONG}", []),
}


@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize(("name", "value", "addresses"), CHOSEN_BY_OTHERS.values(), ids=CHOSEN_BY_OTHERS)
def test_a_name_or_text_adds_no_address_field_or_body(
    name: str, value: Any, addresses: list[str], *, smtputf8: bool
) -> None:
    message = EmailMessage()
    message[name] = value
    message.set_content("the body\n")
    header, _, body = octets(message, smtputf8=smtputf8).partition(b"\r\n\r\n")
    fields = re.sub(rb"\r\n[ \t]", b" ", header).split(b"\r\n")
    assert [field.partition(b":")[0].decode() for field in fields] == [name, *FIELDS_OF_TEXT]
    assert body == b"the body\r\n"
    if addresses:
        assert [each.text for each in parse_addresses(fields[0].decode()[4:])] == addresses


# https://github.com/python/cpython/issues/88860
@pytest.mark.parametrize("policy", [email.policy.default, email.policy.compat32], ids=["new", "old"])
@pytest.mark.parametrize("kind", [b"mixed", b"signed; boundary=elsewhere"])
def test_a_multipart_without_parts_stays_as_it_came(kind: bytes, policy: Any) -> None:
    came = b"From: a@b.test\r\nContent-Type: multipart/" + kind + b"\r\n\r\n--b\r\n\r\n\xe9 and \xc3\xa9\r\n--b--\r\n"
    assert octets(email.message_from_bytes(came, policy=policy)) == came


def test_a_line_end_in_a_field_of_the_old_kind_is_an_error() -> None:
    message = MIMEText("x")
    message["Subject"] = "x\n\n<b>evil</b>"
    with pytest.raises(ValueError, match="a line end within the header field 'Subject'"):
        octets(message)


@pytest.mark.parametrize("separator", ["\x0b", "\x0c", "\x1c", "\x1d", "\x1e"])
def test_what_only_python_takes_for_a_line_end_stays_in_its_field(separator: str) -> None:
    came = f"Subject: a{separator}b\r\n c\xff\r\nTo: x@a.test\r\n\r\n".encode("latin-1")
    for policy in (email.policy.default, email.policy.compat32):
        assert octets(email.message_from_bytes(came, policy=policy)) == came


def test_the_name_of_a_field_is_one() -> None:
    message = EmailMessage()
    message["X y"] = "z"
    with pytest.raises(ValueError, match="not the name of a header field: 'X y'"):
        octets(message)


def test_what_is_no_domain_is_an_error() -> None:
    message = EmailMessage()
    message["To"] = Address("", "x", "ü_\N{ZERO WIDTH JOINER}.test")
    with pytest.raises(ValueError):  # newer Pythons have words of their own
        octets(message)


def test_a_local_part_in_a_field_that_a_program_made_needs_smtputf8() -> None:
    message = EmailMessage()
    message["From"] = "Jörg <jörg@b.test>"
    prepared = submission(message=message)
    assert prepared.envelope is not None
    assert prepared.envelope.smtputf8
    assert octets(message).startswith("From: Jörg <jörg@b.test>\r\n".encode())
    with pytest.raises(ValueError, match=r"jörg@b\.test in its header, which needs smtputf8"):
        submission(message=message, smtputf8=False)


def test_long_fields_that_were_made_are_folded() -> None:
    message = EmailMessage()
    message["To"] = ", ".join(f"recipient{n}@example.org" for n in range(20))
    lines = octets(message).split(b"\r\n")
    assert max(map(len, lines)) <= 78


OUTLOOK = "<" + "AM0PR05MB6834D2C88EE7DD0B43CC6B35E8A0A" * 2 + "@AM0PR05MB6834.eurprd05.prod.outlook.com>"
URL = f"<https://list.test/unsubscribe?hash={'0123456789abcdef' * 20}>"


# https://github.com/python/cpython/issues/100991, https://github.com/frappe/frappe/pull/35266,
# https://github.com/odoo/odoo/pull/289182
@pytest.mark.parametrize("smtputf8", [False, True])
@pytest.mark.parametrize(
    ("name", "words"),
    [("In-Reply-To", [OUTLOOK]), ("References", [OUTLOOK] * 3), ("List-Unsubscribe", [f"{URL},", "<mailto:x@b.test>"])],
)
def test_an_id_or_url_that_is_longer_than_a_line_is_not_encoded(name: str, words: list[str], *, smtputf8: bool) -> None:
    message = EmailMessage()
    message[name] = " ".join(words)
    expected = f"{name}: " + "\r\n ".join(words) + "\r\n"
    assert octets(message, smtputf8=smtputf8).startswith(expected.encode())


def test_a_word_that_no_line_can_hold_is_encoded() -> None:
    message = EmailMessage()
    message["References"] = "<" + "x" * 1000 + "@b.test>"
    given = octets(message)
    assert max(map(len, given.split(b"\r\n"))) <= 998
    assert email.message_from_bytes(given, policy=email.policy.default)["References"] == message["References"]


def nested(levels: int) -> MIMEMultipart:
    message = MIMEMultipart()
    for _ in range(levels):
        outer = MIMEMultipart()
        outer.attach(message)
        message = outer
    return message


def old_message(name: str, value: Any) -> MIMEText:
    message = MIMEText("x")
    message[name] = value
    return message


def part_of(payload: Any) -> Message:
    message = Message()
    message["Subject"] = "x"
    message.set_payload(payload)
    return message


@pytest.mark.parametrize(
    ("message", "error", "words"),
    [
        (old_message("X-Priority", 1), TypeError, "the value of the header field 'X-Priority' is a string, not int"),
        (old_message("X-Priority", b"1"), TypeError, "is a string, not bytes"),
        (old_message("Subject", Header("a\nBcc: x@b.test")), ValueError, "the message cannot be written"),
        (part_of(5), TypeError, "a part that is neither text nor octets"),
        (nested(2000), ValueError, "its parts are nested too deeply"),
    ],
    ids=["a number", "octets", "a field within a field", "a part that is a number", "parts within parts"],
)
def test_a_message_that_cannot_be_written_is_a_wrong_argument(
    message: Message, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        octets(message)


SIGNED = (
    b"DKIM-Signature: v=1; a=rsa-sha256; c=simple/simple; d=example.org; s=x; h=from:to:subject; bh="
    + b"A" * 44
    + b"; b="
    + b"B" * 300
    + b"\r\n"
    b"From: \xc3\xbc <a@example.org>\r\n"
    b"To: a@b.test,\r\n\tc@d.test\r\n"
    b"Subject: " + b"very long " * 30 + b"\r\n\r\n"
    b"\xfcber\r\n.\r\nFrom here\r\n"
)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (email.policy.default, b"Subject: =?utf-8?q?gr=C3=BC=C3=9Fe?=\r\n"),
        (email.policy.SMTPUTF8, "Subject: grüße\r\n".encode()),
        (email.policy.compat32, b"Subject: =?utf-8?b?Z3LDvMOfZQ==?=\r\n"),
    ],
    ids=repr,
)
def test_a_message_that_was_parsed_from_text_becomes_octets(policy: email.policy.Policy, expected: bytes) -> None:
    message = email.message_from_string("Received: a\n\tb\nSubject: grüße\n\nx\n", policy=policy)
    assert octets(message) == b"Received: a\r\n\tb\r\n" + expected + b"\r\nx\r\n"


@pytest.mark.parametrize("policy", [email.policy.default, email.policy.SMTPUTF8, email.policy.compat32], ids=repr)
def test_a_message_that_was_parsed_keeps_its_fields_as_they_were_signed(policy: email.policy.Policy) -> None:
    assert octets(email.message_from_bytes(SIGNED, policy=policy)) == SIGNED
    assert octets(email.message_from_bytes(SIGNED.replace(b"\r\n", b"\n"), policy=policy)) == SIGNED


class DjangoMultipart(MIMEMultipart):
    """As `django.core.mail.SafeMIMEMultipart`: its `as_bytes` takes a line end, and no policy."""

    def as_bytes(self, unixfrom: bool = False, linesep: str = "\n") -> bytes:  # type: ignore[override] # as Django does
        file = BytesIO()
        BytesGenerator(file, mangle_from_=False).flatten(self, unixfrom=unixfrom, linesep=linesep)
        return file.getvalue()


def test_a_message_of_django_is_written_as_it_would_write_it() -> None:
    message = DjangoMultipart(boundary="=b")
    message["Subject"] = "=?utf-8?q?Gr=C3=BC=C3=9Fe?="
    message.attach(MIMEText("From here\n.\n", "plain", "utf-8"))
    assert octets(message) == message.as_bytes(linesep="\r\n")


class Written:
    """Nothing of the standard library, but it can be written."""

    def as_bytes(self) -> Any:
        return MESSAGE


def test_whatever_can_be_written_is_a_message() -> None:
    assert octets(Written()) == MESSAGE
    assert prepare(Written(), "a@b.test", ["x@a.test"]).envelope is not None


def test_messages_of_the_old_kind_are_taken_too() -> None:
    message = MIMEMultipart()
    message["Subject"] = "Grüße"
    message["To"] = ", ".join(f"recipient{n}@example.org" for n in range(60))
    message.attach(MIMEText("Grüße\n", "plain", "utf-8"))
    given = octets(message)
    lines = given.split(b"\r\n")
    assert b"Subject: =?utf-8?b?R3LDvMOfZQ==?=" in lines
    assert max(map(len, lines)) <= 998
    assert given.count(b"\n") == given.count(b"\r\n")
    assert email.message_from_bytes(given).get_payload(0).get_payload(decode=True) == "Grüße\n".encode()  # type: ignore[union-attr]


# https://github.com/Wh1isper/mcp-email-server/issues/192
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("From", "Jörg Müller <a@b.test>", b"From: =?utf-8?q?J=C3=B6rg_M=C3=BCller?= <a@b.test>"),
        ("To", '"Müller, Jörg" <a@b.test>, c@d.test', b"To: =?utf-8?q?M=C3=BCller=2C_J=C3=B6rg?= <a@b.test>, c@d.test"),
        ("From", "jörg@b.test", b"From: =?utf-8?b?asO2cmdAYi50ZXN0?="),  # nothing else can be done with that
        ("cc", "x@bücher.test", b"cc: x@xn--bcher-kva.test"),
        ("To", "Jörg\n <a@b.test>", b"To: =?utf-8?q?J=C3=B6rg?= <a@b.test>"),
    ],
)
def test_in_messages_of_the_old_kind_too_an_address_stays_outside_of_the_encoded_name(
    name: str, text: str, expected: bytes
) -> None:
    message = MIMEText("x")
    message[name] = text
    assert expected in octets(message).split(b"\r\n")


# Listeners ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("made", [mailrider.Remote, partial(mailrider.Queue, deliver=False)])
def test_a_listener_that_raises_where_there_is_no_event_loop_does_no_harm_either(
    made: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Events may come from a thread, such as when a key is made."""

    def listener(_: Event) -> None:
        raise ZeroDivisionError

    directives = {"hostname": "client.test"}
    # What a thread of the library tells has no other way in.
    made(on_event=listener, **directives)._emit(Bug("a test", KeyError()))
    (record,) = caplog.records
    assert record.getMessage() == "on_event raised for Bug"
    assert record.exc_info is not None
    assert record.exc_info[0] is ZeroDivisionError


# Arguments that can never be right ------------------------------------------------------------------------------------


async def async_listener(_: object) -> None:
    """Nobody would await it."""


class AsyncListener:
    async def __call__(self, _: object) -> None:
        """Nor this."""


def smarthost(**more: Any) -> mailrider.Smarthost:
    return mailrider.Smarthost(**{"hostname": "a.test", "host": ["tls://a.test:465"], **more})


# Each is a mistake on purpose; where mypy sees it, it is told to ignore it.
WRONG_FOR_EVER: dict[str, tuple[Callable[[], object], type[Exception], str]] = {
    "notify, a list": (lambda: DSN(notify=["FAILURE"]), TypeError, "notify is a string such as .* not list"),  # type: ignore[arg-type]
    "notify, a number": (lambda: DSN(notify=3), TypeError, "notify is a string .* not int"),  # type: ignore[arg-type]
    "ret, a number": (lambda: DSN(ret=3), TypeError, "ret is a string, .* not int"),  # type: ignore[arg-type]
    "envid, a number": (lambda: DSN(envid=5), TypeError, "envid is a string .* not int"),  # type: ignore[arg-type]
    "recipients, None": (lambda: prepare(b"", "", None), TypeError, "recipients is a list .* NoneType is not iterable"),  # type: ignore[arg-type]
    "recipients, bytes": (lambda: prepare(b"", "", b"x"), TypeError, "recipients is a list .* not int, in bytes"),  # type: ignore[arg-type]
    "recipients, of numbers": (lambda: prepare(b"", "", [5]), TypeError, "recipients is a list .* not int, in list"),  # type: ignore[list-item]
    "on_event, a number": (lambda: smarthost(on_event=5), TypeError, "on_event is a function .* not int"),
    "on_event, async": (lambda: smarthost(on_event=async_listener), TypeError, "on_event is an ordinary function"),
    "on_event, async object": (lambda: smarthost(on_event=AsyncListener()), TypeError, "on_event is an ordinary"),
    "on_event of a queue": (lambda: mailrider.Queue(deliver=False, on_event=5), TypeError, "on_event is a function"),  # type: ignore[arg-type]
    "dns, a number": (lambda: smarthost(dns=5), TypeError, "dns is mailrider.DNSSettings.* not int"),
    "host, port 0": (lambda: smarthost(host=["tls://a:0"]), ValueError, "host: expected a port of 1 to 65535"),
    "target, no settings": (
        lambda: mailrider.Queue(target=mailrider.Remote(hostname="a.test")),  # type: ignore[arg-type]
        ValueError,
        r"target: expected the settings of a target, such as RemoteSettings\(\.\.\.\), not <mailrider",
    ),
    "dkim, no list": (
        lambda: mailrider.Remote(hostname="a.test", dkim=mailrider.DKIM("a.test", "s")),  # type: ignore[arg-type]
        TypeError,
        "dkim is a list of signatures",
    ),
    "dkim, None": (lambda: mailrider.Remote(hostname="a.test", dkim=None), TypeError, "dkim is a list of signatures"),  # type: ignore[arg-type]
    "a directive misspelt": (lambda: smarthost(hostnam="x"), TypeError, "'hostnam'; did you mean 'hostname'"),
    "a directive of nowhere": (lambda: smarthost(zzz=1), TypeError, "unknown directive 'zzz'; it may be one of host,"),
}


@pytest.mark.parametrize(("make", "kind", "text"), WRONG_FOR_EVER.values(), ids=WRONG_FOR_EVER)
def test_a_wrong_argument_is_named_with_what_was_expected(
    make: Callable[[], object], kind: type[Exception], text: str
) -> None:
    with pytest.raises(kind, match=text):
        make()
