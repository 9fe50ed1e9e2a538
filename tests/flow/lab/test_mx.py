"""The lab's MX hosts with clients that are not ours: what a script says is what happens."""

from __future__ import annotations

import asyncio
import hashlib
import smtplib
import ssl
from dataclasses import replace

import aiosmtplib
import pytest

from mailrider.errors import LocalError
from mailrider.lab.ca import CA
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import (
    BARE_LF,
    GARBAGE,
    MIXED_CODES,
    MXTLS,
    NO_REPLY_CODE,
    NUL,
    OVERLONG,
    Action,
    Close,
    DelayedReply,
    EndlessOutput,
    ExtraOctets,
    MXScript,
    PortState,
    Raw,
    Silence,
    SlowReply,
    Stage,
    Stall,
    TLSFault,
)
from mailrider.model.domain import Domain
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Command, Ehlo, Mail, Noop, Quit, Rset
from mailrider.smtp.server import MAX_BACKLOG, ServerMachine
from mailrider.smtp.server_states import Limits
from mailrider.testing.clock import FakeClock
from tests.support.raw_client import RawClient

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"
GREETING = b"220 mx.lab.test ESMTP\r\n"
ENVELOPE = b"MAIL FROM:<a@example.org>\r\nRCPT TO:<b@good.test>\r\n"


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


class Client(RawClient):
    """Speaks with a server of the lab."""

    async def hear(self) -> bytes:
        """One reply, the codes of its lines included."""
        return await self.hear_octets()

    async def rest(self) -> bytes:
        """Everything up to the end of the connection."""
        return await self.reader.read(-1)

    async def say_into_the_void(self, octets: bytes) -> None:
        """Say something that gets no answer but an end, of which event loops tell in different ways."""
        await self.say(octets)
        assert await self.rest() == b""
        raise ConnectionResetError

    async def ask(self, line: str) -> bytes:
        await self.say(line.encode() + b"\r\n")
        return await self.hear()

    async def hello(self) -> None:
        assert await self.hear() == GREETING
        assert (await self.ask("EHLO client.example"))[:4] == b"250-"

    async def to_data(self) -> None:
        await self.hello()
        await self.say(ENVELOPE + b"DATA\r\n")
        assert [(await self.hear())[:3] for _ in range(3)] == [b"250", b"250", b"354"]

    async def start_tls(self, ca: CA | None = None, name: str = "mx.good.test") -> None:
        assert (await self.ask("STARTTLS"))[:3] == b"220"
        await self.writer.start_tls(trusting(ca), server_hostname=name)


def trusting(ca: CA | None) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=ca.root_pem.decode() if ca else None)
    if ca is None:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


async def connect(mx: LabMX) -> Client:
    return Client(*await asyncio.open_connection(mx.address, mx.port))


# Messages -------------------------------------------------------------------------------------------------------------


async def test_a_stock_client_delivers_a_message() -> None:
    async with LabMX() as mx:

        def send() -> None:
            with smtplib.SMTP(mx.address, mx.port, local_hostname="client.example") as client:
                client.sendmail("a@example.org", ["b@good.test", "c@good.test"], MESSAGE, ["BODY=8BITMIME"])

        await asyncio.to_thread(send)
        message = await mx.wait_message()
        await mx.wait_closed()
        assert (message.sender, message.addresses) == ("a@example.org", ["b@good.test", "c@good.test"])
        assert message.mail.size == len(MESSAGE)
        assert (message.content, message.size) == (MESSAGE, len(MESSAGE))
        assert message.sha256 == hashlib.sha256(MESSAGE).hexdigest()
        (connection,) = mx.connections
        assert message.connection is connection
        assert (connection.number, connection.client_name) == (1, Domain("client.example"))
        assert isinstance(connection.commands[-1], Quit)
        assert (connection.tls, connection.sni, connection.error) == (None, None, None)
        assert connection.dialogue().splitlines()[:2] == ["S: 220 mx.lab.test ESMTP", "C: ehlo client.example"]
        assert (mx.opened, mx.open_connections, mx.accepted) == (1, 0, 1)


