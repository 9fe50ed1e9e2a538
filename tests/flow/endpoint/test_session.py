"""Clients of an endpoint, honest and hostile: what is taken, what is refused, and what it may cost us."""

from __future__ import annotations

import asyncio
import base64
import os
import re
import smtplib
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.endpoint.intake import INLINE, Memory
from mailrider.endpoint.listener import TELL_AGAIN, ConnectionLimits
from mailrider.endpoint.logins import OF_USER, Logins
from mailrider.endpoint.message import MAX_MENDED
from mailrider.endpoint.transaction import FEW
from mailrider.header.fields import MAX_HEADER
from mailrider.lab.ca import CA
from mailrider.model.address import Mailbox
from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import (
    ClientCutOff,
    ClientTurnedAway,
    EndpointClosed,
    LoginFailed,
    LoginHeldBack,
    MailMended,
    MailRefused,
    MailTaken,
)
from mailrider.model.envelope import Notify, Ret
from mailrider.model.event import Bug
from mailrider.model.reply import Reply
from mailrider.settings.socket_address import Scheme
from mailrider.smtp.sasl import Credentials
from mailrider.testing.clock import FakeClock
from tests.flow.endpoint.running_endpoint import (
    HOST,
    MESSAGE,
    Client,
    RunningEndpoint,
    Sink,
    run_endpoint,
    server_context,
)
from tests.support.loops import eventually

if TYPE_CHECKING:
    from datetime import datetime
    from pathlib import Path

    from mailrider.model.address import ReversePath

SECRET = base64.b64encode(b"\0anna\0open sesame").decode()
WRONG = base64.b64encode(b"\0anna\0wrong").decode()


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture
def tls(ca: CA, tmp_path: Path) -> ssl.SSLContext:
    return server_context(ca, tmp_path)


class OnePassword:
    """Knows one password."""

    async def verify(self, credentials: Credentials) -> bool | Reply:
        if credentials.user == "later":
            return Reply.make(454, "4.7.0", "Later")
        return (credentials.user, credentials.password) == ("anna", "open sesame")


def _failed_logins(running: RunningEndpoint, least: int) -> bool:
    return len(running.noted(LoginFailed)) >= least


def _holds(running: RunningEndpoint, least: int) -> bool:
    return Memory().left - running.memory.left >= least


# Messages -------------------------------------------------------------------------------------------------------------


# https://github.com/nmap/nmap/issues/1229: `printf ... | nc -N`, and whoever else closes his half when he has said all


class BrokenDates(SystemClock):
    """A clock that does not know the date."""

    is_broken = True

    def now(self) -> datetime:
        if self.is_broken:
            raise RuntimeError("oops")
        return super().now()


async def test_who_has_said_all_and_closes_his_half_hears_that_his_message_is_taken() -> None:
    sink = Sink(gate=asyncio.Event())
    async with run_endpoint(sink=sink) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n")
        assert await client.hear_codes(3) == [250, 250, 354]
        await client.say(MESSAGE + b".\r\n")
        client.writer.write_eof()
        await eventually(lambda: sink.started == 1)
        await asyncio.sleep(0.05)  # the end has arrived, too
        assert sink.gate is not None
        sink.gate.set()
        assert await client.rest() == b"250 2.0.0 Queued as 1 [id1]\r\n"
    assert len(sink.taken) == 1


async def test_who_closes_his_half_before_the_final_dot_has_sent_nothing() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n" + MESSAGE)
        client.writer.write_eof()
        assert (await client.rest()).count(b"\r\n") == 3
        await eventually(lambda: running.endpoint.connections == 0)
    assert not running.sink.taken


async def test_a_half_closed_connection_does_not_wait_for_tls(tls: ssl.SSLContext) -> None:
    async with run_endpoint(tls=tls) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"STARTTLS\r\n")
        client.writer.write_eof()
        assert (await client.rest()).startswith(b"220 ")
        await eventually(lambda: running.endpoint.connections == 0)


async def test_a_whole_dialogue_in_a_pipe_is_answered_on_a_unix_socket(tmp_path: Path) -> None:
    async with run_endpoint(scheme=Scheme.UNIX, path=tmp_path / "sock", is_submission=True) as running:
        client = running.known(Client(*await asyncio.open_unix_connection(str(tmp_path / "sock"))))
        lines = b"EHLO x\r\nMAIL FROM:<a@example.org>\r\nRCPT TO:<b@example.net>\r\nDATA\r\n"
        await client.say(lines + MESSAGE + b".\r\nQUIT\r\n")
        client.writer.write_eof()
        replies = await client.rest()
    assert (replies[:4], replies.splitlines()[-1][:4]) == (b"220 ", b"221 ")
    assert len(running.sink.taken) == 1


async def test_a_stock_client_hands_in_a_message_and_its_way_is_written_on_top() -> None:
    async with run_endpoint() as running:

        def send() -> None:
            with smtplib.SMTP(HOST, running.port, local_hostname="client.example") as client:
                client.sendmail("a@example.org", ["b@example.net", "c@example.net"], MESSAGE, ["BODY=8BITMIME"])

        await asyncio.to_thread(send)
        ((envelope, octets),) = running.sink.taken
        assert (str(envelope.sender), [str(each) for each in envelope.recipients], envelope.client) == (
            "a@example.org",
            ["b@example.net", "c@example.net"],
            HOST,
        )
        received, rest = octets[: octets.index(b"From: ")], octets[octets.index(b"From: ") :]
        assert rest == MESSAGE
        assert re.fullmatch(
            rb"Received: from client\.example \(\[127\.0\.0\.1\]\)\r\n"
            rb"\tby mx\.here\.test with ESMTP id id1;\r\n\t\w{3}, \d\d \w{3} \d{4} \d\d:\d\d:\d\d \+0000\r\n",
            received,
        )


