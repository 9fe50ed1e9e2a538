"""A connection from its greeting to the EHLO in TLS, and transactions on it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.delivery.connection.opening import open_session
from mailrider.delivery.connection.peer import Peer, SessionRules
from mailrider.delivery.connection.unusable import Unusable, broken_reply
from mailrider.errors import ConnectionLost
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.model.event import Dialogue, discard
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.net.errors import TLSFailed, TLSFailureKind
from mailrider.smtp.content import Content
from mailrider.smtp.replies import ReplyViolation
from mailrider.smtp.transaction import Transaction
from mailrider.testing.clock import FakeClock
from tests.support.channels import HOST, client_context, server_context, settle
from tests.support.contents import awaited
from tests.support.problems import problem
from tests.unit.delivery.scripted import Server

if TYPE_CHECKING:
    import ssl
    from collections.abc import AsyncIterator, Callable, Iterator

    from mailrider.delivery.connection.session import Session
    from mailrider.model.event import Event
    from mailrider.model.tls_problem import TLSProblem

MX = Domain(HOST)
NAME = Domain("client.test")


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock on which nothing is left pending."""
    clock = FakeClock()
    yield clock
    assert clock.pending == 0


class Call:
    """A session being opened with a scripted server."""

    def __init__(
        self,
        clock: FakeClock,
        script: str,
        *,
        context: ssl.SSLContext | None = None,
        in_clear: TLSProblem | None = None,
        **rules: Any,
    ) -> None:
        self.events: list[Event] = []
        self.server = Server(clock, script, context=context or server_context())
        peer = Peer(MX, "192.0.2.25", 25, HOST, in_clear)
        self.opening = asyncio.create_task(
            open_session(
                self.server.channel,
                peer,
                SessionRules(NAME, 300, 720, **rules),
                clock,
                client_context(),
                self.events.append,
            )
        )

    async def session(self) -> Session:
        """The session, which the whole dialogue led to."""
        session = await self.opening
        await self.server.played()
        return session

    async def unusable(self) -> Unusable:
        """Why there is none; the connection is gone then."""
        with pytest.raises(Unusable) as caught:
            await self.opening
        assert self.server.channel.is_closed
        await self.server.ended()
        await settle()
        return caught.value


def facts(error: Unusable) -> tuple[str, int, str]:
    return error.stage.value, error.reply.code, str(error.reply.enhanced)


async def leave(session: Session, server: Server) -> None:
    session.abort()
    await server.ended()
    await settle()


HELLO = "S: 220 mx ready\nC: EHLO client.test\n"
IN_CLEAR = HELLO + "S: 250-mx\nS: 250-PIPELINING\nS: 250 SIZE 1000\n"
STARTTLS = HELLO + "S: 250-mx\nS: 250-SIZE 1000\nS: 250 STARTTLS\nC: STARTTLS\n"
IN_TLS = STARTTLS + "S: 220 Go ahead\nTLS\nC: EHLO client.test\n"


# What the opening ends in ---------------------------------------------------------------------------------------------


async def test_without_starttls_it_goes_on_in_clear_and_says_why(clock: FakeClock) -> None:
    call = Call(clock, IN_CLEAR)
    session = await call.session()
    assert (session.evidence.tls, session.evidence.clear_reason) == (None, "the server does not offer STARTTLS")
    assert (session.capabilities.pipelining, session.capabilities.max_size) == (True, 1000)
    assert session.is_alive
    await leave(session, call.server)


async def test_with_starttls_the_extensions_from_before_are_forgotten(clock: FakeClock) -> None:
    call = Call(clock, IN_TLS + "S: 250-mx\nS: 250 CHUNKING")
    session = await call.session()
    tls = session.evidence.tls
    assert tls is not None
    assert (tls.version, tls.sni, session.evidence.clear_reason) == ("TLSv1.3", HOST, "")
    assert (session.capabilities.chunking, session.capabilities.size, session.is_encrypted) == (True, False, True)
    await leave(session, call.server)


async def test_tls_that_failed_before_is_kept_out(clock: FakeClock) -> None:
    call = Call(clock, HELLO + "S: 250-mx\nS: 250 STARTTLS", in_clear=problem("TLS failed a minute ago"))
    session = await call.session()
    assert (session.evidence.tls, session.evidence.clear_reason) == (None, "TLS failed a minute ago")
    await leave(session, call.server)