async def test_a_stock_client_delivers_over_starttls(ca: CA) -> None:
    tls = MXTLS(ca.issue(["mx.good.test"]), {"mx.other.test": ca.issue(["mx.other.test"])})
    async with LabMX(MXScript(tls=tls)) as mx:
        for number, name in enumerate(("mx.good.test", "mx.other.test"), 1):
            async with aiosmtplib.SMTP(
                hostname=mx.address, port=mx.port, start_tls=False, local_hostname="client.example"
            ) as client:
                await client.starttls(server_hostname=name, tls_context=trusting(ca))
                await client.sendmail("a@example.org", ["b@good.test"], MESSAGE)
            message = await mx.wait_message(number)
            assert message.content == MESSAGE
            assert message.connection.sni == name
            assert b"MAIL" not in message.connection.said(secure=False)
            assert b"MAIL FROM:<a@example.org>" in message.connection.said(secure=True)
            assert b"250 2.0.0 Message accepted" in message.connection.said("S", secure=True)
            assert "C* MAIL FROM:<a@example.org>" in message.connection.dialogue()


async def test_tls_may_come_first(ca: CA) -> None:
    script = MXScript(tls=MXTLS(ca.issue(["mx.good.test"]), implicit=True))
    async with LabMX(script) as mx:
        reader, writer = await asyncio.open_connection(
            mx.address, mx.port, ssl=trusting(ca), server_hostname="mx.good.test"
        )
        client = Client(reader, writer)
        await client.hello()
        assert b"STARTTLS" not in mx.connections[0].said("S")
        writer.close()
        await mx.wait_closed()


async def test_several_messages_and_chunks_on_one_connection() -> None:
    async with LabMX() as mx:
        client = await connect(mx)
        await client.hello()
        for number in range(3):
            await client.say(ENVELOPE + b"BDAT 4\r\nx\r\n%dBDAT 0 LAST\r\n" % number)
            assert [(await client.hear())[:3] for _ in range(4)] == [b"250"] * 4
        assert (await client.ask("QUIT"))[:3] == b"221"
        assert await client.rest() == b""
        assert [message.content for message in mx.messages] == [b"x\r\n0", b"x\r\n1", b"x\r\n2"]
        client.writer.close()


async def test_a_huge_message_need_not_be_kept() -> None:
    async with LabMX(keeps_content=False) as mx:
        client = await connect(mx)
        await client.to_data()
        line = b"x" * 998 + b"\r\n"
        for _ in range(20):
            await client.say(line * 1000)
        assert (await client.ask("."))[:3] == b"250"
        message = await mx.wait_message()
        assert (message.content, message.size) == (b"", 20_000_000)
        assert message.sha256 == hashlib.sha256(line * 20_000).hexdigest()
        assert len(message.connection.said()) <= 256 * 1024
        assert message.connection.octets["C"] > 20_000_000
        client.writer.close()


async def test_a_client_that_is_faster_than_the_host_has_to_wait(ca: CA, monkeypatch: pytest.MonkeyPatch) -> None:
    backlogs: list[int] = []

    def receive(machine: ServerMachine, data: bytes) -> None:
        true_receive(machine, data)
        # How much waits in memory shows nowhere else.
        backlogs.append(len(machine._buffer) - machine._at)

    true_receive = ServerMachine.receive
    monkeypatch.setattr(ServerMachine, "receive", receive)
    async with LabMX(MXScript(tls=MXTLS(ca.issue(["mx.good.test"]))), keeps_content=False) as mx:
        client = await connect(mx)
        await client.hello()
        await client.start_tls(ca)
        await client.ask("EHLO client.example")
        await client.say(ENVELOPE + b"BDAT 16000000 LAST\r\n" + (b"x" * 78 + b"\r\n") * 200_000)
        assert (await mx.wait_message()).size == 16_000_000
        assert max(backlogs) < 2 * MAX_BACKLOG
        client.writer.close()


# Replies --------------------------------------------------------------------------------------------------------------


