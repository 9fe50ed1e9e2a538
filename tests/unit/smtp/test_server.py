"""The server machine, in literal dialogues: each whole, octet by octet, in one write, and with more behind it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mailrider.errors import LocalError
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.envelope import Notify, OriginalRecipient, Ret
from mailrider.model.reply import Reply
from mailrider.smtp.capabilities import FULL_OFFER, NO_CAPABILITIES
from mailrider.smtp.commands import (
    Auth,
    AuthResponse,
    Bdat,
    Body,
    Command,
    Connect,
    Data,
    Ehlo,
    EndOfData,
    Mail,
    Noop,
    Quit,
    Rcpt,
    Rset,
)
from mailrider.smtp.parse import parse_command
from mailrider.smtp.replies import encode_reply, encoded, usual_reply
from mailrider.smtp.server import MAX_AUTH_LINE, MAX_BACKLOG, MAX_LINE, ServerMachine
from mailrider.smtp.server_states import ContentChunk, Limits, Rejected, ServerState
from tests.unit.smtp.server_dialogue import EHLO, LAX, Application, Decide, converse, machine_after, run

ENVELOPE = """
C: MAIL FROM:<a@example.org>
C: RCPT TO:<b@example.net>
S: 250 2.1.0 Sender ok
S: 250 2.1.5 Recipient ok
"""

DATA = """
C: DATA
S: 354 Send the message, and a lone dot behind it
"""


def refuse(*kinds: type[Command], code: int = 550, enhanced: str = "5.1.1") -> Decide:
    """An application that refuses these."""
    reply = Reply.make(code, enhanced, "No")
    return lambda command: reply if isinstance(command, kinds) else None


# Messages -------------------------------------------------------------------------------------------------------------


def test_a_message_is_taken() -> None:
    app = converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 Recipient ok
        C: DATA
        S: 354 Send the message, and a lone dot behind it
        C: Subject: hello
        C:
        C: ..leading dot
        C: .
        S: 250 2.0.0 Message accepted
        C: QUIT
        S: 221 2.0.0 Good bye
        """
    )
    (message,) = app.messages
    assert message.mail == Mail(message.mail.sender)
    assert str(message.mail.sender) == "a@example.org"
    assert message.recipients == (Rcpt(Mailbox.parse("b@example.net")),)
    assert message.content == b"Subject: hello\r\n\r\n.leading dot\r\n"
    assert app.machine.state is ServerState.CLOSED
    assert app.machine.client_name == Domain("client.example")