@pytest.mark.parametrize("reply", ["454 4.7.0 Not now", "502 5.5.1 What?"])
async def test_a_refused_starttls_goes_on_in_clear_on_the_same_connection(clock: FakeClock, reply: str) -> None:
    call = Call(clock, STARTTLS + f"S: {reply}")
    session = await call.session()
    text = f"the server refused STARTTLS: {reply}"
    assert session.evidence.clear_because == problem(text, TLSProblemKind.STARTTLS_REFUSED, reply[:3])
    assert session.capabilities.max_size == 1000
    await leave(session, call.server)


async def test_a_refusal_of_starttls_is_a_short_reason_however_long_it_is(clock: FakeClock) -> None:
    lines = "".join(f"S: 454-{'x' * 2000}\n" for _ in range(50))
    call = Call(clock, STARTTLS + lines + "S: 454 Not now")
    session = await call.session()
    assert len(session.evidence.clear_reason) == 256
    await leave(session, call.server)


async def test_ehlo_refused_for_good_is_followed_by_helo(clock: FakeClock) -> None:
    call = Call(clock, HELLO + "S: 502 5.5.1 What?\nC: HELO client.test\nS: 250 mx")
    session = await call.session()
    assert session.capabilities.keywords == {}
    await leave(session, call.server)


async def test_lmtp_says_lhlo_and_never_helo(clock: FakeClock) -> None:
    call = Call(clock, "S: 220 mx\nC: LHLO client.test\nS: 550 5.7.1 Go away", lmtp=True)
    assert facts(await call.unusable()) == ("ehlo", 451, "4.3.2")


# Refused greeting and EHLO --------------------------------------------------------------------------------------------

REFUSALS = {
    "greeting 4xx": ("S: 450 4.3.2 Busy", ("greeting", 450, "4.3.2")),
    "greeting 421": ("S: 421 4.3.2 Closing", ("greeting", 421, "4.3.2")),
    "greeting 4xx without an enhanced code": ("S: 450 Busy", ("greeting", 450, "4.0.0")),
    "greeting 5xx": ("S: 554 5.7.1 Go away", ("greeting", 451, "4.3.2")),
    "EHLO 4xx": (HELLO + "S: 450 4.3.2 Busy", ("ehlo", 450, "4.3.2")),
    "EHLO 421": (HELLO + "S: 421 4.3.2 Closing", ("ehlo", 421, "4.3.2")),
    "EHLO and HELO 5xx": (HELLO + "S: 502 5.5.1 No\nC: HELO client.test\nS: 550 5.7.1 No", ("ehlo", 451, "4.3.2")),
    "EHLO 5xx, HELO 4xx": (HELLO + "S: 502 5.5.1 No\nC: HELO client.test\nS: 450 4.3.2 Busy", ("ehlo", 450, "4.3.2")),
    "greeting and 421 in one breath": (r"raw 220 mx\r\n421 4.3.2 Bye\r\n", ("greeting", 421, "4.3.2")),
    "EHLO and 421 in one breath": (HELLO + r"raw 250 mx\r\n421 4.3.2 Bye\r\n", ("ehlo", 421, "4.3.2")),
    "STARTTLS 421": (STARTTLS + "S: 421 4.3.2 Closing", ("tls", 421, "4.3.2")),
    "EHLO in TLS 4xx": (IN_TLS + "S: 450 4.3.2 Busy", ("ehlo", 450, "4.3.2")),
}


@pytest.mark.parametrize(("script", "expected"), REFUSALS.values(), ids=REFUSALS)
async def test_a_refusal_is_quoted_and_about_us(clock: FakeClock, script: str, expected: tuple[str, int, str]) -> None:
    error = await Call(clock, script).unusable()
    assert facts(error) == expected
    assert error.by_server
    assert error.refusal is not None
    assert error.reply.text.startswith(f"{HOST} said: ")
    assert not error.may_fall_back


async def test_a_refusal_of_521_keeps_its_own_code_beside_the_reply(clock: FakeClock) -> None:
    error = await Call(clock, "S: 521 No mail here").unusable()
    assert error.refusal is not None
    assert (error.reply.code, error.refusal.code, str(error.refusal.enhanced)) == (451, 521, "5.0.0")


# Ends that nobody announced -------------------------------------------------------------------------------------------