async def test_the_parameters_of_mail_and_rcpt_are_in_the_envelope() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        await client.say(
            "MAIL FROM:<ä@example.org> SMTPUTF8 RET=HDRS ENVID=e+2Bv\r\n"
            "RCPT TO:<ü@example.net> NOTIFY=DELAY ORCPT=rfc822;x@example.com\r\nDATA\r\n".encode()
        )
        assert await client.hear_codes(3) == [250, 250, 354]
        await client.say(MESSAGE + b".\r\n")
        assert await client.hear_codes(1) == [250]
        envelope, octets = running.sink.taken[0]
        (recipient,) = envelope.recipients
        assert (envelope.smtputf8, envelope.ret, envelope.envid) == (True, Ret.HEADERS, "e+v")
        assert (recipient.notify, recipient.original is not None) == (Notify.DELAY, True)
        assert "with UTF8SMTP id id1\r\n\tfor <ü@example.net>;".encode() in octets


async def wishes(running: RunningEndpoint, client: Client, notify: str) -> tuple[Ret | None, Notify | None]:
    """What is left of RET=FULL and of a NOTIFY."""
    await client.ask("MAIL FROM:<a@example.org> RET=FULL")
    await client.ask(f"RCPT TO:<b@example.net> NOTIFY={notify}")
    await client.ask("DATA")
    await client.ask(MESSAGE.decode() + ".")
    envelope, _ = running.sink.taken[-1]
    return envelope.ret, envelope.recipients[0].notify


STRANGERS_WISHES = [
    ("SUCCESS,FAILURE", Notify.FAILURE),
    ("SUCCESS", Notify.NEVER),
    ("FAILURE,DELAY", Notify.FAILURE | Notify.DELAY),
    ("NEVER", Notify.NEVER),
]


@pytest.mark.parametrize(("notify", "left"), STRANGERS_WISHES)
async def test_a_stranger_cannot_have_a_whole_text_or_news_of_success_sent_to_somebody_else(
    notify: str, left: Notify
) -> None:
    async with run_endpoint() as running:  # an `smtp` endpoint, though the client is on this machine
        client = await running.client()
        await client.hello()
        assert await wishes(running, client, notify) == (Ret.HEADERS, left)


async def test_a_program_of_this_machine_may_ask_for_all_of_it_when_it_submits() -> None:
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        assert await wishes(running, client, "SUCCESS") == (Ret.FULL, Notify.SUCCESS)


async def test_who_has_logged_in_may_too() -> None:
    async with run_endpoint(authenticator=OnePassword()) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask(f"AUTH PLAIN {SECRET}"))[:3] == "235"
        assert await wishes(running, client, "SUCCESS") == (Ret.FULL, Notify.SUCCESS)


async def test_a_large_message_in_chunks_arrives_whole_and_leaves_nothing_behind(tmp_path: Path) -> None:
    body = b"".join(b"%08d\r\n" % number for number in range(INLINE // 5))
    async with run_endpoint(spool=tmp_path) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@example.net>\r\n")
        assert await client.hear_codes(2) == [250, 250]
        for part in (b"Subject: x\r", b"\n\r\n" + body[:100_001], body[100_001:]):
            await client.say(b"BDAT %d\r\n%b" % (len(part), part))
            assert await client.hear_codes(1) == [250]
        assert (await client.ask("BDAT 0 LAST"))[:3] == "250"
        ((envelope, octets),) = running.sink.taken
        assert envelope.sender.is_null
        assert octets.endswith(b"Subject: x\r\n\r\n" + body)
        assert list(tmp_path.iterdir()) == []
        assert running.memory.left == Memory().left


@pytest.mark.parametrize("size", [INLINE - 400, INLINE - 100, INLINE, INLINE + 1, 3 * INLINE])
async def test_content_of_any_size_is_what_was_sent(size: int) -> None:
    content = b"Subject: x\r\n\r\n" + b"y" * (size - 16) + b"\r\n"
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        for _ in range(2):
            assert (await client.send(content)).startswith("250 2.0.0 Queued as 1")
        assert [octets.endswith(content) for _, octets in running.sink.taken] == [True, True]


async def test_a_submission_gets_its_date_and_id_and_loses_bcc() -> None:
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(b"Bcc: c@example.net,\r\n d@example.net\r\nSubject: x\r\nbcc:e\r\n\r\nBcc: f\r\n"))[
            :3
        ] == "250"
        _, octets = running.sink.taken[0]
        header, _, body = octets.partition(b"\r\n\r\n")
        assert body == b"Bcc: f\r\n"
        assert b"cc" not in header.replace(b"\r\n\t", b" ")
        assert b"Message-ID: <id1@mx.here.test>\r\n" in header
        assert re.search(rb"\r\nDate: \w{3}, ", header)
        assert header.endswith(b"\r\nSubject: x")


@pytest.mark.parametrize(
    ("message", "end"),
    [
        (b"Hello there\r\n", b"\r\n\r\nHello there\r\n"),
        (b"Subject: x\r\nHello there\r\n", b"Subject: x\r\n\r\nHello there\r\n"),
        (b"Subject: x\r\nHello\r\n\r\nthere\r\n", b"Subject: x\r\n\r\nHello\r\n\r\nthere\r\n"),
        (b"\xef\xbb\xbfSubject: x\r\n\r\nHello\r\n", b"Subject: x\r\n\r\nHello\r\n"),
        (b"Subject: x\r\ny\r\nTo: b@x.test\r\n\r\nHi\r\n", b"Subject: x\r\n y\r\nTo: b@x.test\r\n\r\nHi\r\n"),
        (b"x\r\n" + b"y" * INLINE + b"\r\n", b"\r\n\r\nx\r\n" + b"y" * INLINE + b"\r\n"),
    ],
)
async def test_what_is_nearly_a_message_is_mended_on_submission_and_the_log_says_so(message: bytes, end: bytes) -> None:
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(message))[:3] == "250"
        assert running.sink.taken[0][1].endswith(end)
        assert len(running.noted(MailMended)) == 1