async def test_replies_are_fixed_or_for_some_times_or_made_from_the_command() -> None:
    def by_sender(command: Command) -> Action | None:
        assert isinstance(command, Mail)
        return "550 5.7.1 Not you" if str(command.sender) == "spammer@example.org" else None

    script = MXScript(
        replies={
            Stage.NOOP: "250 2.0.0 One\n2.0.0 Two",
            Stage.RSET: ["451 4.3.0 Not now", None, "452 4.3.1 Never"],
            Stage.MAIL: by_sender,
        },
        recipients={"nobody@good.test": "550 5.1.1 Nobody", "busy@good.test": ["450 4.2.1 Busy"]},
    )
    async with LabMX(script) as mx:
        client = await connect(mx)
        await client.hello()
        for _ in range(2):
            assert await client.ask("NOOP") == b"250-2.0.0 One\r\n250 2.0.0 Two\r\n"
        rsets = [await client.ask("RSET") for _ in range(4)]
        assert rsets == [
            b"451 4.3.0 Not now\r\n",
            b"250 2.0.0 Forgotten\r\n",
            b"452 4.3.1 Never\r\n",
            b"250 2.0.0 Forgotten\r\n",
        ]
        assert await client.ask("MAIL FROM:<spammer@example.org>") == b"550 5.7.1 Not you\r\n"
        assert (await client.ask("MAIL FROM:<a@example.org>"))[:3] == b"250"
        assert await client.ask("RCPT TO:<nobody@good.test>") == b"550 5.1.1 Nobody\r\n"
        assert await client.ask("RCPT TO:<busy@good.test>") == b"450 4.2.1 Busy\r\n"
        assert (await client.ask("RCPT TO:<busy@good.test>"))[:3] == b"250"
        client.writer.close()


async def test_lists_are_counted_over_connections_and_begin_anew_with_a_new_script() -> None:
    script = MXScript(replies={Stage.CONNECT: ["421 4.3.2 Not yet"]})
    async with LabMX(script) as mx:
        for expected in (b"421 4.3.2 Not yet\r\n", GREETING):
            client = await connect(mx)
            assert await client.hear() == expected
            client.writer.close()
        mx.script = script
        client = await connect(mx)
        assert await client.rest() == b"421 4.3.2 Not yet\r\n"
        client.writer.close()
        assert (await mx.wait_connection(3)).number == 3


async def test_lmtp_answers_for_each_recipient() -> None:
    script = MXScript(lmtp=True, finals={"c@good.test": "552 5.2.2 Full"})
    async with LabMX(script) as mx:
        client = await connect(mx)
        assert await client.hear() == b"220 mx.lab.test LMTP\r\n"
        assert (await client.ask("LHLO client.example"))[:4] == b"250-"
        await client.say(ENVELOPE + b"RCPT TO:<c@good.test>\r\nDATA\r\n")
        assert [(await client.hear())[:3] for _ in range(4)] == [b"250", b"250", b"250", b"354"]
        assert await client.ask("x\r\n.") == b"250 2.0.0 Message accepted\r\n"
        assert await client.hear() == b"552 5.2.2 Full\r\n"
        (message,) = mx.messages
        assert message.addresses == ["b@good.test"]
        client.writer.close()


async def test_what_ehlo_announces_is_held_to(ca: CA) -> None:
    offer = replace(
        FULL_OFFER,
        max_size=100,
        max_recipients=1,
        max_transactions=1,
        chunking=False,
        requiretls=True,
        auth=frozenset({"PLAIN"}),
    )
    async with LabMX(MXScript(offer=offer, tls=MXTLS(ca.issue(["mx.good.test"])))) as mx:
        client = await connect(mx)
        await client.hear()
        in_clear = await client.ask("EHLO client.example")
        assert b"STARTTLS" in in_clear
        assert b"AUTH" not in in_clear
        assert b"REQUIRETLS" not in in_clear
        await client.start_tls(ca)
        in_tls = await client.ask("EHLO client.example")
        assert b"STARTTLS" not in in_tls
        assert b"AUTH PLAIN" in in_tls
        assert b"REQUIRETLS" in in_tls
        assert (await client.ask("MAIL FROM:<> SIZE=101"))[:9] == b"552 5.3.4"
        assert (await client.ask("MAIL FROM:<>"))[:3] == b"250"
        assert (await client.ask("RCPT TO:<b@good.test>"))[:3] == b"250"
        assert (await client.ask("RCPT TO:<c@good.test>"))[:9] == b"452 4.5.3"
        await client.say(b"BDAT 1 LAST\r\nx")
        assert (await client.hear())[:3] == b"502"
        assert (await client.ask("MAIL FROM:<>"))[:3] == b"421"
        client.writer.close()