ENDS = {
    "closed before the greeting": ("close", ("greeting", 451, "4.4.2")),
    "reset before the greeting": ("abort", ("greeting", 451, "4.4.2")),
    "nonsense for a greeting": ("S: HTTP/1.1 400 Bad Request\nclose", ("greeting", 451, "4.5.0")),
    "a greeting of 3xx": ("S: 354 Go on", ("greeting", 451, "4.5.0")),
    "closed at EHLO": (HELLO + "close", ("ehlo", 451, "4.4.2")),
    "nonsense at EHLO": (HELLO + "S: 250-one\nS: 251 two", ("ehlo", 451, "4.5.0")),
    "closed at STARTTLS": (STARTTLS + "close", ("tls", 451, "4.4.2")),
    "words behind the 220 to STARTTLS": (STARTTLS + "S: 220 Go ahead\nS: 250 Injected", ("tls", 451, "4.7.5")),
    "a byte behind the 220 to STARTTLS, in the same breath": (
        STARTTLS + r"raw 220 Go ahead\r\n2",
        ("tls", 451, "4.7.5"),
    ),
}


@pytest.mark.parametrize(("script", "expected"), ENDS.values(), ids=ENDS)
async def test_an_end_without_a_word(clock: FakeClock, script: str, expected: tuple[str, int, str]) -> None:
    error = await Call(clock, script).unusable()
    assert facts(error) == expected
    assert (error.by_server, error.may_fall_back) == (False, False)


async def test_a_refusal_and_then_close_is_the_refusal(clock: FakeClock) -> None:
    error = await Call(clock, "S: 554 5.7.1 Go away\nclose").unusable()
    assert (facts(error), error.by_server) == (("greeting", 451, "4.3.2"), True)


GONE_AFTER_EHLO = {
    "at once": "S: 554 5.7.1 Go away\nclose",
    "when HELO comes": "S: 554 5.7.1 Go away\nC: HELO client.test\nclose",
    "by silence": "S: 554 5.7.1 Go away\nC: HELO client.test\nwait 400",
}


@pytest.mark.parametrize("script", GONE_AFTER_EHLO.values(), ids=GONE_AFTER_EHLO)
async def test_who_refuses_ehlo_and_has_no_word_for_helo_is_quoted(clock: FakeClock, script: str) -> None:
    call = Call(clock, HELLO + script)
    await clock.advance(301)
    error = await call.unusable()
    assert (facts(error), error.by_server) == (("ehlo", 451, "4.3.2"), True)
    assert error.reply.text == f"{HOST} said: 554 5.7.1 Go away"
    await clock.advance(100)
    await call.server.played()


async def test_nonsense_for_an_answer_to_helo_is_nonsense(clock: FakeClock) -> None:
    error = await Call(clock, HELLO + "S: 502 5.5.1 No\nC: HELO client.test\nS: what?\nclose").unusable()
    assert (facts(error), error.by_server) == (("ehlo", 451, "4.5.0"), False)


SENT_AWAY = {
    "greeting 4xx": "S: 450 4.3.2 Busy\n",
    "greeting 5xx": "S: 554 5.7.1 Go away\n",
    "EHLO 4xx": HELLO + "S: 450 4.3.2 Busy\n",
    "EHLO and HELO 5xx": HELLO + "S: 502 5.5.1 No\nC: HELO client.test\nS: 550 5.7.1 No\n",
    "EHLO in TLS 4xx": IN_TLS + "S: 450 4.3.2 Busy\n",
}


@pytest.mark.parametrize("script", SENT_AWAY.values(), ids=SENT_AWAY)
async def test_a_refusal_is_answered_by_quit(clock: FakeClock, script: str) -> None:
    call = Call(clock, script + "C: QUIT")
    await call.unusable()
    await call.server.played()


async def test_a_farewell_is_not(clock: FakeClock) -> None:
    call = Call(clock, "S: 421 4.3.2 Closing")
    await call.unusable()
    assert call.server.received == b""


async def test_a_refusal_and_then_nonsense_is_the_refusal(clock: FakeClock) -> None:
    error = await Call(clock, "S: 554 5.7.1 Go away\nS: what?").unusable()
    assert facts(error) == ("greeting", 451, "4.3.2")


# TLS ------------------------------------------------------------------------------------------------------------------