def test_pipelined_commands_are_answered_together() -> None:
    app = converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 354 Send the message, and a lone dot behind it
        C: A: 1
        C: .
        C: MAIL FROM:<>
        C: RCPT TO:<d@example.net>
        C: DATA
        S: 250 2.0.0 Message accepted
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 354 Send the message, and a lone dot behind it
        C: A: 2
        C: .
        C: QUIT
        S: 250 2.0.0 Message accepted
        S: 221 2.0.0 Good bye
        """,
        limits=Limits(),
    )
    first, second = app.messages
    assert [str(rcpt.mailbox) for rcpt in first.recipients] == ["b@example.net", "c@example.net"]
    assert (second.mail.sender, second.content) == (NULL_PATH, b"A: 2\r\n")


def test_an_empty_message_is_a_message() -> None:
    app = converse(
        EHLO
        + ENVELOPE
        + """
        C: DATA
        S: 354 Send the message, and a lone dot behind it
        C: .
        S: 250 2.0.0 Message accepted
        """
    )
    assert app.messages[0].content == b""


def test_every_parameter_arrives_parsed() -> None:
    offer = replace(FULL_OFFER, requiretls=True, auth=frozenset({"PLAIN"}))
    app = Application(ServerMachine(offer))
    app.machine.receive(b"")
    app.run()
    app.machine.receive(b"EHLO client.example\r\n")
    app.run()
    app.machine.receive(
        "mail from:<jörg@example.org> size=1000 body=8bitmime smtputf8 requiretls "
        "ret=hdrs envid=a+2Bb auth=x+3Dy@example.org\r\n"
        'RCPT TO: <"b >c"@example.net>  NOTIFY=success,delay ORCPT=rfc822;o+2B@example.net \r\n'
        "RCPT TO:<@relay.example,@other.example:ü@example.net> NOTIFY=NEVER ORCPT=utf-8;ü\xa0@example.net\r\n"
        "RCPT TO:<Postmaster>\r\n".encode()
    )
    app.run()
    assert app.rejected == []
    mail = app.machine.mail
    assert mail is not None
    assert str(mail.sender) == "jörg@example.org"
    assert mail == Mail(mail.sender, 1000, Body.EIGHT_BIT_MIME, True, True, Ret.HEADERS, "a+b", "x=y@example.org")
    assert app.machine.recipients == [
        Rcpt(
            Mailbox("b >c", Domain("example.net")),
            Notify.SUCCESS | Notify.DELAY,
            OriginalRecipient("rfc822", "o+@example.net"),
        ),
        Rcpt(Mailbox("ü", Domain("example.net")), Notify.NEVER, OriginalRecipient("utf-8", "ü\xa0@example.net")),
        Rcpt(Mailbox("Postmaster", None)),
    ]
    assert app.machine.protocol == "UTF8SMTP"


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("MAIL FROM:<a@example.org> SIZE=x", "501 5.5.4 Bad value for SIZE"),
        ("MAIL FROM:<a@example.org> SIZE", "501 5.5.4 Bad value for SIZE"),
        ("MAIL FROM:<a@example.org> SIZE=123456789012345678901", "501 5.5.4 Bad value for SIZE"),
        ("MAIL FROM:<a@example.org> BODY=BINARYMIME", "501 5.5.4 Bad value for BODY"),
        ("MAIL FROM:<a@example.org> SMTPUTF8=1", "501 5.5.4 Bad value for SMTPUTF8"),
        ("MAIL FROM:<a@example.org> RET=SOME", "501 5.5.4 Bad value for RET"),
        ("MAIL FROM:<a@example.org> ENVID=", "501 5.5.4 Malformed parameter"),
        ("MAIL FROM:<a@example.org> ENVID=a=b", "501 5.5.4 Bad value for ENVID"),
        ("MAIL FROM:<a@example.org> ENVID=" + 101 * "x", "501 5.5.4 Bad value for ENVID"),
        ("MAIL FROM:<a@example.org> ENVID=a+0D+0A", "501 5.5.4 Bad value for ENVID"),
        ("MAIL FROM:<a@example.org> SIZE=1 size=1", "501 5.5.4 SIZE is given twice"),
        ("MAIL FROM:<a@example.org> =1", "501 5.5.4 Malformed parameter"),
        ("MAIL FROM:<a@example.org> X-NEW=1", "555 5.5.4 Parameter X-NEW not recognized"),
        ("MAIL FROM:<a@example.org> REQUIRETLS", "555 5.5.4 REQUIRETLS is not offered"),
        ("MAIL FROM:<a@example.org> AUTH=<>", "555 5.5.4 AUTH is not offered"),
        ("MAIL FROM:<a@example.org> AUTH=a@", "501 5.5.4 Bad value for AUTH"),
        ("MAIL FROM:<a@example.org>SIZE=1", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:a@example.org", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL TO:<a@example.org>", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL", "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ('MAIL FROM:<"a@example.org>', "501 5.5.4 Syntax: MAIL FROM:<address>"),
        ("MAIL FROM:<a@b@c>", "501 5.1.7 Bad sender address syntax"),
        (
            "MAIL FROM:<a@b.example.>",
            "501 5.1.7 Bad sender address syntax: a domain in an address does not end in a dot",
        ),
        ("MAIL FROM:<a.>", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<a>", "501 5.1.7 Bad sender address syntax"),
        ("MAIL FROM:<ä@example.org>", "553 5.6.7 A non-ASCII sender needs SMTPUTF8"),
        ("RCPT TO:<>", "501 5.1.3 Bad recipient address syntax"),
        (
            "RCPT TO:<a@b.example.>",
            "501 5.1.3 Bad recipient address syntax: a domain in an address does not end in a dot",
        ),
        ("RCPT TO:<example.org>", "501 5.1.3 A recipient needs a domain"),
        ("RCPT TO:<a@[1.2.3]>", "501 5.1.3 Bad recipient address syntax"),
        ("RCPT FROM:<a@example.org>", "501 5.5.4 Syntax: RCPT TO:<address>"),
        ("RCPT TO:<a@example.org> NOTIFY=NEVER,DELAY", "501 5.5.4 Bad value for NOTIFY"),
        ("RCPT TO:<a@example.org> ORCPT=a@example.org", "501 5.5.4 Bad value for ORCPT"),
        ("RCPT TO:<a@example.org> SIZE=1", "555 5.5.4 Parameter SIZE not recognized"),
        ("RCPT TO:<ä@example.org>", "553 5.6.7 A non-ASCII recipient needs SMTPUTF8"),
        ("EHLO", "501 5.5.4 Syntax: EHLO host.name"),
        ("HELO not a name", "501 5.5.4 Syntax: HELO host.name"),
        ("EHLO 1.2.3.4.5", "501 5.5.4 Syntax: EHLO host.name"),
        ("LHLO client.example", "500 5.5.1 This is SMTP, say EHLO"),
        ("DATA now", "501 5.5.4 DATA takes no argument"),
        ("VRFY", "501 5.5.4 Syntax: VRFY name"),
        ("HELP ä", "501 5.5.4 Syntax: HELP [topic]"),
        ("AUTH", "501 5.5.4 Syntax: AUTH mechanism"),
        ("AUTH PLAIN a", "501 5.5.2 That is not base64"),
        ("AUTH PLAIN", "502 5.5.1 AUTH is not offered"),
        ("STARTTLS", "502 5.5.1 STARTTLS is not offered"),
        ("EXPN list", "502 5.5.1 EXPN is not implemented"),
        ("FOO", "500 5.5.2 Command not recognized"),
        ("MAıL FROM:<a@example.org>", "500 5.5.2 Command not recognized"),  # in upper case they are ours
        ("RſET", "500 5.5.2 Command not recognized"),
        ("MAIL FROM:<a@example.org> BODY=8BıTMIME", "501 5.5.4 Bad value for BODY"),
        ("MAIL FROM:<a@example.org> RET=HDRſ", "501 5.5.4 Bad value for RET"),
        ("", "500 5.5.2 Command not recognized"),
        (" MAIL FROM:<a@example.org>", "500 5.5.2 Command not recognized"),
        ("NOOP \\0", "500 5.5.2 Control character in a command"),
        ("NOOP \\r", "500 5.5.2 Control character in a command"),
        ("NOOP \t", "500 5.5.2 Control character in a command"),
        ("NOOP \x85", "500 5.5.2 Control character in a command"),
        ("RCPT TO:<a@example.org>\\rRCPT TO:<b@example.org>", "500 5.5.2 Control character in a command"),
    ],
)
def test_what_makes_no_sense_is_refused_in_words(line: str, reply: str) -> None:
    mail = "C: MAIL FROM:<a@example.org>\nS: 250 2.1.0 Sender ok\n" if line[:4] == "RCPT" else ""
    dialogue = f"{EHLO}{mail}C: {line}\nS: {reply}\nC: NOOP\nS: 250 2.0.0 Ok\n"
    # In one write something would stand behind STARTTLS, which is worse than what is asked here.
    app = converse(dialogue, limits=Limits() if line == "STARTTLS" else LAX)
    assert [str(rejected.reply) for rejected in app.rejected] == [reply]


def test_parameters_need_their_extension() -> None:
    converse(
        """
        S: 220 mx.example.org ESMTP
        C: HELO client.example
        S: 250 mx.example.org
        C: MAIL FROM:<a@example.org> SIZE=1
        S: 555 5.5.4 SIZE is not offered
        C: MAIL FROM:<a@example.org> BODY=8BITMIME
        S: 555 5.5.4 BODY is not offered
        C: MAIL FROM:<a@example.org> SMTPUTF8
        S: 555 5.5.4 SMTPUTF8 is not offered
        C: MAIL FROM:<a@example.org> RET=HDRS
        S: 555 5.5.4 RET is not offered
        C: MAIL FROM:<a@example.org> ENVID=1
        S: 555 5.5.4 ENVID is not offered
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@example.net> NOTIFY=NEVER
        S: 555 5.5.4 DSN is not offered
        """
    )


def test_a_line_that_is_not_utf_8_is_refused() -> None:
    machine = machine_after(EHLO)
    machine.receive(b"NOOP \xff\r\nNOOP\r\n")
    app = Application(machine)
    assert app.run() == b"500 5.5.2 Command is neither ASCII nor UTF-8\r\n250 2.0.0 Ok\r\n"


@pytest.mark.parametrize(
    ("name", "parsed"),
    [
        ("client.example", Domain("client.example")),
        ("localhost", Domain("localhost")),
        ("[192.0.2.1]", AddressLiteral.parse("[192.0.2.1]")),
        ("192.0.2.1", AddressLiteral.parse("[192.0.2.1]")),
        ("[IPv6:2001:db8::1]", AddressLiteral.parse("[IPv6:2001:db8::1]")),
        ("ipv6:2001:db8::1", AddressLiteral.parse("[IPv6:2001:db8::1]")),
        ("[::1]", AddressLiteral.parse("[IPv6:::1]")),
        ("bücher.example", Domain.parse("bücher.example")),
    ],
)
def test_a_client_may_call_itself_by_name_or_address(name: str, parsed: object) -> None:
    app = converse(f"S: 220 mx.example.org ESMTP\nC: HELO {name}\nS: 250 mx.example.org\n")
    assert app.machine.client_name == parsed


# Order ----------------------------------------------------------------------------------------------------------------


def test_commands_out_of_order_are_refused() -> None:
    converse(
        """
        S: 220 mx.example.org ESMTP
        C: RSET
        C: NOOP
        C: VRFY someone
        C: HELP
        S: 250 2.0.0 Forgotten
        S: 250 2.0.0 Ok
        S: 252 2.1.5 Send some mail, and it will be tried
        S: 214 2.0.0 See RFC 5321
        C: HELO client.example
        S: 250 mx.example.org
        C: RCPT TO:<b@example.net>
        S: 503 5.5.1 RCPT is out of order: there is no transaction
        C: DATA
        S: 503 5.5.1 DATA is out of order: there is no transaction
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        C: DATA
        S: 554 5.5.1 No valid recipients
        C: MAIL FROM:<c@example.org>
        S: 503 5.5.1 MAIL is out of order: the transaction has no recipient
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 Recipient ok
        C: HELO client.example
        S: 250 mx.example.org
        C: RCPT TO:<b@example.net>
        S: 503 5.5.1 RCPT is out of order: there is no transaction
        """
    )


GREETING = "S: 220 mx.example.org ESMTP\n"
NOT_INTRODUCED = "S: 421 4.7.0 Introduce yourself first; good bye\n"


@pytest.mark.parametrize(
    "line",
    [
        *("MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>", "DATA", "BDAT 4", "STARTTLS", "AUTH PLAIN AGEAYg=="),
        *("MAIL nonsense", "BDAT x", "Host: 127.0.0.1:25", "USER me", "\\0\\0", "x" * 3000),
    ],
)
def test_what_may_not_come_before_ehlo_ends_the_session(line: str) -> None:
    app = converse(f"{GREETING}C: {line}\n{NOT_INTRODUCED}", limits=Limits())
    assert app.machine.state is ServerState.CLOSED


def test_what_comes_behind_it_is_not_even_read() -> None:
    app = converse(f"{GREETING}C: Content-Length: 99\nC: EHLO browser\nC: NOOP\n{NOT_INTRODUCED}")
    assert app.machine.client_name is None


@pytest.mark.parametrize(
    ("line", "reply"),
    [
        ("", "500 5.5.2 Command not recognized"),
        ("EHLO", "501 5.5.4 Syntax: EHLO host.name"),
        ("HELO not a name", "501 5.5.4 Syntax: HELO host.name"),
        ("LHLO client.example", "500 5.5.1 This is SMTP, say EHLO"),
        ("EXPN list", "502 5.5.1 EXPN is not implemented"),
        ("VRFY", "501 5.5.4 Syntax: VRFY name"),
        ("NOOP", "250 2.0.0 Ok"),
    ],
)
def test_who_errs_in_what_is_allowed_before_ehlo_may_try_again(line: str, reply: str) -> None:
    converse(f"{GREETING}C: {line}\nS: {reply}\nC: HELO client.example\nS: 250 mx.example.org\n")


@pytest.mark.parametrize(
    "line",
    ["POST / HTTP/1.1", "get / HTTP/1.0", "PUT /x", "PRI * HTTP/2.0", "OPTIONS *", "NOOP HTTP/1.1", "EHLO / HTTP/1.1"],
)
@pytest.mark.parametrize("before", [GREETING, EHLO, EHLO + ENVELOPE])
def test_a_line_of_http_ends_the_session_wherever_it_comes(line: str, before: str) -> None:
    app = converse(f"{before}C: {line}\nC: EHLO browser\nS: 421 4.7.0 This is no HTTP server; good bye\n")
    assert app.machine.state is ServerState.CLOSED
    assert not app.messages


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("EHLO not a name", "EHLO not a name"),
        ("EHLO " + "x" * 200, "EHLO " + "x" * 95),
        ("AUTH PLAIN secret!", "AUTH"),
        ("AUTH PLAIN \\0", "AUTH"),
        ("AGFubmEAc2VjcmV0", "(no command)"),
        ("POST /secret HTTP/1.1", "POST"),
    ],
)
def test_the_log_is_told_what_was_refused_and_never_a_password(line: str, said: str) -> None:
    app = converse(f"{EHLO}", limits=LAX)
    app.machine.receive(line.replace("\\0", "\0").encode() + b"\r\n")
    app.run()
    (rejected,) = app.rejected
    assert rejected.said == said


def test_rset_and_ehlo_end_the_transaction() -> None:
    for command, reply in (("RSET", "S: 250 2.0.0 Forgotten"), ("EHLO client.example", EHLO.partition("example\n")[2])):
        app = converse(f"{EHLO}{ENVELOPE}C: {command}\n{reply}\n")
        assert (app.machine.mail, app.machine.recipients, app.machine.state) == (None, [], ServerState.READY)


def test_a_refused_mail_makes_what_follows_it_out_of_order() -> None:
    converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 550 5.1.1 No
        S: 503 5.5.1 RCPT is out of order: there is no transaction
        S: 503 5.5.1 DATA is out of order: there is no transaction
        """,
        refuse(Mail),
    )