async def test_what_is_a_message_is_not_mended() -> None:
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(b"\r\njust a body\r\n"))[:3] == "250"
        assert running.sink.taken[0][1].count(b"\r\n\r\n") == 1
        assert running.noted(MailMended) == []


@pytest.mark.parametrize("kind", [{"is_lmtp": True}, {}])
async def test_what_is_no_message_is_refused_beyond_submission(kind: dict[str, Any]) -> None:
    async with run_endpoint(**kind) as running:
        client = await running.client()
        await client.hello("LHLO" if kind else "EHLO")
        assert (await client.send(b"Hello there\r\n")).startswith("554 5.6.0 This is no message")
        assert (await client.send(b"\xef\xbb\xbfSubject: x\r\n\r\n")).startswith("554 5.6.0 This is no message")
        assert running.sink.taken == []


async def test_a_header_that_is_too_long_to_mend_is_refused() -> None:
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(b"Hello\r\n" * (MAX_MENDED + 1)))[:9] == "554 5.6.0"


async def test_addresses_of_a_submission_are_completed_with_its_origin() -> None:
    async with run_endpoint(is_submission=True, origin=Domain("example.org")) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:root\r\nRCPT TO:<root>\r\nDATA\r\n")
        assert await client.hear_codes(3) == [250, 250, 354]
        await client.say(b"From: root (Cron Daemon)\r\nTo: root\r\nSubject: job\r\n\r\nroot\r\n.\r\n")
        assert await client.hear_codes(1) == [250]
        ((envelope, octets),) = running.sink.taken
        assert (str(envelope.sender), str(envelope.recipients[0])) == ("root@example.org", "root@example.org")
        assert b"From: root@example.org (Cron Daemon)\r\nTo: root@example.org\r\n" in octets
        assert octets.endswith(b"\r\n\r\nroot\r\n")


async def test_a_client_that_cannot_name_itself_is_unknown_on_submission() -> None:
    async with run_endpoint(is_submission=True, origin=Domain("example.org")) as running:
        client = await running.client()
        await client.hear()
        await client.say(b"HELO JOHN'S-PC\r\n")
        assert await client.hear_codes(1) == [250]
        assert (await client.send(MESSAGE))[:3] == "250"
        assert b"Received: from unknown ([127.0.0.1])" in running.sink.taken[0][1]


async def test_the_same_recipient_three_times_is_one() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(MESSAGE, "b@x.test", "b@X.test", "b@x.test"))[:3] == "250"
        ((envelope, _),) = running.sink.taken
        assert [str(each) for each in envelope.recipients] == ["b@x.test"]
        assert running.noted(MailTaken)[0].recipients == 1


async def test_lmtp_answers_a_recipient_as_often_as_it_was_named() -> None:
    sink = Sink({"c@x.test": Reply.make(550, "5.2.2", "full")})
    async with run_endpoint(sink=sink, is_lmtp=True) as running:
        client = await running.client()
        await client.hello("LHLO")
        assert (await client.send(MESSAGE, "b@x.test", "c@x.test", "b@x.test", "c@x.test")).startswith("250")
        assert await client.hear_codes(3) == [550, 250, 550]
        assert len(sink.taken[0][0].recipients) == 2


async def test_strangers_may_not_name_a_route_and_users_may() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        assert await client.ask("MAIL FROM:<a@x.test>") == "250 2.1.0 Sender ok\r\n"
        for route in ("a%b@x.test", "a!b@x.test", '"a@b"@x.test'):
            assert (await client.ask(f"RCPT TO:<{route}>"))[:9] == "550 5.7.1"
    async with run_endpoint(is_submission=True) as running:
        client = await running.client()
        await client.hello()
        await client.ask("MAIL FROM:<a@x.test>")
        assert (await client.ask("RCPT TO:<a%b@x.test>"))[:3] == "250"


async def test_the_postmaster_is_taken_without_a_domain() -> None:
    def judge(_: ReversePath, mailbox: Mailbox, __: Mailbox | None) -> Reply | None:
        return None if str(mailbox) == "postmaster@x.test" else Reply.make(550, "5.7.1", "no")

    async with run_endpoint(judge=judge, postmaster=lambda _: Mailbox.parse("postmaster@x.test")) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(MESSAGE, "Postmaster"))[:3] == "250"
        assert str(running.sink.taken[0][0].recipients[0]) == "postmaster@x.test"


async def test_a_password_in_latin1_is_a_wrong_one_and_noted() -> None:
    clock = FakeClock()
    async with run_endpoint(authenticator=OnePassword(), clock=clock) as running:
        client = await running.client()
        await client.hello()
        secret = base64.b64encode(b"\0ann\xe9\0caf\xe9").decode()
        await client.say(f"AUTH PLAIN {secret}\r\n".encode())
        await eventually(lambda: _failed_logins(running, 1))
        await clock.advance(5)
        assert (await client.hear())[:9] == "535 5.7.8"
        assert running.noted(LoginFailed)[0].user == "ann?"


async def test_a_header_of_very_many_lines_is_refused_before_it_is_read() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(b"X: y\r\n" * 9_000 + MESSAGE))[:3] == "250"
        assert (await client.send(b"X: y\r\n" * 10_000 + MESSAGE)).startswith("552 5.3.4 The header has")


async def test_a_message_that_goes_round_in_circles_is_refused() -> None:
    async with run_endpoint(max_received=3) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(b"Received: x\r\n" * 3 + MESSAGE))[:3] == "250"
        assert (await client.send(b"received : x\r\n" * 4 + MESSAGE)).startswith("554 5.4.6 ")