async def test_starttls_may_be_hidden_or_refused(ca: CA) -> None:
    tls = MXTLS(ca.issue(["mx.good.test"]))
    async with LabMX(MXScript(tls=tls, hides_starttls=True)) as mx:
        client = await connect(mx)
        await client.hear()
        assert b"STARTTLS" not in await client.ask("EHLO client.example")
        mx.script = MXScript(tls=tls, replies={Stage.STARTTLS: "454 4.7.0 Not now"})
        other = await connect(mx)
        await other.hello()
        assert await other.ask("STARTTLS") == b"454 4.7.0 Not now\r\n"
        assert (await other.ask("MAIL FROM:<>"))[:3] == b"250"
        for each in (client, other):
            each.writer.close()


async def test_ehlo_in_tls_may_have_a_reply_of_its_own(ca: CA) -> None:
    replies: dict[Stage, Action] = {Stage.EHLO_IN_TLS: "454 4.7.0 Not you"}
    async with LabMX(MXScript(tls=MXTLS(ca.issue(["mx.good.test"])), replies=replies)) as mx:
        client = await connect(mx)
        await client.hello()
        await client.start_tls(ca)
        assert await client.ask("EHLO client.example") == b"454 4.7.0 Not you\r\n"
        assert [type(command) for command in mx.connections[0].commands].count(Ehlo) == 2
        client.writer.close()


# Faults ---------------------------------------------------------------------------------------------------------------

TO_STAGE = {
    Stage.CONNECT: b"",
    Stage.EHLO: b"EHLO c.example\r\n",
    Stage.HELO: b"HELO c.example\r\n",
    Stage.MAIL: b"EHLO c.example\r\nMAIL FROM:<>\r\n",
    Stage.RCPT: b"EHLO c.example\r\n" + ENVELOPE,
    Stage.DATA: b"EHLO c.example\r\n" + ENVELOPE + b"DATA\r\n",
    Stage.END: b"EHLO c.example\r\n" + ENVELOPE + b"DATA\r\nx\r\n.\r\n",
    Stage.BDAT: b"EHLO c.example\r\n" + ENVELOPE + b"BDAT 1\r\nx",
    Stage.RSET: b"EHLO c.example\r\nRSET\r\n",
    Stage.VRFY: b"EHLO c.example\r\nVRFY x\r\n",
    Stage.HELP: b"EHLO c.example\r\nHELP\r\n",
    Stage.QUIT: b"EHLO c.example\r\nQUIT\r\n",
}
LAX = Limits(strict_groups=False)


@pytest.mark.parametrize("stage", TO_STAGE)
async def test_a_host_closes_the_connection_at_any_stage(stage: Stage) -> None:
    before = TO_STAGE[stage].count(b"\r\n") - (stage is Stage.END) * 2 + (stage in (Stage.END,))
    for action, last in ((Close(), b""), (Close("421 4.3.2 Bye", abrupt=False), b"421 4.3.2 Bye\r\n")):
        async with LabMX(MXScript(replies={stage: action}, limits=LAX)) as mx:
            client = await connect(mx)
            await client.say(TO_STAGE[stage])
            heard = await client.rest()
            assert heard.endswith(last)
            assert len([line for line in heard.split(b"\r\n") if line[3:4] == b" "]) == before + bool(last)
            await mx.wait_closed()
            assert mx.accepted == 0
            assert len(mx.unanswered) == (stage is Stage.END)
            client.writer.close()