def test_data_behind_refused_recipients_is_refused() -> None:
    converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 550 5.1.1 No
        S: 554 5.5.1 No valid recipients
        """,
        refuse(Rcpt),
    )


def test_data_behind_refused_recipients_may_be_granted_and_its_end_refused() -> None:
    def decide(command: Command) -> Reply | None:
        if isinstance(command, Data):
            return Reply.make(354, None, "Go on")
        return Reply.make(550, "5.1.1", "No") if isinstance(command, Rcpt) else None

    app = converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 550 5.1.1 No
        S: 354 Go on
        C: .
        S: 554 5.5.1 No valid recipients
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        """,
        decide,
    )
    assert app.messages == []


def foreign(*kinds: type[Command]) -> Decide:
    """An application that refuses these in a language of its own."""
    reply = Reply.make(550, "5.1.1", "F\u00fcr niemanden")
    return lambda command: reply if isinstance(command, kinds) else None


@pytest.mark.parametrize(("parameter", "text"), [("", "F?r niemanden"), (" SMTPUTF8", "F\u00fcr niemanden")])
def test_replies_are_in_utf_8_only_for_a_client_that_said_smtputf8(parameter: str, text: str) -> None:
    converse(
        EHLO
        + f"""
        C: MAIL FROM:<a@example.org>{parameter}
        S: 550 5.1.1 {text}
        """,
        decide=foreign(Mail),
    )
    converse(
        EHLO
        + f"""
        C: MAIL FROM:<a@example.org>{parameter}
        S: 250 2.1.0 Sender ok
        C: RCPT TO:<b@example.net>
        S: 550 5.1.1 {text}
        """,
        decide=foreign(Rcpt),
    )