@pytest.mark.parametrize(
    ("answers", "expected"),
    [
        ({}, "250 2.0.0 Queued as 1 [id1]"),
        ({"b@x.test": "550 5.1.1 no"}, "550 5.1.1 no"),
        ({"b@x.test": "550 5.1.1 no", "c@x.test": "451 4.3.0 later"}, "451 4.3.0 later"),
        ({"c@x.test": "421 4.3.0 theirs"}, "451 theirs"),
        ({"c@x.test": "354 hm"}, "451 hm"),
    ],
)
async def test_one_reply_for_several_recipients_is_the_worst(answers: dict[str, str], expected: str) -> None:
    def reply(text: str) -> Reply:
        code, rest = text.split(" ", 1)
        return Reply.from_lines(int(code), (rest,))

    sink = Sink({recipient: reply(text) for recipient, text in answers.items()})
    async with run_endpoint(sink=sink) as running:
        client = await running.client()
        await client.hello()
        assert (await client.send(MESSAGE, "b@x.test", "c@x.test")).strip() == expected
        assert (await client.ask("NOOP"))[:3] == "250"


async def test_lmtp_answers_for_each_recipient() -> None:
    sink = Sink({"c@x.test": Reply.make(550, "5.2.2", "full")})
    async with run_endpoint(sink=sink, is_lmtp=True) as running:
        client = await running.client()
        assert "EHLO" not in await client.hello("LHLO")
        assert (await client.send(MESSAGE, "b@x.test", "c@x.test", "d@x.test")).startswith("250")
        assert [await client.hear() for _ in range(2)] == ["550 5.2.2 full\r\n", "250 2.0.0 Queued as 1 [id1]\r\n"]


async def test_a_sink_that_breaks_defers_and_the_session_goes_on() -> None:
    sink = Sink(error=RuntimeError("oops"))
    async with run_endpoint(sink=sink) as running:
        client = await running.client()
        await client.hello()
        assert await client.send(MESSAGE) == "451 4.3.0 Internal error, try again later\r\n"
        assert isinstance(running.noted(Bug)[0].error, RuntimeError)
        sink.error = None
        assert (await client.send(MESSAGE))[:3] == "250"
        assert [event.reply.code for event in running.noted(MailRefused)] == [451]
        assert [event.reply.code for event in running.noted(MailTaken)] == [250]


async def test_a_bug_before_the_message_is_handed_over_defers_and_its_id_is_forgotten() -> None:
    forgotten: list[str] = []
    bad_clock = BrokenDates()
    async with run_endpoint(clock=bad_clock, forget_id=forgotten.append) as running:
        client = await running.client()
        await client.hello()
        assert await client.send(MESSAGE) == "451 4.3.0 Internal error, try again later\r\n"
        bad_clock.is_broken = False
        assert (await client.send(MESSAGE))[:3] == "250"
        assert forgotten == ["id1", "id2"]
        assert [event.message for event in running.noted(Bug)] == ["id1"]


async def test_a_recipient_that_nobody_takes_is_refused_at_once() -> None:
    def judge(sender: ReversePath, mailbox: Mailbox, _: Mailbox | None) -> Reply | None:
        return None if str(mailbox) == "b@x.test" else Reply.make(550, "5.7.1", f"not from {sender}")

    async with run_endpoint(judge=judge) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("MAIL FROM:<a@example.org>"))[:3] == "250"
        assert (await client.ask("RCPT TO:<c@x.test>")) == "550 5.7.1 not from a@example.org\r\n"
        assert (await client.ask("DATA"))[:3] == "554"
        assert (await client.ask("RCPT TO:<b@x.test>"))[:3] == "250"
        assert running.noted(MailRefused)[0].recipient == "c@x.test"


# Sizes ----------------------------------------------------------------------------------------------------------------


async def test_a_message_that_is_too_large_is_refused_before_and_after_it_is_sent() -> None:
    async with run_endpoint(max_size=1000) as running:
        client = await running.client()
        assert "SIZE 1000\r\n" in await client.hello()
        assert (await client.ask("MAIL FROM:<a@example.org> SIZE=1001")).startswith("552 5.3.4")
        assert (await client.send(MESSAGE + b"x\r\n" * 1000)).startswith("552 5.3.4")
        assert (await client.send(MESSAGE))[:3] == "250"
        assert running.memory.left == Memory().left


@pytest.mark.parametrize("ends", [True, False])
async def test_a_header_that_is_too_large_is_refused(*, ends: bool) -> None:
    async with run_endpoint(max_header=500) as running:
        client = await running.client()
        await client.hello()
        header = b"X: " + b"y" * 80 + b"\r\n"
        content = header * 10 + (b"\r\nbody\r\n" if ends else b"")
        assert (await client.send(content)).startswith("552 5.3.4 The header is larger than 500 octets")
        assert (await client.send(header + b"\r\n" + header * 100))[:3] == "250"


@pytest.mark.parametrize("line", [b"X: " + b"y" * MAX_HEADER + b"\r\n", (b"X: " + b"y" * 700 + b"\r\n") * 1600])
async def test_no_field_hides_behind_what_is_looked_at_of_a_header(line: bytes) -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        message = b"From: a@example.org\r\n" + line + b"From: boss@example.org\r\n\r\nbody\r\n"
        assert (await client.send(message)).startswith("552 5.3.4 The header is larger than 1048576 octets")
        assert (await client.send(MESSAGE))[:3] == "250"