async def test_a_message_that_got_no_reply_is_known_to_have_arrived() -> None:
    async with LabMX(MXScript(replies={Stage.END: Close(abrupt=True)})) as mx:
        client = await connect(mx)
        await client.to_data()
        await client.say(b"Subject: x\r\n.\r\n")
        assert await client.rest() == b""
        message = await mx.wait_unanswered()
        assert (message.content, message.addresses) == (b"Subject: x\r\n", ["b@good.test"])
        assert not mx.messages
        client.writer.close()


async def test_a_host_closes_after_its_reply() -> None:
    async with LabMX(MXScript(replies={Stage.END: ["250 2.0.0 Ok"], Stage.RSET: Close("250 2.0.0 Ok")})) as mx:
        client = await connect(mx)
        await client.to_data()
        assert await client.ask("x\r\n.") == b"250 2.0.0 Ok\r\n"
        await client.say(b"RSET\r\n")
        assert await client.rest() == b"250 2.0.0 Ok\r\n"
        client.writer.close()


async def test_a_host_falls_silent() -> None:
    async with LabMX(MXScript(replies={Stage.MAIL: Silence()})) as mx:
        client = await connect(mx)
        await client.hello()
        for _ in range(40):
            await client.say(b"MAIL FROM:<>\r\n" * 10_000)
        assert mx.open_connections == 1
        client.writer.close()
        await mx.wait_closed()
        assert mx.connections[0].said("S").count(b"\r\n") == 9


async def test_a_host_stops_reading_in_the_middle_of_a_message() -> None:
    async with LabMX(MXScript(content=Stall(), content_after=1000)) as mx:
        client = await connect(mx)
        await client.to_data()
        client.writer.transport.set_write_buffer_limits(high=0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.say(b"x" * 64_000_000), 0.3)
        assert mx.connections[0].octets["C"] < 4_000_000
        client.writer.transport.abort()


@pytest.mark.parametrize(
    ("action", "heard"),
    [
        (Close(), b""),
        (Close("421 4.3.0 Disk full"), b"421 4.3.0 Disk full\r\n"),
        (
            Raw(b"552 5.3.4 Too large\r\n"),
            b"552 5.3.4 Too large\r\n250 2.0.0 Message accepted\r\n221 2.0.0 Good bye\r\n",
        ),
    ],
)
async def test_a_host_interrupts_a_message(action: Action, heard: bytes) -> None:
    async with LabMX(MXScript(content=action, content_after=10, limits=LAX)) as mx:
        client = await connect(mx)
        await client.to_data()
        await client.say(b"12345678\r\n")
        await asyncio.sleep(0)
        await client.say(b"x\r\n.\r\nQUIT\r\n")
        assert await client.rest() == heard
        client.writer.close()


async def test_a_host_refuses_in_the_middle_of_a_message_and_reads_on() -> None:
    async with LabMX(MXScript(content="552 5.3.4 Too large")) as mx:
        client = await connect(mx)
        await client.to_data()
        await client.say(b"x" * 100)
        assert await client.hear() == b"552 5.3.4 Too large\r\n"
        await client.say(b"x" * 1_000_000 + b"\r\n.\r\nNOOP\r\n")
        client.writer.close()
        await mx.wait_closed()
        assert mx.accepted == 0


async def test_replies_may_come_slowly_or_late() -> None:
    clock = FakeClock()
    script = MXScript(
        replies={Stage.CONNECT: SlowReply(), Stage.NOOP: SlowReply("250 Ok", 2.0), Stage.RSET: [DelayedReply(60)]}
    )
    async with LabMX(script, clock=clock) as mx:
        client = await connect(mx)
        await mx.wait_connection()
        heard = b""
        for _ in range(len(GREETING)):
            while not (octet := await client.reader.read(1)):
                pass
            heard += octet
            await clock.advance(1)
        assert heard == GREETING
        await client.ask("EHLO client.example")
        await client.say(b"NOOP\r\n")
        heard = b""
        while len(heard) < 8:
            heard += await client.reader.read(1)
            await clock.advance(2)
        assert heard == b"250 Ok\r\n"
        await client.say(b"RSET\r\n")
        await mx.wait_command(Rset)
        await clock.advance(59)
        assert b"Forgotten" not in mx.connections[0].said("S")
        await clock.advance(1)
        assert (await client.hear())[:3] == b"250"
        client.writer.close()