BROKEN_TLS = {
    "no TLS behind the 220": (
        STARTTLS + "S: 220 Go ahead\noctets 5\nS: 454 4.7.0 On second thoughts",
        "protocol-error",
    ),
    "closed in the handshake": (STARTTLS + "S: 220 Go ahead\noctets 5\nclose", "closed"),
    "reset in the handshake": (STARTTLS + "S: 220 Go ahead\noctets 5\nabort", "closed"),
    "closed before the reply to EHLO in TLS": (IN_TLS + "close", "closed"),
    "reset before the reply to EHLO in TLS": (IN_TLS + "abort", "closed"),
}


@pytest.mark.parametrize(("script", "kind"), BROKEN_TLS.values(), ids=BROKEN_TLS)
async def test_a_handshake_that_the_server_ended_may_be_followed_by_clear_text(
    clock: FakeClock, script: str, kind: str
) -> None:
    error = await Call(clock, script).unusable()
    assert (facts(error), error.may_fall_back, error.handshake) == (("tls", 451, "4.7.5"), True, True)
    assert error.problem == problem(error.reply.text, TLSProblemKind(kind))


async def test_a_certificate_demanded_of_us_fails_the_handshake_though_it_seemed_done(clock: FakeClock) -> None:
    call = Call(clock, STARTTLS + "S: 220 Go ahead\nTLS", context=server_context(demand_client=True))
    error = await call.unusable()
    assert (facts(error), error.may_fall_back) == (("tls", 451, "4.7.5"), True)
    certificate_required = problem(error.reply.text, TLSProblemKind.REMOTE_ALERT, "certificate_required")
    assert error.problem == certificate_required
    with pytest.raises(TLSFailed):
        await call.server.played()


async def test_words_in_clear_behind_the_220_are_an_injection(clock: FakeClock) -> None:
    error = await Call(clock, STARTTLS + "S: 220 Go ahead\nS: 250 Injected").unusable()
    assert error.problem == problem(error.reply.text, TLSProblemKind.STARTTLS_INJECTION)


async def test_who_closes_with_a_refusal_of_starttls_refused_it(clock: FakeClock) -> None:
    error = await Call(clock, STARTTLS + "S: 421 4.3.2 Closing").unusable()
    assert error.problem == problem(
        "the server refused STARTTLS: 421 4.3.2 Closing", TLSProblemKind.STARTTLS_REFUSED, "421"
    )


NOT_THE_HANDSHAKE = {
    "nonsense as the reply to EHLO in TLS": (IN_TLS + "S: what?\nclose", ("ehlo", 451, "4.5.0")),
    "a reply to EHLO that breaks off": (IN_TLS + "S: 250-mx\nclose", ("ehlo", 451, "4.4.2")),
    "closed at HELO in TLS": (IN_TLS + "S: 502 5.5.1 No\nC: HELO client.test\nclose", ("ehlo", 451, "4.3.2")),
}


@pytest.mark.parametrize(("script", "expected"), NOT_THE_HANDSHAKE.values(), ids=NOT_THE_HANDSHAKE)
async def test_what_goes_wrong_once_the_server_spoke_in_tls_is_not_the_handshake(
    clock: FakeClock, script: str, expected: tuple[str, int, str]
) -> None:
    error = await Call(clock, script).unusable()
    assert (facts(error), error.may_fall_back) == (expected, False)


ALERT = r"beneath \x15\x03\x03\x00\x02\x02\x28"


@pytest.mark.parametrize(
    ("version", "expected"),
    [("tls1.2", ("ehlo", 451, "4.7.5")), ("tls1.3", ("tls", 451, "4.7.5"))],
)
async def test_an_alert_in_place_of_a_reply_is_a_failed_handshake_in_tls_1_3_only(
    clock: FakeClock, version: str, expected: tuple[str, int, str]
) -> None:
    call = Call(clock, IN_TLS + ALERT, context=server_context(protocols=(version, version)))
    error = await call.unusable()
    assert (facts(error), error.may_fall_back) == (expected, version == "tls1.3")


# Timers ---------------------------------------------------------------------------------------------------------------

SILENCES = {
    "greeting": ("", 300, ("greeting", 451, "4.4.2")),
    "EHLO": (HELLO, 20, ("ehlo", 451, "4.4.2")),
    "STARTTLS": (STARTTLS, 20, ("tls", 451, "4.4.2")),
    "handshake": (STARTTLS + "S: 220 Go ahead", 20, ("tls", 451, "4.7.5")),
    "EHLO in TLS": (IN_TLS, 20, ("ehlo", 451, "4.4.2")),
}