async def test_messages_that_arrive_together_share_a_bounded_memory() -> None:
    async with run_endpoint(memory=Memory(20_000)) as running:
        first, second = await running.client(), await running.client()
        for client in (first, second):
            await client.hello()
            await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
            assert await client.hear_codes(3) == [250, 250, 354]
        await first.say(MESSAGE + b"x" * 6000 + b"\r\n")
        await eventually(lambda: running.memory.left < 15_000)
        await second.say(MESSAGE + b"x" * 6000 + b"\r\n.\r\n")
        assert await second.hear() == "452 4.3.1 Too much mail at once, try again later\r\n"
        await first.say(b".\r\n")
        assert await first.hear_codes(1) == [250]
        assert running.memory.left == 20_000
        assert (await second.send(MESSAGE))[:3] == "250"


async def test_a_line_without_end_costs_no_memory() -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        for _ in range(64):
            await client.say(b"x" * 65536)
        await client.say(b"\r\n")
        assert await client.hear() == "500 5.5.2 Line too long\r\n"
        assert running.memory.left == Memory().left


async def test_content_of_one_endless_line_costs_no_more_than_its_limit(tmp_path: Path) -> None:
    async with run_endpoint(max_size=2_000_000, spool=tmp_path, memory=Memory(400_000)) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
        assert await client.hear_codes(3) == [250, 250, 354]
        for _ in range(64):
            await client.say(b"x" * 65536)
        await client.say(b"\r\n.\r\n")
        assert (await client.hear())[:3] in ("452", "552")
        assert running.memory.left == 400_000


# Logging in -----------------------------------------------------------------------------------------------------------


async def test_nothing_is_accepted_before_login_where_it_is_needed() -> None:
    async with run_endpoint(authenticator=OnePassword(), needs_login=True) as running:
        client = await running.client()
        assert "AUTH LOGIN PLAIN" in await client.hello()  # loopback: the password does not leave this machine
        assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 5.7.0 Authentication required")
        assert (await client.ask(f"AUTH PLAIN {SECRET}")).startswith("235 2.7.0")
        assert (await client.send(MESSAGE))[:3] == "250"
        assert b"with ESMTPA id id1" in running.sink.taken[0][1]
        assert running.noted(MailTaken)[0].user == "anna"


async def test_login_step_by_step() -> None:
    async with run_endpoint(authenticator=OnePassword()) as running:
        client = await running.client()
        await client.hello()
        assert await client.ask("AUTH LOGIN") == "334 VXNlcm5hbWU6\r\n"
        assert (await client.ask(base64.b64encode(b"anna").decode()))[:3] == "334"
        assert (await client.ask(base64.b64encode(b"open sesame").decode()))[:3] == "235"
        assert (await client.ask(f"AUTH PLAIN {SECRET}"))[:3] == "503"


async def test_who_guesses_is_slowed_down_and_sent_away() -> None:
    clock = FakeClock()
    async with run_endpoint(authenticator=OnePassword(), clock=clock) as running:
        client = await running.client()
        await client.hello()
        assert (await client.ask("AUTH PLAIN"))[:3] == "334"
        assert (await client.ask("*"))[:3] == "501"
        assert (await client.ask("AUTH PLAIN AAAA")).startswith("501 5.5.2")
        await client.say(b"AUTH PLAIN bGF0ZXIAbGF0ZXIAeA==\r\n")
        assert (await client.hear()).startswith("454 4.7.0")
        replies: list[int] = []
        while len(replies) < 3:
            await client.say(f"AUTH PLAIN {WRONG}\r\n".encode())
            await eventually(partial(_failed_logins, running, len(replies) + 1))
            await clock.advance(2.0)
            replies += await client.hear_codes(1)
        assert replies == [535, 535, 421]
        assert await client.rest() == b""
        assert [event.user for event in running.noted(LoginFailed)] == ["anna"] * 3


async def test_passwords_are_asked_for_under_tls_only(tls: ssl.SSLContext, monkeypatch: pytest.MonkeyPatch) -> None:
    # As if the client came from elsewhere.
    monkeypatch.setattr("mailrider.settings.socket_address.SocketAddress.is_local", False)
    async with run_endpoint(authenticator=OnePassword(), needs_login=True, tls=tls) as running:
        client = await running.client()
        ehlo = await client.hello()
        assert "AUTH" not in ehlo
        assert "STARTTLS" in ehlo
        assert "REQUIRETLS" not in ehlo
        assert (await client.ask(f"AUTH PLAIN {SECRET}")).startswith("538 5.7.11")
        assert (await client.ask("MAIL FROM:<a@example.org>")).startswith("530 5.7.0 Say STARTTLS first")
        await client.start_tls()
        ehlo = await client.ask("EHLO client.example")
        assert "AUTH LOGIN PLAIN" in ehlo
        assert "STARTTLS" not in ehlo
        assert "REQUIRETLS" in ehlo
        assert (await client.ask(f"AUTH PLAIN {SECRET}"))[:3] == "235"
        assert (await client.ask("MAIL FROM:<a@example.org> REQUIRETLS"))[:3] == "250"
        assert (await client.ask("RCPT TO:<b@example.net>"))[:3] == "250"
        assert (await client.ask("DATA"))[:3] == "354"
        await client.say(MESSAGE + b".\r\n")
        assert await client.hear_codes(1) == [250]
        envelope, octets = running.sink.taken[0]
        assert envelope.requiretls
        assert b"(using TLSv1.3 with cipher TLS_" in octets
        assert b"with ESMTPSA id id1" in octets


# TLS ------------------------------------------------------------------------------------------------------------------


async def test_implicit_tls_comes_before_the_greeting(ca: CA, tls: ssl.SSLContext) -> None:
    async with run_endpoint(scheme=Scheme.TLS, tls=tls) as running:
        trusting = ssl.create_default_context(cadata=ca.root_pem.decode())

        def send() -> None:
            trusting.check_hostname = False
            with smtplib.SMTP_SSL(HOST, running.port, context=trusting) as client:
                client.sendmail("a@example.org", ["b@example.net"], MESSAGE)

        await asyncio.to_thread(send)
        assert len(running.sink.taken) == 1


