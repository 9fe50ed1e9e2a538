"""Commands out, answers in, each step bounded, on a clock that stands still (RFC 5321 4.5.3.2)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from mailrider.delivery.connection.conversation import Conversation
from mailrider.errors import ConnectionLost, DeadlineExceeded
from mailrider.model.address import NULL_PATH, Mailbox
from mailrider.model.domain import Domain
from mailrider.model.event import Dialogue
from mailrider.net.pipe import LOW_WATER
from mailrider.smtp.commands import Auth, AuthResponse, Data, Ehlo, Mail, Noop, Quit, Rcpt
from mailrider.smtp.replies import ReplyViolation
from mailrider.testing.clock import FakeClock
from tests.support.channels import settle, until
from tests.unit.delivery.scripted import Server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mailrider.model.event import Event
    from mailrider.smtp.client import AnsweredCommand

EHLO = Ehlo(Domain("client.test"))
READY = """
    S: 220 mx
    C: EHLO client.test
    S: 250-mx
    S: 250-AUTH PLAIN
    S: 250 PIPELINING
"""


@pytest.fixture
def clock() -> Iterator[FakeClock]:
    """A clock on which nothing is left pending."""
    clock = FakeClock()
    yield clock
    assert clock.pending == 0


def codes(answers: list[AnsweredCommand]) -> list[int]:
    return [answer.reply.code for answer in answers]


async def ready(clock: FakeClock, script: str = "", piece: int | None = None) -> tuple[Conversation, Server]:
    """A conversation past EHLO, and its server, which goes on with `script`."""
    server = Server(clock, READY + script, piece=piece)
    talk = Conversation(server.channel, clock, "mx.test")
    await talk.answers(300)
    talk.send(EHLO)
    await talk.answers(300)
    return talk, server


async def end(talk: Conversation, server: Server) -> None:
    talk.channel.abort()
    await server.ended()
    await settle()


@pytest.mark.parametrize("piece", [None, 1], ids=["whole", "byte by byte"])
async def test_the_answers_to_a_group_come_together_each_with_its_command(clock: FakeClock, piece: int | None) -> None:
    replies = "C: MAIL FROM:<>\nC: RCPT TO:<a@b.test>\nC: DATA\nS: 250 Ok\nS: 550-No\nS: 550 Nobody\nS: 503 What?"
    talk, server = await ready(clock, replies, piece)
    group = (Mail(NULL_PATH), Rcpt(Mailbox.parse("a@b.test")), Data())
    talk.send(*group)
    answers = await talk.answers(300)
    assert [(answer.command, answer.reply.code) for answer in answers] == list(zip(group, (250, 550, 503), strict=True))
    assert talk.is_at_rest
    await end(talk, server)


async def test_answers_that_are_there_already_are_not_waited_for(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\nS: 250 Ok")
    talk.send(Noop())
    await server.played()
    await until(lambda: talk.has_answers)
    assert not talk.is_at_rest
    assert codes(await talk.answers(0)) == [250]
    assert not talk.has_answers
    await end(talk, server)


# Deadlines ------------------------------------------------------------------------------------------------------------


async def expires(clock: FakeClock, talk: Conversation, seconds: float, after: float) -> None:
    """`answers(seconds)` ends past its deadline, `after` seconds from now and no earlier."""
    waiting = asyncio.create_task(talk.answers(seconds))
    await clock.advance(after - 0.1)
    assert not waiting.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceeded, match=r"mx\.test did not answer in time"):
        await waiting
    assert talk.channel.is_closed


async def test_silence_ends_at_the_deadline(clock: FakeClock) -> None:
    talk, _ = await ready(clock, "C: NOOP")
    talk.send(Noop())
    await expires(clock, talk, seconds=300, after=300)
    await settle()


async def test_a_deadline_is_for_a_whole_reply_not_for_a_byte(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\ndrip 250 " + "x" * 1000)
    talk.send(Noop())
    await expires(clock, talk, seconds=30, after=30)
    await clock.advance(1000)
    await server.played()


async def test_a_deadline_is_for_a_whole_reply_not_for_a_line(clock: FakeClock) -> None:
    lines = "\n".join("S: 250-and\nwait 9" for _ in range(20))
    talk, server = await ready(clock, f"C: NOOP\n{lines}")
    talk.send(Noop())
    await expires(clock, talk, seconds=30, after=30)
    await clock.advance(1000)
    await server.played()


async def test_each_reply_to_a_group_has_its_own_time(clock: FakeClock) -> None:
    talk, _ = await ready(clock, "wait 20\nS: 250 Ok\nwait 20\nS: 250 Ok")
    mailbox = Mailbox.parse("a@b.test")
    talk.send(Mail(NULL_PATH), Rcpt(mailbox), Rcpt(mailbox))
    await expires(clock, talk, seconds=30, after=70)
    assert codes(talk.take_answers()) == [250, 250]
    await settle()


async def test_a_shorter_deadline_holds_though_the_watchdog_was_set_for_a_longer_one(clock: FakeClock) -> None:
    talk, _ = await ready(clock, "C: NOOP\nS: 250 Ok\nC: NOOP")
    talk.send(Noop())
    await talk.answers(300)
    talk.send(Noop())
    await expires(clock, talk, seconds=5, after=5)
    await settle()


async def test_one_timer_serves_all_commands(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\nS: 250 Ok\n" * 50)
    for _ in range(50):
        talk.send(Noop())
        await talk.answers(300)
        assert clock.pending == 1
    await clock.advance(1000)
    assert talk.is_at_rest
    assert clock.pending == 0
    await end(talk, server)


# The end --------------------------------------------------------------------------------------------------------------


async def test_answers_that_came_before_the_end_are_not_lost(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: MAIL FROM:<>\nS: 250 Ok\nclose")
    talk.send(Mail(NULL_PATH), Rcpt(Mailbox.parse("a@b.test")))
    with pytest.raises(ConnectionLost, match=r"mx\.test closed the connection"):
        await talk.answers(300)
    assert codes(talk.take_answers()) == [250]
    await server.played()
    assert isinstance(talk.error, ConnectionLost)
    assert not talk.is_at_rest


async def test_a_reset_is_told_as_the_end_that_it_is(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\nabort")
    talk.send(Noop())
    with pytest.raises(ConnectionLost, match="reset"):
        await talk.answers(300)
    await server.played()


async def test_a_violation_ends_the_conversation_and_the_good_answers_before_it_count(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: MAIL FROM:<>\nS: 250 Ok\nS: hello?")
    talk.send(Mail(NULL_PATH), Rcpt(Mailbox.parse("a@b.test")))
    with pytest.raises(ReplyViolation):
        await talk.answers(300)
    assert codes(talk.take_answers()) == [250]
    await server.ended()
    await settle()


async def test_a_reply_that_nothing_asked_for_is_a_violation_even_when_all_answers_are_there(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\nS: 250 Ok\nS: 250 Ok")
    talk.send(Noop())
    await server.ended()
    with pytest.raises(ReplyViolation):
        await talk.answers(300)
    await settle()


async def test_after_the_end_nothing_is_sent_and_waiting_raises_at_once(clock: FakeClock) -> None:
    talk, server = await ready(clock, "close")
    await server.played()
    await until(lambda: talk.error is not None)
    talk.send(Noop())
    with pytest.raises(ConnectionLost):
        await talk.answers(300)


async def test_a_farewell_ends_the_waiting_for_all_that_was_asked(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: MAIL FROM:<>\nS: 250 Ok\nS: 421 4.3.2 Bye")
    talk.send(Mail(NULL_PATH), Rcpt(Mailbox.parse("a@b.test")), Rcpt(Mailbox.parse("c@b.test")))
    assert codes(await talk.answers(300)) == [250, 421]
    await end(talk, server)


async def test_a_cancelled_wait_leaves_the_answer_for_the_next(clock: FakeClock) -> None:
    talk, server = await ready(clock, "C: NOOP\nwait 1\nS: 250 Ok")
    talk.send(Noop())
    waiting = asyncio.create_task(talk.answers(300))
    await settle()
    waiting.cancel()
    await asyncio.wait([waiting])
    await clock.advance(1)
    assert codes(await talk.answers(300)) == [250]
    await end(talk, server)


async def test_what_happens_while_nobody_waits_is_told(clock: FakeClock) -> None:
    talk, server = await ready(clock, "wait 1\nS: 421 4.3.2 Idle for too long\nclose")
    told: list[bool] = []
    talk.unexpected = lambda: told.append(talk.is_at_rest)
    await clock.advance(1)
    await server.played()
    await until(lambda: len(told) == 2)
    assert told == [False, False]


# Room to write --------------------------------------------------------------------------------------------------------

PIECE = bytes(64 * 1024)


async def stalled(clock: FakeClock, script: str = "") -> tuple[Conversation, Server]:
    """A conversation whose server reads no more, and whose buffer is full."""
    talk, server = await ready(clock, f"C: DATA\nS: 354 Go on\nstall\n{script}")
    talk.send(Data())
    await talk.answers(300)
    await settle()
    talk.channel.write(PIECE)
    talk.channel.write(PIECE)
    assert talk.channel.needs_drain
    return talk, server


async def test_a_server_that_reads_nothing_is_given_up_in_time(clock: FakeClock) -> None:
    talk, _ = await stalled(clock)
    draining = asyncio.create_task(talk.drain(300))
    await clock.advance(299.9)
    assert not draining.done()
    await clock.advance(0.2)
    with pytest.raises(DeadlineExceeded, match="did not take 64 KiB of content within 300 s"):
        await draining
    await settle()


async def test_a_refusal_in_the_middle_of_the_content_ends_the_waiting_for_room(clock: FakeClock) -> None:
    talk, _ = await stalled(clock, "wait 1\nS: 552 5.3.4 Too much")
    draining = asyncio.create_task(talk.drain(300))
    await clock.advance(1)
    with pytest.raises(ConnectionLost):
        await draining
    assert codes(talk.take_answers()) == [552]
    await settle()


async def test_nonsense_in_the_middle_of_the_content_is_what_the_waiting_for_room_raises(clock: FakeClock) -> None:
    talk, _ = await stalled(clock, "wait 1\nS: what?")
    draining = asyncio.create_task(talk.drain(300))
    await clock.advance(1)
    with pytest.raises(ReplyViolation):
        await draining
    await settle()


async def test_an_end_that_was_not_told_yet_is_raised_as_it_is(clock: FakeClock) -> None:
    talk, server = await ready(clock)
    await talk.channel.close()
    with pytest.raises(ConnectionLost):
        await talk.drain(300)
    await server.ended()


async def test_room_comes_when_the_server_reads(clock: FakeClock) -> None:
    talk, server = await ready(clock, f"C: DATA\nS: 354 Go on\noctets {len(PIECE) * 2 - LOW_WATER}")
    talk.send(Data())
    await talk.answers(300)
    talk.channel.write(PIECE)
    talk.channel.write(PIECE)
    await talk.drain(300)
    await server.played()
    await end(talk, server)


# The log --------------------------------------------------------------------------------------------------------------


async def test_the_dialogue_is_told_line_by_line_and_secrets_are_not(clock: FakeClock) -> None:
    events: list[Event] = []
    script = (
        f"{READY}\nC: AUTH PLAIN c2VjcmV0\nS: 334 Z28gb24=\nC: c2VjcmV0\nS: 235 Ok\nC: QUIT\nS: 221-Good\nS: 221 bye"
    )
    server = Server(clock, script)
    talk = Conversation(server.channel, clock, "mx.test", events.append)
    await talk.answers(300)
    for command in (EHLO, Auth("PLAIN", "c2VjcmV0"), AuthResponse("c2VjcmV0"), Quit()):
        talk.send(command)
        await talk.answers(300)
    lines = [(event.direction, event.line) for event in events if isinstance(event, Dialogue)]
    assert lines[:6] == [
        ("S", "220 mx"),
        ("C", "EHLO client.test"),
        ("S", "250 mx"),
        ("S", "250 AUTH PLAIN"),
        ("S", "250 PIPELINING"),
        ("C", "Auth('PLAIN', ...)"),
    ]
    assert lines[-3:] == [("C", "QUIT"), ("S", "221 Good"), ("S", "221 bye")]
    assert "c2VjcmV0" not in str(lines)
    assert {(event.mx, event.address) for event in events if isinstance(event, Dialogue)} == {("mx.test", "192.0.2.25")}
    await end(talk, server)