@pytest.mark.parametrize(("script", "seconds", "expected"), SILENCES.values(), ids=SILENCES)
async def test_each_step_has_its_time_and_silence_never_leads_to_clear_text(
    clock: FakeClock, script: str, seconds: float, expected: tuple[str, int, str]
) -> None:
    server = Server(clock, script, context=server_context())
    peer = Peer(MX, "192.0.2.25", 25, HOST)
    opening = asyncio.create_task(
        open_session(server.channel, peer, SessionRules(NAME, 20, 720), clock, client_context(), discard)
    )
    await server.played()
    await settle()
    await clock.advance(seconds - 0.1)
    assert not opening.done()
    await clock.advance(0.2)
    with pytest.raises(Unusable) as caught:
        await opening
    assert (facts(caught.value), caught.value.may_fall_back) == (expected, False)
    await settle()


async def test_a_greeting_that_comes_a_byte_a_second_ends_after_five_minutes(clock: FakeClock) -> None:
    call = Call(clock, "drip 220 " + "x" * 400)
    await clock.advance(299)
    assert not call.opening.done()
    await clock.advance(2)
    assert facts(await call.unusable()) == ("greeting", 451, "4.4.2")
    await clock.advance(200)
    await call.server.played()


BROKEN = {
    "a violation": (ReplyViolation("mixed codes"), (451, "4.5.0")),
    "TLS": (TLSFailed("alert", TLSFailureKind.ALERT), (451, "4.7.5")),
    "a loss": (ConnectionLost("gone"), (451, "4.4.2")),
}


@pytest.mark.parametrize(("error", "expected"), BROKEN.values(), ids=BROKEN)
def test_what_broke_a_connection_as_a_reply(error: Exception, expected: tuple[int, str]) -> None:
    reply = broken_reply("mx.test", error)
    assert (reply.code, str(reply.enhanced)) == expected
    assert reply.text.startswith("mx.test")


# Transactions ---------------------------------------------------------------------------------------------------------

MESSAGE = b"Subject: hello\r\n\r\n.dot\r\n"
GROUP = "C: MAIL FROM:<a@b.test>\nC: RCPT TO:<c@d.test>\nC: DATA\n"
PLAIN = HELLO + "S: 250-mx\nS: 250 PIPELINING\n"
CHUNKING = HELLO + "S: 250-mx\nS: 250-PIPELINING\nS: 250 CHUNKING\n"
ACCEPTED = "S: 250 Ok\nS: 250 Ok\n"


MADE = [pytest.param(Content.inspect, id="in memory"), pytest.param(awaited, id="from a store")]


class Delivery:
    """A transaction on a session with a scripted server."""

    def __init__(self, clock: FakeClock, script: str, message: bytes = MESSAGE, recipients: int = 1) -> None:
        self.call = Call(clock, script)
        self.content = Content.inspect(message)
        self.recipients = [Recipient(Mailbox.parse("c@d.test")) for _ in range(recipients)]
        self.transaction: Transaction
        self.session: Session

    async def begin(self) -> asyncio.Task[Exception | None]:
        self.session = await self.call.opening
        envelope = Envelope(ReversePath.parse("a@b.test"), tuple(self.recipients))
        self.transaction = Transaction(envelope, self.recipients, self.content, self.session.capabilities)
        return asyncio.create_task(self.session.transact(self.transaction, self.content))

    async def run(self) -> Exception | None:
        return await (await self.begin())

    @property
    def codes(self) -> list[int]:
        return [decision.reply.code for decision in self.transaction.decisions.values()]


@pytest.mark.parametrize("made", MADE)
async def test_data_is_stuffed_and_ends_with_a_lone_dot(clock: FakeClock, made: Callable[[bytes], Content]) -> None:
    script = PLAIN + GROUP + ACCEPTED + "S: 354 Go on\nC: Subject: hello\nC: \nC: ..dot\nC: .\nS: 250 2.0.0 Ok"
    delivery = Delivery(clock, script.replace("C: \n", "octets 2\n"))
    delivery.content = made(MESSAGE)
    assert await delivery.run() is None
    assert (delivery.codes, delivery.transaction.reusable, delivery.session.transactions) == ([250], True, 1)
    await leave(delivery.session, delivery.call.server)