async def test_what_is_said_in_clear_behind_starttls_ends_the_session(tls: ssl.SSLContext) -> None:
    async with run_endpoint(tls=tls) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"STARTTLS\r\nMAIL FROM:<evil@example.org>\r\nRCPT TO:<b@x.test>\r\n")
        assert (await client.rest()).startswith(b"554 5.5.0")
        assert "reply" in running.noted(ClientCutOff)[0].reason


async def test_a_handshake_that_is_none_harms_nobody_else(tls: ssl.SSLContext) -> None:
    async with run_endpoint(tls=tls) as running:
        bad, good = await running.client(), await running.client()
        await bad.hello()
        await good.hello()
        assert (await bad.ask("STARTTLS"))[:3] == "220"
        await bad.say(b"GET / HTTP/1.1\r\n\r\n")
        await bad.rest()
        assert (await good.send(MESSAGE))[:3] == "250"


# Smuggling ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "end", [b"\n.\n", b"\n.\r\n", b"\r\n.\n", b"\r.\r", b"\r\n.\r", b"\r.\r\n", b"\r\n\0.\r\n", b"\r\n.\0\r\n"]
)
async def test_one_message_never_becomes_two(end: bytes) -> None:
    async with run_endpoint() as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
        assert await client.hear_codes(3) == [250, 250, 354]
        smuggled = b"MAIL FROM:<evil@x.test>\r\nRCPT TO:<c@x.test>\r\nDATA\r\nSubject: smuggled\r\n\r\n"
        await client.say(b"Subject: x\r\n\r\nhello" + end + smuggled + b"\r\n.\r\n")
        assert (await client.hear()).startswith("554 5.6.0")
        assert (await client.ask("NOOP"))[:3] == "250"
        assert running.sink.taken == []


# Time -----------------------------------------------------------------------------------------------------------------


async def test_silence_is_cut_off() -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock, read_timeout=60) as running:
        client = await running.client()
        await client.hello()
        await clock.advance(59)
        assert (await client.ask("NOOP"))[:3] == "250"
        await clock.advance(59)
        assert (await client.ask("NOOP"))[:3] == "250"
        await clock.advance(61)
        assert await client.rest() == b"421 4.4.2 You took too long; good bye\r\n"
        assert running.noted(ClientCutOff)[0].reason == "too slow"


async def test_one_octet_a_second_is_as_good_as_silence() -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock, read_timeout=60) as running:
        client = await running.client()
        await client.hello()
        for octet in b"MAIL FROM:<somebody@a-rather-long-domain.example.org> SIZE=1000\r\n"[:60]:
            await client.say(bytes([octet]))
            await clock.advance(1)
        assert (await client.rest()).startswith(b"421 4.4.2")


async def test_content_by_drops_is_cut_off_too_and_content_that_flows_is_not() -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock, read_timeout=60) as running:
        slow, steady = await running.client(), await running.client()
        for client in (slow, steady):
            await client.hello()
            await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
            assert await client.hear_codes(3) == [250, 250, 354]
        for least in (69_990, 139_990, 209_990):
            await slow.say(b"x\r\n")
            await steady.say(b"y: " + b"y" * 995 + b"\r\n" + (b"\t" + b"y" * 997 + b"\r\n") * 69)
            await eventually(partial(_holds, running, least))
            await clock.advance(30)
        assert (await slow.rest()).startswith(b"421 4.4.2")
        await steady.say(b".\r\n")
        assert await steady.hear_codes(1) == [250]


async def test_our_own_time_is_not_the_clients() -> None:
    clock, gate = FakeClock(), asyncio.Event()
    async with run_endpoint(clock=clock, read_timeout=60, sink=Sink(gate=gate)) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
        assert await client.hear_codes(3) == [250, 250, 354]
        await client.say(MESSAGE + b".\r\n")
        await eventually(lambda: running.sink.started)
        await clock.advance(500)
        gate.set()
        assert await client.hear_codes(1) == [250]
        await clock.advance(59)
        assert (await client.ask("NOOP"))[:3] == "250"


async def test_who_does_not_read_our_replies_is_cut_off() -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock, read_timeout=60) as running:
        client = await running.client()
        client.writer.transport.pause_reading()  # type: ignore[attr-defined]
        task = asyncio.ensure_future(_say_for_ever(client))
        while running.endpoint.connections:
            await clock.advance(30)
            await asyncio.sleep(0.01)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def _say_for_ever(client: Client) -> None:
    await client.say(b"EHLO client.example\r\n")
    while True:
        await client.say(b"RSET\r\nVRFY x\r\n" * 300)


# Web pages ------------------------------------------------------------------------------------------------------------


async def test_a_web_page_cannot_send_mail_through_a_browser() -> None:
    mail = b"EHLO x\r\nMAIL FROM:<a@x.test>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n" + MESSAGE + b".\r\n"
    async with run_endpoint() as running:
        for request in (
            b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n" + mail,
            b"\r\n" + mail.replace(b"EHLO x", b"GET /EHLO HTTP/1.1"),
            b"X-Odd: HTTP\r\n" + mail,
        ):
            client = await running.client()
            assert await client.hear_codes(1) == [220]
            await client.say(request)
            assert b"\r\n250" not in await client.rest()
        assert running.sink.taken == []
        assert len(running.noted(ClientCutOff)) == 3


# Shares ---------------------------------------------------------------------------------------------------------------

OTHER = "127.0.0.2"


async def _begin_message(client: Client) -> None:
    await client.hello()
    await client.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
    assert await client.hear_codes(3) == [250, 250, 354]


