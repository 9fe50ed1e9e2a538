"""What was said on a connection, as it is kept for one recipient: no login, no content, no address of others."""

from __future__ import annotations

import pytest

from mailrider.delivery.connection.transcript import MAX_OPENING, shortened, transcript
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.reply import Reply
from mailrider.model.transcript import MAX_TRANSCRIPT
from mailrider.smtp.client import AnsweredCommand
from mailrider.smtp.commands import Auth, AuthResponse, Bdat, Command, Connect, Data, Ehlo, EndOfData, Mail, Rcpt

A, B, C = (Mailbox.parse(f"{name}@example.net") for name in "abc")
MAIL = Mail(ReversePath.parse("me@example.org"))


def answer(command: Command | None, code: int, *lines: str) -> AnsweredCommand:
    return AnsweredCommand(command, Reply.from_lines(code, lines))


def shown(*said: str | Command | AnsweredCommand, to: Mailbox = B) -> list[str]:
    made = transcript(said)
    assert made is not None
    return made.of(str(to)).split("\n")


def test_commands_and_replies_stand_in_the_order_in_which_they_were_said() -> None:
    hello = Ehlo(Domain("mx.example.org"))
    assert shown(
        answer(Connect(), 220, "mx.example.net ESMTP"),
        hello,
        answer(hello, 250, "mx.example.net", "SIZE 1000"),
        "-- TLSv1.3",
        MAIL,
        answer(MAIL, 450, "4.2.0 Later"),
        answer(None, 421, "Bye"),
    ) == [
        "S: 220 mx.example.net ESMTP",
        "C: EHLO mx.example.org",
        "S: 250-mx.example.net",
        "S: 250 SIZE 1000",
        "-- TLSv1.3",
        "C: MAIL FROM:<me@example.org>",
        "S: 450 4.2.0 Later",
        "S: 421 Bye",
    ]


def test_nobody_is_shown_the_addresses_of_others() -> None:
    commands = (MAIL, Rcpt(A), Rcpt(B), Rcpt(C), Data())
    _, to_a, to_b, to_c, _ = commands
    answers = (
        answer(MAIL, 250, "ok"),
        answer(to_a, 250, "a is fine"),
        answer(to_b, 550, "5.1.1 b is unknown"),
        answer(to_c, 250, "c is fine"),
        answer(Data(), 354, "go"),
    )
    expected = [
        "C: MAIL FROM:<me@example.org>",
        "C: RCPT TO:<b@example.net>",
        "(and 2 other recipients)",
        "C: DATA",
        "S: 250 ok",
        "S: 550 5.1.1 b is unknown",
        "(and 2 other recipients)",
        "S: 354 go",
    ]
    assert shown(*commands, *answers) == expected
    assert shown(MAIL, Rcpt(A), to=B) == ["C: MAIL FROM:<me@example.org>", "(and 1 other recipient)"]


def test_one_by_one_each_reply_stands_behind_its_recipient() -> None:
    assert shown(Rcpt(B), answer(Rcpt(B), 250, "ok"), Rcpt(C), answer(Rcpt(C), 250, "ok"), Data()) == [
        "C: RCPT TO:<b@example.net>",
        "S: 250 ok",
        "(and 1 other recipient)",
        "C: DATA",
    ]


def test_in_lmtp_each_recipient_sees_its_own_end() -> None:
    end = EndOfData(2)
    said = (
        *(answer(Rcpt(A), 250, "ok"), answer(Rcpt(B), 550, "no"), answer(Rcpt(C), 250, "ok"), end),
        *(answer(end, 250, "a has it"), answer(end, 452, "c is full")),
    )
    assert shown(*said, to=C)[-2:] == ["S: 452 c is full", "(and 1 other recipient)"]
    assert "a has it" not in "\n".join(shown(*said, to=C))


def test_neither_a_login_nor_content_is_ever_shown() -> None:
    login, response = Auth("PLAIN", "c2VjcmV0"), AuthResponse("aHVudGVyMg==")
    said = (
        *(login, answer(login, 334, "c2VjcmV0"), response, answer(response, 535, "5.7.8 hunter2 is wrong")),
        *(Bdat(1000, last=True), EndOfData()),
    )
    assert shown(*said) == [
        "C: AUTH PLAIN (not shown)",
        "S: 334 (not shown)",
        "C: (not shown)",
        "S: 535 5.7.8 (not shown)",
        "C: BDAT 1000 LAST",
        "C: (so much of the message)",
        "C: (the message and its final dot)",
    ]


def test_of_a_long_dialogue_the_beginning_and_the_end_are_kept() -> None:
    long = tuple(f"{number} ä" + "x" * 1000 for number in range(40))
    made = transcript((answer(Connect(), 220, "hello"), answer(Data(), 554, *long)))
    assert made is not None
    text = made.of("b@example.net")
    assert len(text.encode()) <= MAX_TRANSCRIPT
    assert text.startswith("S: 220 hello\n")
    assert "\n-- (left out)\n" in text
    assert text.endswith(long[-1])


def test_what_servers_say_cannot_move_the_cursor() -> None:
    assert shown("-- \x1b[2Jhandshake\nfailed") == ["--  [2Jhandshake failed"]


def test_nothing_said_is_no_dialogue() -> None:
    assert transcript(()) is None


@pytest.mark.parametrize("lines", [1, 100])
def test_a_kept_connection_holds_only_the_beginning_of_a_long_opening(lines: int) -> None:
    hello = Ehlo(Domain("mx.example.org"))
    said = (answer(Connect(), 220, "hello"), hello, answer(hello, 250, *["x" * 2000] * lines))
    held = shortened(said)
    assert (held == said) == (lines == 1)
    assert sum(len(each) for each in held if isinstance(each, str)) <= MAX_OPENING + 100