async def test_a_client_may_leave_a_slow_host() -> None:
    clock = FakeClock()
    async with LabMX(MXScript(replies={Stage.CONNECT: SlowReply()}), clock=clock) as mx:
        client = await connect(mx)
        await client.reader.read(1)
        client.writer.close()
        await mx.wait_closed()
        await clock.advance(2)
        assert clock.pending == 0


async def test_replies_may_have_no_end() -> None:
    async with LabMX(MXScript(replies={Stage.EHLO: EndlessOutput()})) as mx:
        client = await connect(mx)
        await client.hear()
        await client.say(b"EHLO client.example\r\n")
        for _ in range(1000):
            assert await client.reader.readline() == b"250-and furthermore\r\n"
        client.writer.transport.abort()
        await mx.wait_closed()


@pytest.mark.parametrize("raw", [MIXED_CODES, BARE_LF, NUL, OVERLONG, GARBAGE, NO_REPLY_CODE])
async def test_replies_may_be_none(raw: Raw) -> None:
    async with LabMX(MXScript(replies={Stage.NOOP: raw})) as mx:
        client = await connect(mx)
        await client.hello()
        await client.say(b"MAIL FROM:<>\r\nNOOP\r\nQUIT\r\n")
        assert await client.rest() == b"250 2.1.0 Sender ok\r\n" + raw.octets + b"221 2.0.0 Good bye\r\n"
        client.writer.close()


# TLS faults -----------------------------------------------------------------------------------------------------------


async def test_text_is_injected_behind_the_220_to_starttls(ca: CA) -> None:
    replies: dict[Stage, Action] = {Stage.STARTTLS: ExtraOctets(b"250-mx.lab.test\r\n250 AUTH PLAIN\r\n")}
    async with LabMX(MXScript(tls=MXTLS(ca.issue(["mx.good.test"])), replies=replies)) as mx:
        client = await connect(mx)
        await client.hello()
        await client.say(b"STARTTLS\r\n")
        assert await client.reader.read(1000) == b"220 2.0.0 Ready for TLS\r\n250-mx.lab.test\r\n250 AUTH PLAIN\r\n"
        client.writer.close()
        await mx.wait_closed()
        assert mx.connections[0].tls_error is not None


@pytest.mark.parametrize("fault", [TLSFault.GARBAGE, TLSFault.ALERT, TLSFault.CLOSE])
async def test_the_handshake_breaks(fault: TLSFault) -> None:
    async with LabMX(MXScript(tls=MXTLS(fault=fault))) as mx:
        client = await connect(mx)
        await client.hello()
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.start_tls()
        client.writer.transport.abort()
        await mx.wait_closed()
        assert mx.connections[0].tls is None


async def test_the_handshake_hangs() -> None:
    async with LabMX(MXScript(tls=MXTLS(fault=TLSFault.SILENCE))) as mx:
        client = await connect(mx)
        await client.hello()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await client.start_tls()
        client.writer.transport.abort()
        await mx.wait_closed()


async def test_a_client_is_rejected_when_it_thinks_that_all_is_done(ca: CA) -> None:
    tls = MXTLS(ca.issue(["mx.good.test"]), fault=TLSFault.REJECTS_LATE)
    async with LabMX(MXScript(tls=tls)) as mx:
        client = await connect(mx)
        await client.hello()
        await client.start_tls(ca)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await client.say_into_the_void(b"EHLO client.example\r\n")
        client.writer.transport.abort()
        await mx.wait_closed()
        assert mx.connections[0].tls_error is not None