async def test_unfinished_headers_of_one_client_leave_memory_for_others() -> None:
    async with run_endpoint(memory=Memory(1_000_000)) as running:
        for _ in range(20):
            greedy = await running.client(OTHER)
            await _begin_message(greedy)
            await greedy.say(b"X: y\r\n" * 15_000)
        await eventually(lambda: running.memory.left < 600_000)
        honest = await running.client()
        await honest.hello()
        assert (await honest.send(b"Subject: x\r\n\r\n" + b"y" * 200_000 + b"\r\n"))[:3] == "250"
        assert running.memory.left >= 500_000


async def test_recipients_count_as_memory_and_are_given_back() -> None:
    async with run_endpoint(memory=Memory(20_000)) as running:
        client = await running.client()
        await client.hello()
        await client.say(b"MAIL FROM:<>\r\n" + b"RCPT TO:<b@x.test> ORCPT=rfc822;b@x.test\r\n" * 40)
        codes = await client.hear_codes(41)
        assert (codes.count(250), codes[-1]) == (1 + FEW + 10_000 // 520, 452)
        other = await running.client(OTHER)
        await other.hello()
        assert (await other.send(MESSAGE))[:3] == "250"
        assert (await client.ask("RSET"))[:3] == "250"
        assert running.memory.left == 20_000


async def test_large_messages_of_one_client_leave_disk_for_others(tmp_path: Path) -> None:
    disk, large = Memory(2_000_000), b"x" * 78 + b"\r\n"
    async with run_endpoint(spool=tmp_path, disk=disk) as running:
        greedy = [await running.client(OTHER) for _ in range(5)]
        for client in greedy:
            await _begin_message(client)
            await client.say(b"\r\n" + large * 5000)
        await eventually(lambda: disk.left <= 1_250_000)
        honest = await running.client()
        await honest.hello()
        assert (await honest.send(b"\r\n" + large * 5000))[:3] == "250"
        codes = []
        for client in greedy:
            await client.say(b".\r\n")
            codes += await client.hear_codes(1)
        assert sorted(set(codes)) == [250, 452]
        assert disk.left == 2_000_000


async def test_what_finds_no_memory_goes_to_disk_early(tmp_path: Path) -> None:
    async with run_endpoint(spool=tmp_path, memory=Memory(100_000)) as running:
        client = await running.client()
        await _begin_message(client)
        await client.say(b"Subject: x\r\n\r\ny")
        await eventually(lambda: running.memory.left < 100_000)
        await client.say(b"\r\n" + b"y\r\n" * 49_999 + b".\r\n")
        assert await client.hear_codes(1) == [250]
        assert running.sink.taken[0][1].endswith(b"\r\n\r\n" + b"y\r\n" * 50_000)


async def test_the_network_takes_nothing_from_programs_on_this_machine(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    async with run_endpoint(scheme=Scheme.UNIX, path=path, memory=Memory(0), disk=Memory(0)) as running:
        client = running.known(Client(*await asyncio.open_unix_connection(str(path))))
        await client.hello()
        assert (await client.send(MESSAGE + b"x\r\n" * INLINE))[:3] == "250"


async def test_a_crowd_of_wrong_passwords_keeps_no_other_client_from_logging_in() -> None:
    asked = []

    class Counting(OnePassword):
        async def verify(self, credentials: Credentials) -> bool | Reply:
            asked.append(credentials.user)
            return await super().verify(credentials)

    clock = FakeClock()
    async with run_endpoint(authenticator=Counting(), clock=clock, logins=Logins(clock)) as running:
        guessers = [await running.client(OTHER) for _ in range(100)]
        for client in guessers:
            await client.hello()
            await client.say(f"AUTH PLAIN {WRONG}\r\n".encode())
        await eventually(lambda: len(running.noted(LoginFailed)) + len(running.noted(LoginHeldBack)) == 100)
        assert len(asked) == OF_USER[0][0]
        anna = running.known(Client(*await asyncio.open_connection(HOST, running.port)))
        await anna.hello()
        assert await anna.ask(f"AUTH PLAIN {SECRET}") == "454 4.7.0 Too many wrong passwords, try again later\r\n"
        await clock.advance(61)
        assert (await anna.ask(f"AUTH PLAIN {SECRET}"))[:3] == "235"
        for client in guessers:
            await client.say(f"AUTH PLAIN {WRONG}\r\n".encode())
        await eventually(lambda: len(running.noted(LoginHeldBack)) > 150)
        again = await running.client()
        await again.hello()
        assert (await again.ask(f"AUTH PLAIN {SECRET}"))[:3] == "235", "others guess, from here anna has logged in"


async def test_who_goes_on_while_he_is_held_back_is_sent_away() -> None:
    clock = FakeClock()
    logins = Logins(clock)
    for _ in range(OF_USER[0][0]):
        await logins.verify(OnePassword(), OTHER, Credentials("anna", "wrong"))
    async with run_endpoint(authenticator=OnePassword(), clock=clock, logins=logins) as running:
        client = await running.client()
        await client.hello()
        replies = [await client.ask(f"AUTH PLAIN {SECRET}") for _ in range(3)]
        assert [reply[:3] for reply in replies] == ["454", "454", "421"]
        assert await client.rest() == b""


# Crowds and the end ---------------------------------------------------------------------------------------------------


async def test_one_client_cannot_keep_others_out() -> None:
    async with run_endpoint(limits=ConnectionLimits(most=100, most_of_one=2)) as running:
        clients = [await running.client() for _ in range(3)]
        assert [await client.hear_codes(1) for client in clients] == [[220], [220], [421]]
        assert "has 2 connections" in running.noted(ClientTurnedAway)[0].reason
        clients[0].close()
        await eventually(lambda: running.endpoint.connections == 1)
        last = await running.client()
        assert await last.hear_codes(1) == [220]


async def test_a_client_that_comes_again_and_again_is_told_in_the_log_once_a_minute() -> None:
    clock = FakeClock()
    async with run_endpoint(limits=ConnectionLimits(most=100, most_of_one=1), clock=clock) as running:
        stays, *others = [await running.client() for _ in range(4)]
        assert await stays.hear_codes(1) == [220]
        assert [await other.hear_codes(1) for other in others] == [[421]] * 3
        await clock.advance(TELL_AGAIN)
        assert await (await running.client()).hear_codes(1) == [421]
        assert [each.is_repeated for each in running.noted(ClientTurnedAway)] == [False, True, True, False]


async def test_closing_waits_for_the_message_that_is_under_way() -> None:
    gate = asyncio.Event()
    async with run_endpoint(sink=Sink(gate=gate)) as running:
        idle, busy = await running.client(), await running.client()
        await idle.hello()
        await busy.hello()
        await busy.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
        assert await busy.hear_codes(3) == [250, 250, 354]
        await busy.say(MESSAGE + b".\r\n")
        await eventually(lambda: running.sink.started)
        closing = asyncio.ensure_future(running.endpoint.close(30))
        assert await idle.rest() == b"421 4.3.2 Shutting down; good bye\r\n"
        gate.set()
        assert (await busy.rest()).startswith(b"250 2.0.0 Queued as 1 [id1]\r\n421 4.3.2")
        await closing
        assert running.noted(EndpointClosed)[0].cut_off == 0


async def test_closing_does_not_wait_for_ever() -> None:
    gate, clock = asyncio.Event(), FakeClock()
    async with run_endpoint(sink=Sink(gate=gate), clock=clock) as running:
        busy = await running.client()
        await busy.hello()
        await busy.say(b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\n")
        assert await busy.hear_codes(3) == [250, 250, 354]
        await busy.say(MESSAGE + b".\r\n")
        await eventually(lambda: running.sink.started)
        closing = asyncio.ensure_future(running.endpoint.close(30))
        await clock.advance(28)
        assert await busy.rest() == b"421 4.3.2 Shutting down; good bye\r\n"
        await closing
        assert (running.noted(EndpointClosed)[0].cut_off, running.sink.taken) == (1, [])


@pytest.mark.parametrize(
    ("said", "codes"),
    [
        (b"MAIL FROM:<>\r\n", [250]),
        (b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\n", [250, 250]),
        (b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nDATA\r\nSubject: unfin", [250, 250, 354]),
        (b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nBDAT 9\r\nSubject: ", [250, 250, 250]),
        (b"MAIL FROM:<>\r\nRCPT TO:<b@x.test>\r\nBDAT 99 LAST\r\nSubject: ", [250, 250]),
    ],
)
async def test_a_client_in_the_middle_of_a_transaction_hears_421_at_the_end_of_the_grace(
    said: bytes, codes: list[int]
) -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock) as running:
        client = await running.client()
        await client.hello()
        head, data, rest = said.partition(b"DATA\r\n")
        await client.say(head + data)
        assert await client.hear_codes(len(codes)) == codes
        await client.say(rest)
        closing = asyncio.ensure_future(running.endpoint.close(30))
        await clock.advance(27)
        assert running.endpoint.connections == 1
        await clock.advance(1)
        assert await client.rest() == b"421 4.3.2 Shutting down; good bye\r\n"
        await closing
        assert (running.noted(EndpointClosed)[0].cut_off, running.sink.taken, clock.pending) == (1, [], 0)


async def test_who_takes_no_last_word_is_cut_off_without_it(tls: ssl.SSLContext) -> None:
    clock = FakeClock()
    async with run_endpoint(clock=clock, tls=tls) as running:
        client = await running.client()
        await client.hello()
        await client.ask("STARTTLS")
        await client.say(b"\x16")
        closing = asyncio.ensure_future(running.endpoint.close(30))
        await clock.advance(30)
        await closing
        assert await client.rest() == b""


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    path = tmp_path / "smtp"
    # Nobody has to log in where the system says who it is.
    async with run_endpoint(scheme=Scheme.UNIX, path=path, authenticator=OnePassword(), needs_login=True) as running:
        client = running.known(Client(*await asyncio.open_unix_connection(str(path))))
        await client.hello()
        assert (await client.send(MESSAGE))[:3] == "250"
        assert f"Received: from client.example (uid {os.getuid()})".encode() in running.sink.taken[0][1]
        assert running.sink.taken[0][0].client is None
        assert running.noted(MailTaken)[0].client == f"uid {os.getuid()}"


# Faults of ours -------------------------------------------------------------------------------------------------------


async def test_a_bug_ends_one_session_with_a_temporary_word_and_no_other() -> None:
    def judge(_: ReversePath, mailbox: Mailbox, __: Mailbox | None) -> Reply | None:
        if mailbox.local_part == "bug":
            raise RuntimeError("oops")
        return None

    async with run_endpoint(judge=judge) as running:
        bad, good = await running.client(), await running.client()
        await bad.hello()
        await good.hello()
        await bad.ask("MAIL FROM:<a@example.org>")
        await bad.say(b"RCPT TO:<bug@x.test>\r\n")
        assert await bad.rest() == b"421 4.3.0 Internal error, try again later\r\n"
        assert (await good.send(MESSAGE))[:3] == "250"
        assert isinstance(running.noted(Bug)[0].error, RuntimeError)


async def test_a_disk_that_takes_nothing_defers(tmp_path: Path) -> None:
    async with run_endpoint(spool=tmp_path / "gone") as running:
        client = await running.client()
        await client.hello()
        assert await client.send(MESSAGE + b"x\r\n" * INLINE) == "452 4.3.1 Insufficient system storage\r\n"
        assert (await client.send(MESSAGE))[:3] == "250"