def test_who_has_no_transaction_gets_no_utf_8() -> None:
    converse(
        EHLO
        + """
        C: NOOP
        S: 550 5.1.1 F?r niemanden
        """,
        decide=foreign(Noop),
    )


def test_a_refused_data_leaves_the_transaction_as_it_was() -> None:
    app = converse(
        f"{EHLO}{ENVELOPE}C: DATA\nS: 451 4.3.0 No\n",
        refuse(Data, code=451, enhanced="4.3.0"),
    )
    assert app.machine.state is ServerState.RCPT


def test_the_final_reply_decides_and_the_session_goes_on() -> None:
    app = converse(
        f"{EHLO}{ENVELOPE}{DATA}C: x\nC: .\nS: 550 5.1.1 No\n{ENVELOPE}",
        refuse(EndOfData),
    )
    assert app.messages == []


def test_a_refused_greeting_leaves_quit_alone() -> None:
    app = converse(
        """
        S: 554 5.1.1 No
        C: EHLO client.example
        S: 503 5.5.1 EHLO is out of order: only QUIT is accepted
        C: QUIT
        S: 221 2.0.0 Good bye
        """,
        refuse(Connect, code=554),
    )
    assert app.machine.state is ServerState.CLOSED


@pytest.mark.parametrize("kind", [Connect, Ehlo, Mail, Rcpt, Data, EndOfData, Rset, Noop, Quit])
def test_a_421_ends_the_session_anywhere(kind: type[Command]) -> None:
    def decide(command: Command) -> Reply | None:
        return Reply.make(421, "4.3.2", "Bye") if isinstance(command, kind) else None

    app = Application(ServerMachine(FULL_OFFER, LAX), decide)
    app.run()
    app.machine.receive(
        b"EHLO c.example\r\nMAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n.\r\nRSET\r\nNOOP\r\nQUIT\r\n"
    )
    assert (b"221 2.0.0" in app.run()) is False
    assert app.machine.state is ServerState.CLOSED
    assert type(app.events[-1]) is kind
    app.machine.receive(b"NOOP\r\n")
    assert app.run() == b""


def test_the_application_may_take_its_leave_at_any_time() -> None:
    machine = machine_after(EHLO + ENVELOPE)
    machine.leave(Reply.make(421, "4.4.2", "Too slow"))
    machine.leave(Reply.make(421, "4.4.2", "Too slow"))
    assert machine.take_output() == b"421 4.4.2 Too slow\r\n"
    assert (machine.state, machine.mail) == (ServerState.CLOSED, None)


def test_an_answer_needs_a_question() -> None:
    machine = machine_after(EHLO)
    with pytest.raises(LocalError):
        machine.answer(Reply.make(250, None, "Ok"))
    with pytest.raises(LocalError):
        machine.tls_established(FULL_OFFER)