async def test_a_chunk_is_as_it_is_and_the_last_one_is_the_end(clock: FakeClock) -> None:
    script = (
        CHUNKING + GROUP.removesuffix("C: DATA\n") + ACCEPTED + f"C: BDAT {len(MESSAGE)} LAST\noctets 24\nS: 250 Ok"
    )
    delivery = Delivery(clock, script)
    assert await delivery.run() is None
    assert delivery.codes == [250]
    assert delivery.call.server.received.endswith(b"LAST\r\n" + MESSAGE)
    await leave(delivery.session, delivery.call.server)


@pytest.mark.parametrize("made", MADE)
async def test_content_larger_than_a_chunk_goes_in_several(clock: FakeClock, made: Callable[[bytes], Content]) -> None:
    big, chunk = b"x" * (9 * 1024 * 1024), 4 * 1024 * 1024
    rest = len(big) + 2 - 2 * chunk
    one = f"C: BDAT {chunk}\noctets {chunk}\nS: 250 Ok\n"
    script = (
        CHUNKING
        + GROUP.removesuffix("C: DATA\n")
        + ACCEPTED
        + one * 2
        + f"C: BDAT {rest} LAST\noctets {rest}\nS: 250 Ok"
    )
    delivery = Delivery(clock, script, big)
    delivery.content = made(big + b"\r\n")
    assert await delivery.run() is None
    assert delivery.codes == [250]
    await leave(delivery.session, delivery.call.server)


async def test_a_store_that_fails_in_the_middle_ends_the_connection_before_the_end_of_the_content(
    clock: FakeClock,
) -> None:
    async def supply() -> AsyncIterator[bytes]:
        yield MESSAGE
        await asyncio.sleep(0)
        raise OSError("the disk is gone")

    script = PLAIN + GROUP + ACCEPTED + "S: 354 Go on\n"
    delivery = Delivery(clock, script)
    delivery.content = Content.awaited(supply, MESSAGE, size=100_000, eight_bit=False, header_size=16)
    with pytest.raises(OSError, match="the disk is gone"):
        await delivery.run()
    assert not delivery.session.is_alive
    assert not delivery.transaction.in_doubt
    assert not delivery.call.server.received.endswith(b"\r\n.\r\n")


async def test_consent_without_a_recipient_is_answered_by_a_lone_dot(clock: FakeClock) -> None:
    script = PLAIN + GROUP + "S: 250 Ok\nS: 550 5.1.1 Nobody\nS: 354 Go on\nC: .\nS: 554 5.5.1 Nobody is left"
    delivery = Delivery(clock, script)
    assert await delivery.run() is None
    assert (delivery.codes, delivery.transaction.reusable) == ([550], False)
    await delivery.call.server.played()
    assert delivery.call.server.received.endswith(b"DATA\r\n.\r\n")
    await leave(delivery.session, delivery.call.server)


LONE_DOT = PLAIN + GROUP + "S: 250 Ok\nS: 550 5.1.1 Nobody\nS: 354 Go on\nC: .\n"


@pytest.mark.parametrize("end", ["S: 250 2.0.0 Ok", "S: 421 4.3.2 Closing", "S: what?", "close", "abort", "wait 301"])
async def test_whatever_follows_a_lone_dot_is_not_waited_for_and_the_connection_not_used_again(
    clock: FakeClock, end: str
) -> None:
    delivery = Delivery(clock, LONE_DOT + end)
    assert await delivery.run() is None
    transaction = delivery.transaction
    assert (delivery.codes, transaction.reusable, transaction.farewell) == ([550], False, None)
    await leave(delivery.session, delivery.call.server)
    await clock.advance(301)


async def test_a_refused_sender_is_followed_by_rset_and_the_connection_stays_good(clock: FakeClock) -> None:
    script = HELLO + "S: 250 mx\nC: MAIL FROM:<a@b.test>\nS: 550 5.7.1 No\nC: RSET\nS: 250 Ok"
    delivery = Delivery(clock, script)
    assert await delivery.run() is None
    assert (delivery.codes, delivery.transaction.reusable, delivery.session.is_alive) == ([550], True, True)
    await leave(delivery.session, delivery.call.server)