def test_tls_needs_a_certificate_unless_it_fails_before() -> None:
    with pytest.raises(ValueError, match="certificate"):
        MXTLS()
    with pytest.raises(ValueError, match="certificate"):
        MXTLS(fault=TLSFault.REJECTS_LATE)


async def test_starttls_granted_without_any_ends_the_connection() -> None:
    offer = replace(FULL_OFFER, starttls=True)
    async with LabMX(MXScript(offer=offer)) as mx:
        client = await connect(mx)
        await client.hello()
        assert (await client.ask("STARTTLS"))[:3] == b"220"
        assert await client.rest() == b""
        client.writer.close()


# Closed ports, and the end --------------------------------------------------------------------------------------------


async def test_a_closed_port_refuses_and_opens_later() -> None:
    async with LabMX(port_state=PortState.CLOSED) as mx:
        port = mx.port
        with pytest.raises(ConnectionRefusedError):
            await connect(mx)
        await mx.set_port_state(PortState.OPEN)
        assert mx.port == port
        client = await connect(mx)
        assert await client.hear() == GREETING
        await mx.set_port_state(PortState.CLOSED)
        assert await client.rest() == b""
        await mx.wait_closed()
        client.writer.close()
        with pytest.raises(ConnectionRefusedError):
            await connect(mx)


async def test_an_unanswered_port_leaves_clients_waiting() -> None:
    async with LabMX(port_state=PortState.UNANSWERED) as mx:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.3):
                await connect(mx)


async def test_it_listens_on_ipv6_too() -> None:
    async with LabMX(address="::1") as mx:
        client = await connect(mx)
        assert await client.hear() == GREETING
        client.writer.close()
    async with LabMX(address="::1", port_state=PortState.CLOSED) as mx:
        with pytest.raises(ConnectionRefusedError):
            await connect(mx)


async def test_many_connections_are_counted_and_cut_at_the_end() -> None:
    async with LabMX() as mx:
        clients = [await connect(mx) for _ in range(50)]
        await mx.wait_connection(50)
        assert (mx.opened, mx.open_connections) == (50, 50)
        for client in clients:
            assert await client.hear() == GREETING
    assert mx.open_connections == 0
    for client in clients:
        assert await client.rest() == b""
        client.writer.close()


async def test_a_mistake_in_a_script_is_seen_at_the_end() -> None:
    def mistaken(_: Command) -> Action | None:
        raise LookupError("a mistake")

    async def visit(error: Exception | None = None) -> None:
        async with LabMX(MXScript(replies={Stage.CONNECT: mistaken})) as mx:
            client = await connect(mx)
            assert await client.rest() == b""
            client.writer.close()
            if error is not None:
                raise error

    with pytest.raises(LookupError, match="a mistake"):
        await visit()
    with pytest.raises(ZeroDivisionError):  # what went wrong first is not hidden
        await visit(ZeroDivisionError())


async def test_content_has_no_usual_reply_to_give_late() -> None:
    async def visit() -> None:
        async with LabMX(MXScript(content=DelayedReply(1))) as mx:
            client = await connect(mx)
            await client.to_data()
            await client.say(b"x\r\n")
            assert await client.rest() == b""
            client.writer.close()

    with pytest.raises(ValueError, match="content"):
        await visit()


async def test_what_a_host_refused_by_itself_is_known() -> None:
    async with LabMX() as mx:
        client = await connect(mx)
        await client.hello()
        assert (await client.ask("RCPT TO:<b@good.test>"))[:3] == b"503"
        assert (await client.ask("NONSENSE"))[:3] == b"500"
        connection = mx.connections[0]
        assert [rejected.reply.code for rejected in connection.rejected] == [503, 500]
        assert not any(isinstance(command, Noop) for command in connection.commands)
        client.writer.close()


async def test_a_port_that_is_not_free_is_not_taken() -> None:
    async with LabMX() as mx:
        with pytest.raises(LocalError, match="in use"):
            await LabMX(port=mx.port).__aenter__()