def test_one_command_at_a_time_while_the_application_thinks() -> None:
    machine = machine_after(EHLO)
    machine.receive(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\n")
    assert isinstance(machine.next_event(), Mail)
    assert machine.next_event() is None
    machine.receive(b"RCPT TO:<c@example.net>\r\n")
    assert machine.next_event() is None
    assert not machine.is_full
    machine.receive(b"x" * MAX_BACKLOG)
    assert machine.is_full
    machine.answer(Reply.make(250, "2.1.0", "Ok"))
    assert machine.next_event() == Rcpt(Mailbox.parse("b@example.net"))
    machine.answer(Reply.make(250, "2.1.5", "Ok"))
    assert machine.next_event() == Rcpt(Mailbox.parse("c@example.net"))
    machine.answer(Reply.make(250, "2.1.5", "Ok"))
    assert machine.next_event() is None
    assert not machine.is_full


# Chunks ---------------------------------------------------------------------------------------------------------------


def test_a_message_in_chunks() -> None:
    app = converse(
        EHLO
        + ENVELOPE
        + """
        C: BDAT 6
        C: A: 1
        S: 250 2.0.0 Chunk ok
        C: BDAT 0
        C: bdat 5 last
        C> .\\r\\na\\n
        S: 250 2.0.0 Chunk ok
        S: 250 2.0.0 Message accepted
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        """
    )
    assert [message.content for message in app.messages] == [b"A: 1\r\n.\r\na\n"]


def test_a_message_in_pipelined_chunks_that_end_with_nothing() -> None:
    app = converse(
        EHLO
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: BDAT 3
        C> abcBDAT 3
        C:
        C> defBDAT 0 LAST
        C:
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.0.0 Chunk ok
        S: 250 2.0.0 Chunk ok
        S: 250 2.0.0 Message accepted
        """,
        limits=Limits(),
    )
    assert app.messages[0].content == b"abcdef"


def test_the_octets_of_a_chunk_are_taken_even_where_it_has_no_place() -> None:
    app = converse(
        EHLO
        + """
        C: BDAT 7
        C: QUITX
        S: 503 5.5.1 BDAT is out of order: there is no transaction
        C: MAIL FROM:<a@example.org>
        C: BDAT 6 LAST
        C: QUIT
        S: 250 2.1.0 Sender ok
        S: 554 5.5.1 No valid recipients
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 Recipient ok
        """
    )
    assert not any(isinstance(event, ContentChunk) for event in app.events)


def test_a_chunk_is_no_introduction() -> None:
    converse(
        """
        S: 220 mx.example.org ESMTP
        C: BDAT 0 LAST
        S: 421 4.7.0 Introduce yourself first; good bye
        """
    )


def test_the_cr_at_the_end_of_a_chunk_is_not_the_one_of_the_next_line() -> None:
    converse(
        f"{EHLO}{ENVELOPE}C: BDAT 2\nC> x\\r\nC: \\nNOOP\nS: 250 2.0.0 Chunk ok\nS: 500 5.5.2 Line ends in a bare LF\n"
        "S: 250 2.0.0 Ok\n"
    )


@pytest.mark.parametrize("second", [b".\n", b".\0\r\n", b"\0.\r\n"])
def test_a_chunk_cannot_hold_what_data_refuses(second: bytes) -> None:
    machine = machine_after(EHLO + ENVELOPE)
    app = Application(machine)
    first = b"A: 1\r\n\r\nHello\r\n"
    machine.receive(b"BDAT %d\r\n%b" % (len(first), first))
    assert app.run().startswith(b"250 ")
    machine.receive(b"BDAT %d\r\n%bBDAT 3 LAST\r\nabc" % (len(second), second))
    replies = app.run()
    assert replies.startswith(b"554 5.6.0 Not accepted, others may see its end elsewhere: ")
    assert replies.endswith(b"\r\n503 5.5.1 BDAT is out of order: there is no transaction\r\n")
    assert app.messages == []


def test_a_new_message_in_chunks_is_looked_at_anew() -> None:
    machine = machine_after(EHLO + ENVELOPE)
    app = Application(machine)
    machine.receive(b"BDAT 3\r\n.\0aRSET\r\n")
    assert app.run().startswith(b"554 ")
    machine.receive(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nBDAT 5 LAST\r\n.\r\na\n")
    assert app.run().endswith(b"250 2.0.0 Message accepted\r\n")
    assert [each.content for each in app.messages] == [b".\r\na\n"]


def test_chunks_after_a_refused_one_are_dropped() -> None:
    app = converse(
        EHLO
        + ENVELOPE
        + """
        C: BDAT 6
        C: A: 1
        C: BDAT 6 LAST
        C: B: 2
        S: 550 5.1.1 No
        S: 503 5.5.1 BDAT is out of order: there is no transaction
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 Sender ok
        """,
        refuse(Bdat),
    )
    assert app.messages == []


def test_between_chunks_only_chunks_may_come() -> None:
    converse(
        EHLO
        + ENVELOPE
        + """
        C: BDAT 1
        C> xMAIL FROM:<a@example.org>
        C:
        C: RCPT TO:<b@example.net>
        C: NOOP
        S: 250 2.0.0 Chunk ok
        S: 503 5.5.1 MAIL is out of order: further chunks of the message are awaited
        S: 503 5.5.1 RCPT is out of order: further chunks of the message are awaited
        S: 250 2.0.0 Ok
        C: DATA
        S: 503 5.5.1 DATA is out of order: further chunks of the message are awaited
        C: RSET
        S: 250 2.0.0 Forgotten
        """
    )


def test_chunks_are_refused_where_they_are_not_offered() -> None:
    converse(
        """
        S: 220 mx.example.org ESMTP
        C: HELO client.example
        S: 250 mx.example.org
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: BDAT 5
        C> QUIT\\n
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 502 5.5.1 BDAT is not offered
        """
    )


@pytest.mark.parametrize(
    "line", ["BDAT", "BDAT x", "BDAT -1", "BDAT 5 LAST now", "BDAT 5 LAſT", "BDAT 123456789012345678901", "BDAT \\0"]
)
def test_a_malformed_chunk_ends_the_session(line: str) -> None:
    machine = machine_after(EHLO + ENVELOPE)
    machine.receive(line.replace("\\0", "\0").encode() + b"\r\nQUIT\r\n")
    app = Application(machine)
    assert app.run()[:4] in (b"501 ", b"500 ")
    assert machine.state is ServerState.CLOSED


# Sizes and limits -----------------------------------------------------------------------------------------------------

SMALL = replace(FULL_OFFER, max_size=10)
SMALL_EHLO = EHLO.replace("250-SIZE", "250-SIZE 10")


def test_a_message_too_large_is_refused_as_soon_as_it_is_known() -> None:
    app = converse(
        SMALL_EHLO
        + """
        C: MAIL FROM:<a@example.org> SIZE=11
        S: 552 5.3.4 The message is larger than 10 octets
        C: MAIL FROM:<a@example.org> SIZE=10
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 354 Send the message, and a lone dot behind it
        C: 123456789
        C: .
        S: 552 5.3.4 The message is larger than 10 octets
        """
        + ENVELOPE
        + """
        C: DATA
        S: 354 Send the message, and a lone dot behind it
        C: ..2345678
        C: .
        S: 250 2.0.0 Message accepted
        """
        + ENVELOPE
        + """
        C: BDAT 5
        C> 12345
        C: BDAT 6
        C> 123456
        C: BDAT 1 LAST
        C> 1
        S: 250 2.0.0 Chunk ok
        S: 552 5.3.4 The message is larger than 10 octets
        S: 503 5.5.1 BDAT is out of order: there is no transaction
        """
        + ENVELOPE
        + """
        C: BDAT 10 LAST
        C> 1234567890
        S: 250 2.0.0 Message accepted
        """,
        offer=SMALL,
    )
    assert [message.content for message in app.messages] == [b".2345678\r\n", b"1234567890"]
    assert app.machine.state is ServerState.READY


def test_recipients_beyond_the_limit_are_told_to_come_later() -> None:
    app = converse(
        EHLO.replace("250-DSN", "250-DSN\nS: 250-LIMITS MAILMAX=2 RCPTMAX=2")
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: RCPT TO:<d@example.net>
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 452 4.5.3 Too many recipients
        C: RSET
        S: 250 2.0.0 Forgotten
        """
        + ENVELOPE
        + """
        C: RSET
        S: 250 2.0.0 Forgotten
        C: MAIL FROM:<a@example.org>
        S: 421 4.7.0 Too many messages on this connection; good bye
        """,
        offer=replace(FULL_OFFER, max_recipients=2, max_transactions=2),
    )
    assert app.machine.state is ServerState.CLOSED


def test_refused_recipients_count_towards_the_limit() -> None:
    app = Application(
        ServerMachine(FULL_OFFER, Limits(max_recipients=3)),
        refuse(Rcpt),
    )
    run(app, EHLO)
    app.machine.receive(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@example.net>\r\n" * 100)
    replies = app.run().split(b"\r\n")
    assert (replies.count(b"550 5.1.1 No"), replies.count(b"452 4.5.3 Too many recipients")) == (3, 97)
    assert app.machine.state is ServerState.MAIL


def test_a_refused_mail_with_many_pipelined_recipients_is_no_reason_to_part() -> None:
    app = Application(ServerMachine(FULL_OFFER), refuse(Mail))
    run(app, EHLO)
    app.machine.receive(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@example.net>\r\n" * 1000 + b"DATA\r\n")
    assert app.run().count(b"503 5.5.1 RCPT") == 1000
    assert app.machine.state is ServerState.READY


def test_nonsense_has_an_end() -> None:
    app = converse(
        EHLO
        + """
        C: FOO
        C: BAR
        C: BAZ
        C: QUIT
        S: 500 5.5.2 Command not recognized
        S: 500 5.5.2 Command not recognized
        S: 421 4.7.0 Too many errors; good bye
        """,
        limits=Limits(max_errors=2, strict_groups=False),
    )
    assert app.machine.state is ServerState.CLOSED


def test_commands_without_a_message_have_an_end() -> None:
    noop = "C: NOOP\nS: 250 2.0.0 Ok\n"
    farewell = "S: 421 4.7.0 Too many commands without a message; good bye\n"
    converse(
        f"{EHLO}{ENVELOPE}{noop * 3}C: BDAT 1 LAST\nC> x\nS: 250 2.0.0 Message accepted\n"
        f"{ENVELOPE}{noop * 5}C: NOOP\n{farewell}",
        limits=Limits(max_commands=6, strict_groups=False),
    )


def test_chunks_without_content_have_an_end() -> None:
    app = Application(machine_after(EHLO + ENVELOPE, limits=Limits(max_commands=6)))
    app.machine.receive(b"BDAT 0\r\n" * 5)
    assert app.run().endswith(b"421 4.7.0 Too many chunks without content; good bye\r\n")


@pytest.mark.parametrize("size", [1, 100, 1 << 20])
def test_a_line_too_long_is_refused_and_not_kept(size: int) -> None:
    machine = machine_after(EHLO)
    app = Application(machine)
    line = b"NOOP " + b"x" * 100_000 + b"\r\n"
    for start in range(0, len(line), size):
        machine.receive(line[start : start + size])
        assert app.run() in (b"", b"500 5.5.2 Line too long\r\n")
    assert [str(rejected.reply) for rejected in app.rejected] == ["500 5.5.2 Line too long"]
    machine.receive(b"NOOP " + b"x" * (MAX_LINE - 7) + b"\r\n")
    assert app.run() == b"250 2.0.0 Ok\r\n"
    machine.receive(b"NOOP " + b"x" * (MAX_LINE - 6) + b"\r\n")
    assert app.run() == b"500 5.5.2 Line too long\r\n"


def test_an_endless_line_costs_no_memory() -> None:
    machine = machine_after(EHLO)
    for _ in range(1000):
        machine.receive(b"x" * 65536)
        assert machine.next_event() is None
        assert not machine.is_full


# Smuggling ------------------------------------------------------------------------------------------------------------


def test_a_command_ends_in_crlf_alone() -> None:
    app = converse(
        EHLO
        + """
        C> MAIL FROM:<a@example.org>\\nRCPT TO:<b@example.net>\\n
        C: NOOP
        S: 500 5.5.2 Line ends in a bare LF
        S: 500 5.5.2 Line ends in a bare LF
        S: 250 2.0.0 Ok
        C> \\nNOOP
        C:
        S: 500 5.5.2 Line ends in a bare LF
        S: 250 2.0.0 Ok
        """
    )
    assert app.machine.mail is None


@pytest.mark.parametrize(
    "end",
    [
        b"\n.\n",
        b"\n.\r\n",
        b"\n.\r",
        b"\r.\r",
        b"\r.\n",
        b"\r.\r\n",
        b"\r\n.\n",
        b"\r\n.\r",
        b"\r\n.\r\r\n",
        b"\r\r\n.\r\r\n",
        b"\r\n\0.\r\n",
        b"\r\n.\0\r\n",
    ],
)
def test_no_message_is_smuggled_in_another(end: bytes) -> None:
    machine = machine_after(EHLO + ENVELOPE)
    app = Application(machine)
    machine.receive(b"DATA\r\n")
    assert app.run().startswith(b"354")
    machine.receive(b"A: 1\r\n\r\nHello" + end + b"MAIL FROM:<boss@example.org>\r\nDATA\r\nPay me.\r\n.\r\nNOOP\r\n")
    replies = app.run()
    assert replies.startswith(b"554 5.6.0 Not accepted, others may see its end elsewhere: ")
    assert replies.endswith(b"\r\n250 2.0.0 Ok\r\n")
    assert replies.count(b"\r\n") == 2
    assert app.messages == []
    assert b"Pay" not in app.content


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (b"", ServerState.CONNECTED),
        (b"EHLO client.example\r\n", ServerState.FRESH),
        (b"HELO client.example\r\n", ServerState.FRESH),
        (b"DATA\r\n", ServerState.RCPT),
        (b"DATA\r\n", ServerState.READY),
        (b"STARTTLS\r\n", ServerState.READY),
        (b"AUTH PLAIN\r\n", ServerState.READY),
    ],
)
def test_who_does_not_wait_where_he_must_is_sent_away(said: bytes, state: ServerState) -> None:
    offer = replace(FULL_OFFER, starttls=True, auth=frozenset({"PLAIN"}))
    for at_once in (True, False):
        machine = ServerMachine(offer)
        app = Application(machine)
        if state is not ServerState.CONNECTED:
            app.run()
        if state in (ServerState.READY, ServerState.RCPT):
            machine.receive(b"EHLO client.example\r\n")
            app.run()
        if state is ServerState.RCPT:
            machine.receive(b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\n")
            app.run()
        if at_once:
            machine.receive(said + b"X: 1\r\n")
            assert isinstance(machine.next_event(), Rejected)
        elif said[:4] == b"DATA" and state is ServerState.READY:
            continue
        else:
            if said:
                machine.receive(said)
            assert isinstance(machine.next_event(), Command)
            machine.receive(b"X: 1\r\n")
            machine.answer(Reply.make(220, None, "Go on"))
            assert isinstance(machine.next_event(), Rejected)
        assert machine.next_event() is None
        assert machine.take_output() == b"554 5.5.0 You sent commands before my reply; good bye\r\n"
        assert machine.state is ServerState.CLOSED


# TLS and AUTH ---------------------------------------------------------------------------------------------------------

TLS_OFFER = replace(FULL_OFFER, starttls=True)
SECURE_OFFER = replace(FULL_OFFER, requiretls=True, auth=frozenset({"PLAIN", "LOGIN"}))


def after_starttls(limits: Limits = LAX) -> Application:
    app = Application(ServerMachine(TLS_OFFER, limits))
    run(
        app,
        EHLO.replace("250-DSN", "250-DSN\nS: 250-STARTTLS")
        + ENVELOPE
        + "C: STARTTLS\nS: 503 5.5.1 STARTTLS is out of order: there is a transaction already\n"
        + "C: RSET\nS: 250 2.0.0 Forgotten\nC: STARTTLS\nS: 220 2.0.0 Ready for TLS\n",
    )
    assert app.machine.state is ServerState.HANDSHAKE
    return app


def test_the_session_begins_anew_under_tls() -> None:
    app = after_starttls()
    app.machine.tls_established(SECURE_OFFER)
    assert (app.machine.is_secure, app.machine.client_name) == (True, None)
    assert app.machine.extensions is NO_CAPABILITIES
    run(
        app,
        """
        C: NOOP
        S: 250 2.0.0 Ok
        C: EHLO client.example
        S: 250-mx.example.org
        S: 250-PIPELINING
        S: 250-SIZE
        S: 250-8BITMIME
        S: 250-SMTPUTF8
        S: 250-CHUNKING
        S: 250-DSN
        S: 250-REQUIRETLS
        S: 250-AUTH LOGIN PLAIN
        S: 250 ENHANCEDSTATUSCODES
        C: STARTTLS
        S: 502 5.5.1 STARTTLS is not offered
        C: MAIL FROM:<a@example.org> REQUIRETLS AUTH=<>
        S: 250 2.1.0 Sender ok
        """,
    )
    assert app.machine.protocol == "ESMTPS"


@pytest.mark.parametrize("limits", [Limits(), LAX])
def test_text_injected_in_front_of_tls_ends_the_session(limits: Limits) -> None:
    app = after_starttls(limits)
    app.machine.receive(b"RSET\r\n")
    assert app.run() == b"554 5.5.0 You sent commands before my reply; good bye\r\n"
    assert app.machine.state is ServerState.CLOSED
    machine = ServerMachine(TLS_OFFER, limits)
    app = Application(machine)
    app.run()
    machine.receive(b"EHLO client.example\r\n")
    app.run()
    machine.receive(b"STARTTLS\r\nR")
    assert app.run() == b"554 5.5.0 You sent commands before my reply; good bye\r\n"


def test_nothing_is_said_while_the_handshake_is_due() -> None:
    app = after_starttls()
    assert app.machine.next_event() is None
    assert app.machine.take_output() == b""


AUTH_EHLO = EHLO.replace("250-DSN", "250-DSN\nS: 250-AUTH LOGIN PLAIN")


def login(command: Command) -> Reply | None:
    match command:
        case Auth("PLAIN", "AGEAYg=="):
            return Reply.make(235, "2.7.0", "Welcome")
        case Auth("LOGIN"):
            return Reply.make(334, None, "VXNlcm5hbWU6")
        case AuthResponse("YQ=="):
            return Reply.make(334, None, "UGFzc3dvcmQ6")
        case AuthResponse("Yg==") | AuthResponse(""):
            return Reply.make(235, "2.7.0", "Welcome")
        case _:
            return None


@pytest.mark.parametrize(
    "exchange",
    [
        "C: AUTH PLAIN AGEAYg==\nS: 235 2.7.0 Welcome\n",
        "C: auth login\nS: 334 VXNlcm5hbWU6\nC: YQ==\nS: 334 UGFzc3dvcmQ6\nC: Yg==\nS: 235 2.7.0 Welcome\n",
        "C: AUTH LOGIN =\nS: 334 VXNlcm5hbWU6\nC:\nS: 235 2.7.0 Welcome\n",
    ],
)
def test_a_client_authenticates(exchange: str) -> None:
    app = converse(
        f"{AUTH_EHLO}{exchange}C: AUTH PLAIN\nS: 503 5.5.1 You are authenticated already\n",
        login,
        offer=SECURE_OFFER_IN_CLEAR,
    )
    assert app.machine.is_authenticated
    assert app.machine.protocol == "ESMTPA"


SECURE_OFFER_IN_CLEAR = replace(SECURE_OFFER, requiretls=False)


@pytest.mark.parametrize(
    ("exchange", "reply"),
    [
        ("AUTH PLAIN AAAA", "535 5.7.8 Authentication failed"),
        ("AUTH CRAM-MD5", "504 5.5.4 This mechanism is not offered"),
        ("AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: *", "501 5.7.0 Authentication cancelled"),
        ("AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: !", "501 5.5.2 That is not base64"),
        ("AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: AAAA", "535 5.7.8 Authentication failed"),
        ("AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: \\0", "500 5.5.2 Control character in a command"),
        ("AUTH LOGIN\nS: 334 VXNlcm5hbWU6\nC: " + "A" * MAX_AUTH_LINE, "500 5.5.2 Line too long"),
    ],
)
def test_an_exchange_that_failed_is_over(exchange: str, reply: str) -> None:
    app = converse(f"{AUTH_EHLO}C: {exchange}\nS: {reply}\n{ENVELOPE}", login, offer=SECURE_OFFER_IN_CLEAR)
    assert not app.machine.is_authenticated


def test_auth_has_no_place_in_a_transaction() -> None:
    converse(
        f"{AUTH_EHLO}{ENVELOPE}C: AUTH PLAIN\nS: 503 5.5.1 AUTH is out of order: there is a transaction already\n",
        login,
        offer=SECURE_OFFER_IN_CLEAR,
    )


def test_auth_in_clear_is_refused_where_tls_is_to_come_first() -> None:
    machine = machine_after(EHLO.replace("250-DSN", "250-DSN\nS: 250-STARTTLS"), offer=TLS_OFFER)
    machine.receive(b"AUTH PLAIN AGEAYg==\r\n")
    assert Application(machine).run() == b"538 5.7.11 AUTH is offered under TLS only\r\n"


def test_secrets_are_never_shown_and_never_kept() -> None:
    machine = machine_after(AUTH_EHLO, offer=SECURE_OFFER_IN_CLEAR)
    machine.receive(b"AUTH PLAIN AGEAYg==\r\n")
    assert "AGEAYg" not in repr(machine.next_event())
    for line, is_kept in ((b"AUTH PLAIN AGEAYg==", False), (b"auth PLAIN AGEAYg==", False), (b"HELP", True)):
        assert (parse_command(line) is parse_command(line)) is is_kept


# LMTP -----------------------------------------------------------------------------------------------------------------

LHLO = EHLO.replace("EHLO", "LHLO").replace("ESMTP", "LMTP")


def test_lmtp_answers_for_each_recipient() -> None:
    machine = ServerMachine(FULL_OFFER, LAX, lmtp=True)
    app = Application(machine)
    run(
        app,
        LHLO
        + """
        C: EHLO client.example
        S: 500 5.5.1 This is LMTP, say LHLO
        C: MAIL FROM:<a@example.org>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 554 5.5.1 No valid recipients
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 354 Send the message, and a lone dot behind it
        """,
    )
    assert machine.protocol == "LMTP"
    machine.receive(b"A: 1\r\n.\r\nNOOP\r\n")
    assert machine.next_event() == ContentChunk(b"A: 1\r\n")
    assert machine.next_event() == EndOfData(2)
    assert machine.answers_due == 2
    machine.answer(Reply.make(250, "2.0.0", "Ok"))
    assert (machine.next_event(), machine.state) == (None, ServerState.DATA)
    machine.answer(Reply.make(552, "5.2.2", "Full"))
    assert machine.take_output() == b"250 2.0.0 Ok\r\n552 5.2.2 Full\r\n"
    assert machine.next_event() == Noop()


def test_lmtp_answers_for_each_recipient_of_chunks_and_of_what_it_refuses() -> None:
    app = converse(
        LHLO.replace("SIZE", "SIZE 10")
        + """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: BDAT 1
        C> xBDAT 1 LAST
        C:
        C> y
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.0.0 Chunk ok
        S: 250 2.0.0 Message accepted
        S: 250 2.0.0 Message accepted
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 2.1.0 Sender ok
        S: 250 2.1.5 Recipient ok
        S: 250 2.1.5 Recipient ok
        S: 354 Send the message, and a lone dot behind it
        C: 12345678901
        C: .
        S: 552 5.3.4 The message is larger than 10 octets
        S: 552 5.3.4 The message is larger than 10 octets
        """,
        offer=SMALL,
        lmtp=True,
    )
    assert [message.content for message in app.messages] == [b"xy"]


def test_the_word_for_received() -> None:
    machine = ServerMachine(FULL_OFFER, secure=True)
    assert machine.protocol == "SMTPS"


def test_replies_that_are_kept_ready_are_the_octets_of_their_own() -> None:
    machine = machine_after(EHLO)
    for command in (Noop(), Rset(), Quit(), Data(), EndOfData(), Bdat(1, last=True), AuthResponse("*")):
        reply = usual_reply(machine, command, "mx.test")
        assert encoded(reply) == encode_reply(reply) == encoded(Reply(reply.code, reply.enhanced, reply.lines))