LOSSES = {
    "before any reply": (PLAIN + GROUP + "close", [], False, False),
    "after a partial reply": (PLAIN + GROUP + "S: 250-Ok\nclose", [], True, False),
    "after MAIL was refused": (PLAIN + GROUP + "S: 550 5.7.1 No\nclose", [550], True, False),
    "after consent": (PLAIN + GROUP + ACCEPTED + "S: 354 Go on\nclose", [], True, False),
    "behind the final dot": (PLAIN + GROUP + ACCEPTED + "S: 354 Go on\noctets 27\nclose", [], True, True),
    "nonsense behind the final dot": (
        PLAIN + GROUP + ACCEPTED + "S: 354 Go on\noctets 27\nS: ?\nclose",
        [],
        True,
        True,
    ),
}


@pytest.mark.parametrize(("script", "codes", "answered", "doubt"), LOSSES.values(), ids=LOSSES)
async def test_a_loss_leaves_what_was_read_and_a_doubt_where_there_is_one(
    clock: FakeClock, script: str, codes: list[int], answered: bool, doubt: bool
) -> None:
    delivery = Delivery(clock, script)
    assert await delivery.run() is not None
    transaction = delivery.transaction
    assert (delivery.codes, transaction.answered, transaction.in_doubt) == (codes, answered, doubt)
    assert not transaction.reusable
    await delivery.call.server.ended()
    await settle()


FAREWELLS = {
    "421": ("S: 421 4.3.2 Idle for too long", 421),
    "421 and close": ("S: 421 4.3.2 Idle for too long\nclose", 421),
    "close": ("close", None),
    "nonsense": ("S: Are you still there?", None),
}


@pytest.mark.parametrize(("script", "farewell"), FAREWELLS.values(), ids=FAREWELLS)
async def test_what_the_server_said_before_the_transaction_is_no_answer_to_it(
    clock: FakeClock, script: str, farewell: int | None
) -> None:
    delivery = Delivery(clock, PLAIN + "wait 1\n" + script)
    session = await delivery.call.opening
    await clock.advance(1)
    await delivery.call.server.played()
    assert not session.is_alive
    lost = await delivery.run()
    transaction = delivery.transaction
    assert (delivery.codes, transaction.undecided, transaction.answered, transaction.reusable) == (
        [],
        (0,),
        False,
        False,
    )
    assert (transaction.farewell and transaction.farewell.code) == farewell
    assert (lost is None) is (script == FAREWELLS["421"][0])
    await leave(session, delivery.call.server)


TIMERS = {
    "envelope": (PLAIN + GROUP, 300, False),
    "consent": (PLAIN + GROUP + ACCEPTED, 300, False),
    "the final dot": (PLAIN + GROUP + ACCEPTED + "S: 354 Go on\noctets 27", 720, True),
    "the last chunk": (
        CHUNKING + GROUP.removesuffix("C: DATA\n") + ACCEPTED + f"C: BDAT {len(MESSAGE)} LAST\noctets 24",
        720,
        True,
    ),
}


@pytest.mark.parametrize(("script", "seconds", "doubt"), TIMERS.values(), ids=TIMERS)
async def test_each_reply_has_its_time(clock: FakeClock, script: str, seconds: float, doubt: bool) -> None:
    delivery = Delivery(clock, script)
    transacting = await delivery.begin()
    await delivery.call.server.played()
    await settle()
    await clock.advance(seconds - 0.1)
    assert not transacting.done()
    await clock.advance(0.2)
    assert "did not answer in time" in str(await transacting)
    assert delivery.transaction.in_doubt is doubt
    await settle()


async def test_all_replies_before_the_content_have_a_time_together(clock: FakeClock) -> None:
    """Each of them comes in time: 2 x 300 s, and 10 s for each recipient."""
    group = "C: MAIL FROM:<a@b.test>\n" + "C: RCPT TO:<c@d.test>\n" * 10 + "C: DATA\n"
    delivery = Delivery(clock, PLAIN + group + "wait 299\nS: 250 Ok\n" * 2 + "wait 90\nS: 250 Ok\n", recipients=10)
    transacting = await delivery.begin()
    await settle()
    await clock.advance(699)
    assert not transacting.done()
    await clock.advance(2)
    assert "did not answer in time" in str(await transacting)
    assert (delivery.transaction.in_doubt, delivery.codes) == (False, [])
    await delivery.call.server.played()
    await settle()


