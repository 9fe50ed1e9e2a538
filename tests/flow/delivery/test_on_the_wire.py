"""What exactly is said to a server, and what exactly arrives."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.mx_script import Close, MXScript, Stage
from mailrider.model.event import Dialogue
from mailrider.smtp.capabilities import FULL_OFFER, Capabilities
from tests.flow.delivery.internet import MESSAGE, internet, outcome, stages
from tests.support.loops import eventually

if TYPE_CHECKING:
    from mailrider.app.submission import Result

NOTHING = Capabilities()
EIGHT_BIT = "Subject: grüße\r\n\r\nä\r\n".encode("latin-1")
UTF8_HEADER = "Subject: grüße\r\n\r\nhello\r\n".encode()
UTF8_BODY = "Subject: hello\r\n\r\ngrüße\r\n".encode()


class Heard:
    """One delivery: what the client said, line by line, its result, and what was stored."""

    def __init__(self, lines: list[str], result: Result, stored: bytes | None) -> None:
        self.lines = lines
        self.result = result
        self.stored = stored

    def line(self, verb: str) -> str:
        """The only line that begins so."""
        (line,) = (line for line in self.lines if line.startswith(verb))
        return line


async def hear(
    script: MXScript | Capabilities,
    message: bytes = MESSAGE,
    recipient: str = "x@a.test",
    sender: str = "s@client.test",
    *,
    directives: dict[str, Any] | None = None,
    **arguments: Any,
) -> Heard:
    """Deliver a message to a server with that script, or that offers that, and listen."""
    script = script if isinstance(script, MXScript) else MXScript(offer=script)
    async with internet({"a.test": [script]}, directives=directives or {}) as net:
        (result,) = await net.remote.send(message, sender, [recipient], **arguments)
        server = net.mx("a.test")
        said = server.connections[0].said().decode("utf-8", "backslashreplace")
        return Heard(said.split("\r\n"), result, server.messages[0].content if server.messages else None)


# Parameters -----------------------------------------------------------------------------------------------------------


async def test_a_server_that_offers_nothing_is_told_nothing() -> None:
    heard = await hear(NOTHING, EIGHT_BIT, dsn=mailrider.DSN("SUCCESS", "FULL", "id"))
    assert heard.lines[:5] == [
        "EHLO client.test",
        "MAIL FROM:<s@client.test>",
        "RCPT TO:<x@a.test>",
        "DATA",
        "Subject: gr\\xfc\\xdfe",
    ]


async def test_size_is_counted_after_mending_and_before_stuffing() -> None:
    heard = await hear(Capabilities(size=True), b"Subject: x\n\n.dot\n.dot")
    assert heard.line("MAIL") == "MAIL FROM:<s@client.test> SIZE=26"
    assert heard.stored == b"Subject: x\r\n\r\n.dot\r\n.dot\r\n"
    assert len(heard.stored) == 26


@pytest.mark.parametrize(
    ("offer", "message", "body"),
    [
        (Capabilities(eight_bit_mime=True), EIGHT_BIT, " BODY=8BITMIME"),
        (Capabilities(eight_bit_mime=True), MESSAGE, ""),
        (NOTHING, EIGHT_BIT, ""),
    ],
    ids=["offered and needed", "not needed", "not offered"],
)
async def test_body_is_said_where_it_is_offered_and_needed(offer: Capabilities, message: bytes, body: str) -> None:
    heard = await hear(offer, message)
    assert heard.line("MAIL") == f"MAIL FROM:<s@client.test>{body}"
    assert heard.stored == message


SMTPUTF8 = Capabilities(smtputf8=True, eight_bit_mime=True)


@pytest.mark.parametrize(
    ("sender", "recipient", "message", "needed"),
    [
        ("s@client.test", "x@a.test", MESSAGE, False),
        ("ü@client.test", "x@a.test", MESSAGE, True),
        ("s@client.test", "ü@a.test", MESSAGE, True),
        ("s@client.test", "x@a.test", UTF8_HEADER, False),
    ],
    ids=["ASCII", "sender", "recipient", "a UTF-8 header in a message that was not submitted so"],
)
async def test_smtputf8_is_said_where_an_address_needs_it(
    sender: str, recipient: str, message: bytes, needed: bool
) -> None:
    heard = await hear(SMTPUTF8, message, recipient, sender)
    assert ("SMTPUTF8" in heard.line("MAIL")) is needed
    assert heard.result.status == "delivered"


async def test_smtputf8_is_said_for_a_header_that_was_submitted_so() -> None:
    heard = await hear(SMTPUTF8, UTF8_HEADER, smtputf8=True)
    assert heard.line("MAIL") == "MAIL FROM:<s@client.test> BODY=8BITMIME SMTPUTF8"
    ascii_only = await hear(SMTPUTF8, UTF8_BODY, smtputf8=True)
    assert ascii_only.line("MAIL") == "MAIL FROM:<s@client.test> BODY=8BITMIME"


async def test_dsn_parameters_are_said_in_full() -> None:
    offer = Capabilities(dsn=True)
    heard = await hear(offer, dsn=mailrider.DSN("FAILURE,DELAY", "HDRS", "id with = and +"), recipient="x+y@a.test")
    assert heard.line("MAIL") == "MAIL FROM:<s@client.test> RET=HDRS ENVID=id+20with+20+3D+20and+20+2B"
    assert heard.line("RCPT") == "RCPT TO:<x+y@a.test> NOTIFY=FAILURE,DELAY ORCPT=rfc822;x+2By@a.test"
    never = await hear(offer, dsn=mailrider.DSN("never"))
    assert never.line("RCPT") == "RCPT TO:<x@a.test> NOTIFY=NEVER"


async def test_without_wishes_nothing_is_said_of_dsns() -> None:
    heard = await hear(Capabilities(dsn=True))
    assert (heard.line("MAIL"), heard.line("RCPT")) == ("MAIL FROM:<s@client.test>", "RCPT TO:<x@a.test>")


async def test_the_original_recipient_of_an_internationalized_address_is_utf8() -> None:
    heard = await hear(replace(SMTPUTF8, dsn=True), recipient="ü@a.test", dsn=mailrider.DSN("FAILURE"))
    assert heard.line("RCPT") == "RCPT TO:<ü@a.test> NOTIFY=FAILURE ORCPT=utf-8;\\x{FC}@a.test"


# How the content goes -------------------------------------------------------------------------------------------------


async def test_without_pipelining_each_command_waits_for_the_reply_before_it() -> None:
    async with internet({"a.test": [MXScript(offer=NOTHING)]}) as net:
        await net.send("x@a.test", "y@a.test")
        said = net.mx("a.test").connections[0].transcript
    turns = "".join(each.who for each in said)
    assert "CC" not in turns
    assert turns.startswith("SCSCSCSCSCSCS")  # greeting, EHLO, MAIL, RCPT, RCPT, DATA, content


async def test_with_pipelining_a_group_goes_at_once() -> None:
    async with internet({"a.test": [MXScript(offer=Capabilities(pipelining=True))]}) as net:
        await net.send("x@a.test", "y@a.test")
        said = [each.octets for each in net.mx("a.test").connections[0].transcript if each.who == "C"]
    assert said[1] == b"MAIL FROM:<sender@client.test>\r\nRCPT TO:<x@a.test>\r\nRCPT TO:<y@a.test>\r\nDATA\r\n"


async def test_with_chunking_bdat_waits_for_an_accepted_recipient() -> None:
    chunking = Capabilities(pipelining=True, chunking=True)
    async with internet({"a.test": [MXScript(offer=chunking)]}) as net:
        await net.send("x@a.test")
        said = [each.octets for each in net.mx("a.test").connections[0].transcript if each.who == "C"]
        assert said[1:3] == [
            b"MAIL FROM:<sender@client.test>\r\nRCPT TO:<x@a.test>\r\n",
            b"BDAT %d LAST\r\n%s" % (len(MESSAGE), MESSAGE),
        ]
    nobody = MXScript(offer=chunking, replies={Stage.RCPT: "550 5.1.1 Nobody"})
    async with internet({"a.test": [nobody]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 550, "5.1.1")
        assert b"BDAT" not in net.mx("a.test").connections[0].said()


CONTENTS = {
    "as it is": (b"Subject: x\r\n\r\nhello\r\n", b"Subject: x\r\n\r\nhello\r\n"),
    "dots": (b"Subject: x\r\n\r\n.\r\n..\r\n.x\r\n", b"Subject: x\r\n\r\n.\r\n..\r\n.x\r\n"),
    "bare LF": (b"Subject: x\n\n.\none\n\n", b"Subject: x\r\n\r\n.\r\none\r\n\r\n"),
    "bare CR in the body": (b"Subject: x\r\n\r\none\rtwo\r\r\n", b"Subject: x\r\n\r\none\r\ntwo\r\n\r\n"),
    "bare CR in the header": (b"Subject: x\rEvil: y\r\n\r\none\r\n", b"Subject: x Evil: y\r\n\r\none\r\n"),
    "no final line end": (b"Subject: x\r\n\r\nend", b"Subject: x\r\n\r\nend\r\n"),
    "a final CR": (b"Subject: x\r\n\r\nend\r", b"Subject: x\r\n\r\nend\r\n"),
    "a smuggled end": (
        b"Subject: x\r\n\r\na\n.\nMAIL FROM:<e@v.il>\r\n",
        b"Subject: x\r\n\r\na\r\n.\r\nMAIL FROM:<e@v.il>\r\n",
    ),
    "a header alone": (b"Subject: x\r\n", b"Subject: x\r\n"),
    "8-bit": (EIGHT_BIT, EIGHT_BIT),
    "NUL": (b"Subject: x\r\n\r\na\0b\r\n", b"Subject: x\r\n\r\na\0b\r\n"),
    "empty": (b"", b""),
    "long lines": (b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n",) * 2,
    "a dot at every chunk's border": (b"Subject: x\n\n" + b".\n" * 200_000, b"Subject: x\r\n\r\n" + b".\r\n" * 200_000),
}


@pytest.mark.parametrize("chunking", [False, True], ids=["DATA", "BDAT"])
@pytest.mark.parametrize(("given", "arrives"), CONTENTS.values(), ids=CONTENTS)
async def test_content_arrives_byte_for_byte_its_line_ends_mended(given: bytes, arrives: bytes, chunking: bool) -> None:
    heard = await hear(replace(FULL_OFFER, chunking=chunking), given)
    assert heard.stored == arrives


# What a server cannot be asked ----------------------------------------------------------------------------------------


async def refused(offer: Capabilities, message: bytes = MESSAGE, **more: Any) -> tuple[str, int, str]:
    """The outcome; nothing of the message was sent."""
    heard = await hear(offer, message, **more)
    assert heard.stored is None
    assert not any(line.startswith(("DATA", "BDAT")) for line in heard.lines)
    return outcome(heard.result)


async def test_a_message_over_an_announced_size_fails_534_without_being_sent() -> None:
    size = len(b"Subject: x\r\n\r\n1\r\n2\r\n")
    small, exact, none = (Capabilities(size=True, max_size=each) for each in (size - 1, size, None))
    assert await refused(small, b"Subject: x\n\n1\n2") == ("failed", 552, "5.3.4")
    assert (await hear(exact, b"Subject: x\n\n1\n2")).result.status == "delivered"
    assert (await hear(none, b"Subject: x\n\n1\n2")).result.status == "delivered"


async def test_8_bit_content_is_sent_as_it_is_or_fails_563_if_strict() -> None:
    assert (await hear(NOTHING, EIGHT_BIT)).stored == EIGHT_BIT
    strict = {"eight_bit": "strict"}
    assert await refused(NOTHING, EIGHT_BIT, directives=strict) == ("failed", 554, "5.6.3")
    assert (await hear(NOTHING, MESSAGE, directives=strict)).result.status == "delivered"
    assert (await hear(Capabilities(eight_bit_mime=True), EIGHT_BIT, directives=strict)).stored == EIGHT_BIT


async def test_without_smtputf8_domains_go_in_a_labels() -> None:
    async with internet({"xn--bcher-kva.test": [MXScript(offer=NOTHING)]}) as net:
        (result,) = await net.remote.send(MESSAGE, "s@bücher.example", ["x@bücher.test"])
        said = net.mx("xn--bcher-kva.test").connections[0].said()
    assert b"MAIL FROM:<s@xn--bcher-kva.example>\r\n" in said
    assert b"RCPT TO:<x@xn--bcher-kva.test>\r\n" in said
    assert result.status == "delivered"


async def test_without_smtputf8_a_non_ascii_recipient_fails_567_and_the_others_go_on() -> None:
    async with internet({"a.test": [MXScript(offer=NOTHING)]}) as net:
        utf8, plain = await net.send("ü@a.test", "x@a.test")
        assert net.mx("a.test").messages[0].addresses == ["x@a.test"]
    assert (outcome(utf8), plain.status) == (("failed", 553, "5.6.7"), "delivered")


async def test_without_smtputf8_a_non_ascii_sender_fails_567() -> None:
    assert await refused(NOTHING, sender="ü@client.test") == ("failed", 550, "5.6.7")


async def test_without_smtputf8_a_utf8_header_that_was_submitted_so_fails_569() -> None:
    assert await refused(NOTHING, UTF8_HEADER, smtputf8=True) == ("failed", 554, "5.6.9")
    assert (await hear(NOTHING, UTF8_BODY, smtputf8=True)).result.status == "delivered"
    assert (await hear(NOTHING, UTF8_HEADER, smtputf8=False)).stored == UTF8_HEADER


async def test_a_header_in_latin1_is_sent_as_it_always_was() -> None:
    latin = UTF8_HEADER.decode().encode("latin-1")
    for offer in (NOTHING, SMTPUTF8):
        heard = await hear(offer, latin, smtputf8=True)
        assert (heard.result.status, heard.stored) == ("delivered", latin)
        assert "SMTPUTF8" not in heard.line("MAIL")


# Replies under pipelining ---------------------------------------------------------------------------------------------

PIPELINING = Capabilities(pipelining=True)


async def test_a_refused_mail_decides_all_and_what_follows_it_is_ignored() -> None:
    replies = {Stage.MAIL: "550 5.7.1 Not you", Stage.RCPT: "503 5.5.1 MAIL first", Stage.DATA: "503 5.5.1 MAIL first"}
    heard = await hear(MXScript(offer=PIPELINING, replies=replies))
    assert outcome(heard.result) == ("failed", 550, "5.7.1")


async def test_a_refused_data_decides_only_those_that_rcpt_accepted() -> None:
    script = MXScript(
        offer=PIPELINING,
        recipients={"no@a.test": "550 5.1.1 Nobody", "later@a.test": "450 4.2.1 Later"},
        replies={Stage.DATA: "554 5.7.1 No data today"},
    )
    async with internet({"a.test": [script]}) as net:
        report = await net.send("no@a.test", "yes@a.test", "later@a.test")
    assert [outcome(result) for result in report] == [
        ("failed", 550, "5.1.1"),
        ("failed", 554, "5.7.1"),
        ("deferred", 450, "4.2.1"),
    ]


async def test_a_consent_that_nobody_is_left_for_is_answered_by_a_lone_dot_on_a_connection_not_used_again() -> None:
    script = MXScript(offer=PIPELINING, replies={Stage.RCPT: ["550 5.1.1 Nobody"], Stage.DATA: ["354 Go on"]})
    async with internet({"a.test": [script]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 550, "5.1.1")
        said = net.mx("a.test").connections[0].said
        await eventually(lambda: said().endswith(b"DATA\r\n.\r\n"))
        assert (await net.send_one("x@a.test")).status == "delivered"
        assert net.mx("a.test").opened == 2


async def test_a_lone_dot_that_ends_the_connection_costs_those_beyond_the_limit_nothing() -> None:
    script = MXScript(
        offer=Capabilities(pipelining=True, max_recipients=1),
        replies={Stage.RCPT: ["550 5.1.1 Nobody"], Stage.DATA: ["354 Go on"], Stage.END: [Close()]},
    )
    async with internet({"a.test": [script]}) as net:
        report = await net.send("x@a.test", "y@a.test")
        assert net.mx("a.test").opened == 2
    assert [outcome(result) for result in report] == [("failed", 550, "5.1.1"), ("delivered", 250, "2.0.0")]
    assert stages(report[1]) == ["delivered"]


async def test_a_refused_chunk_decides() -> None:
    message = b"Subject: x\r\n\r\n" + b"y" * (5 * 1024 * 1024) + b"\r\n"
    heard = await hear(MXScript(replies={Stage.BDAT: "552 5.3.4 Too much"}), message)
    assert outcome(heard.result) == ("failed", 552, "5.3.4")
    assert not any("LAST" in line for line in heard.lines)


# The log --------------------------------------------------------------------------------------------------------------


async def test_debug_shows_the_dialogue_without_the_content() -> None:
    async with internet({"a.test": [MXScript(offer=PIPELINING)]}, directives={"debug": True}) as net:
        await net.send_one("x@a.test", b"Subject: secret\r\n\r\nsecret\r\n")
    lines = [f"{event.direction}: {event.line}" for event in net.events if isinstance(event, Dialogue)]
    assert lines[0].startswith("S: 220 ")
    assert "C: EHLO client.test" in lines
    assert "C: MAIL FROM:<sender@client.test>" in lines
    assert "C: RCPT TO:<x@a.test>" in lines
    assert "S: 250 PIPELINING" in lines
    assert "C: QUIT" in lines
    assert not any("secret" in line for line in lines)


async def test_without_debug_the_dialogue_is_not_even_told() -> None:
    async with internet({"a.test": [MXScript()]}) as net:
        await net.send_one("x@a.test")
    assert not any(isinstance(event, Dialogue) for event in net.events)