async def test_a_server_that_is_slow_with_each_recipient_gets_the_message_for_those_that_it_took(
    clock: FakeClock,
) -> None:
    slowly = "C: RCPT TO:<c@d.test>\nwait 100\nS: 250 Ok\n"
    script = f"C: MAIL FROM:<a@b.test>\nS: 250 Ok\n{slowly * 4}C: DATA\nS: 354 Go on\noctets 27\nS: 250 Ok\n"
    delivery = Delivery(clock, HELLO + "S: 250 mx\n" + script, recipients=10)
    transacting = await delivery.begin()
    await settle()
    await clock.advance(500)
    assert await transacting is None
    assert delivery.codes == [250] * 4
    assert delivery.transaction.overflow == [4, 5, 6, 7, 8, 9]
    assert delivery.transaction.reusable
    await leave(delivery.session, delivery.call.server)


async def test_a_server_that_is_slow_and_took_nobody_is_asked_on(clock: FakeClock) -> None:
    refused = "C: RCPT TO:<c@d.test>\nwait 290\nS: 550 No\n"
    taken = "C: RCPT TO:<c@d.test>\nS: 250 Ok\n"
    script = f"C: MAIL FROM:<a@b.test>\nwait 200\nS: 250 Ok\n{refused}{taken}C: DATA\nS: 354 Go on\n"
    delivery = Delivery(clock, HELLO + "S: 250 mx\n" + script + "octets 27\nS: 250 Ok\n", recipients=2)
    transacting = await delivery.begin()
    await settle()
    await clock.advance(500)
    assert await transacting is None
    assert delivery.codes == [550, 250]
    await leave(delivery.session, delivery.call.server)


async def test_content_must_be_taken_64_kib_at_a_time(clock: FakeClock) -> None:
    slowly = "wait 299\ngo\noctets 65536\nstall\n" * 3
    delivery = Delivery(clock, PLAIN + GROUP + ACCEPTED + f"S: 354 Go on\nstall\n{slowly}", b"x" * 1_000_000)
    transacting = await delivery.begin()
    await settle()
    await clock.advance(3 * 299 + 200)
    assert not transacting.done()
    await clock.advance(200)
    assert "did not take 64 KiB of content within 300 s" in str(await transacting)
    assert (delivery.transaction.in_doubt, delivery.transaction.undecided) == (False, (0,))
    await delivery.call.server.played()
    await settle()


async def test_a_cancelled_transaction_ends_its_connection(clock: FakeClock) -> None:
    delivery = Delivery(clock, PLAIN + GROUP)
    transacting = await delivery.begin()
    await delivery.call.server.played()
    transacting.cancel()
    await asyncio.wait([transacting])
    assert not delivery.session.is_alive
    await delivery.call.server.ended()
    await settle()


# Farewell -------------------------------------------------------------------------------------------------------------

QUITS = {
    "221": "C: QUIT\nS: 221 Bye\nclose",
    "refused": "C: QUIT\nS: 554 5.0.0 You stay\n",
    "nonsense": "C: QUIT\nS: Bye!\n",
    "closed": "C: QUIT\nclose",
    "reset": "C: QUIT\nabort",
    "closed already": "close",
    "said 421 already": "S: 421 4.3.2 Bye",
}


@pytest.mark.parametrize("script", QUITS.values(), ids=QUITS)
async def test_whatever_the_server_makes_of_quit_the_connection_is_closed(clock: FakeClock, script: str) -> None:
    call = Call(clock, PLAIN + "wait 1\n" + script)
    session = await call.opening
    await clock.advance(1)
    await session.quit()
    await call.server.played()
    await call.server.ended()
    assert not session.is_alive
    await settle()


async def test_a_silent_server_has_five_seconds_for_quit(clock: FakeClock) -> None:
    call = Call(clock, PLAIN + "C: QUIT\nstall")
    session = await call.opening
    quitting = asyncio.create_task(session.quit())
    await clock.advance(4.9)
    assert not quitting.done()
    await clock.advance(0.2)
    await quitting
    await settle()


async def test_the_dialogue_is_told_under_debug_only(clock: FakeClock) -> None:
    quiet, debug = Call(clock, PLAIN), Call(clock, PLAIN, debug=True)
    for call in (quiet, debug):
        await leave(await call.session(), call.server)
    assert quiet.events == []
    assert [str(event.line) for event in debug.events if isinstance(event, Dialogue)][:2] == [
        "220 mx ready",
        "EHLO client.test",
    ]
