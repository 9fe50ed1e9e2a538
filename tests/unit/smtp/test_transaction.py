"""Transactions as dialogues: what is sent, and what the replies mean for each recipient (RFC 5321 3.3, 2920 3.1)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.model.outcome import TryResult
from mailrider.model.reply import Reply
from mailrider.smtp import transaction as transaction_module
from mailrider.smtp.client import AnsweredCommand
from mailrider.smtp.commands import Data
from mailrider.smtp.steps import Decision, SendCommands
from mailrider.smtp.transaction import Transaction
from tests.unit.smtp.dialogue import Facts, fates, mail, offer, transact

if TYPE_CHECKING:
    from mailrider.smtp.capabilities import Capabilities

PLAIN = offer()
PIPELINING = offer("PIPELINING")
CHUNKING = offer("CHUNKING")
BOTH = offer("PIPELINING", "CHUNKING")


# All goes well -------------------------------------------------------------------------------------------------------


def test_without_pipelining_each_command_waits_for_its_reply() -> None:
    done = transact(PLAIN, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        S: 250 2.1.0 OK
        C: RCPT TO:<b@example.net>
        S: 250 2.1.5 OK
        C: RCPT TO:<c@example.net>
        S: 251 2.1.5 will forward
        C: DATA
        S: 354 go
        C: <content>
        C: .
        S: 250 2.0.0 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "final 250 2.0.0 queued", "c": "final 250 2.0.0 queued"}
    assert done.reusable
    assert done.answered
    assert done.content_sent
    assert not done.in_doubt


def test_with_pipelining_the_envelope_and_data_are_one_group() -> None:
    done = transact(PIPELINING, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "final 250 queued", "c": "final 250 queued"}
    assert done.reusable


def test_a_chunk_waits_for_the_replies_to_the_envelope() -> None:
    done = transact(BOTH, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        S: 250 OK
        S: 250 OK
        S: 550 no such user
        C: BDAT 10 LAST
        C: <10 octets>
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "final 250 queued", "c": "rcpt 550 no such user"}
    assert done.reusable


def test_a_large_message_goes_in_several_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "CHUNK_SIZE", 4)
    done = transact(CHUNKING, mail("b"), """
        C: MAIL FROM:<a@example.org>
        S: 250 OK
        C: RCPT TO:<b@example.net>
        S: 250 OK
        C: BDAT 4
        C: <4 octets>
        S: 250 4 octets
        C: BDAT 4
        C: <4 octets>
        S: 250 4 octets
        C: BDAT 2 LAST
        C: <2 octets>
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "final 250 queued"}


@pytest.mark.parametrize(
    ("size", "chunks"), [(0, ["0 LAST"]), (4, ["4 LAST"]), (5, ["4", "1 LAST"]), (8, ["4", "4 LAST"])]
)
def test_the_last_chunk_is_never_an_empty_one_but_for_an_empty_message(
    monkeypatch: pytest.MonkeyPatch, size: int, chunks: list[str]
) -> None:
    monkeypatch.setattr(transaction_module, "CHUNK_SIZE", 4)
    script = "".join(f"C: BDAT {chunk}\nC: <{chunk.split()[0]} octets>\nS: 250 OK\n" for chunk in chunks)
    transact(
        BOTH,
        mail("b"),
        "C: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\nS: 250 OK\nS: 250 OK\n" + script,
        facts=Facts(size=size),
    )


def test_in_lmtp_each_recipient_has_a_final_reply_of_its_own() -> None:
    done = transact(BOTH, mail("b", "c", "d"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: RCPT TO:<d@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 stored
        S: 452 4.2.2 mailbox full
    """, lmtp=True)  # fmt: skip
    assert fates(done) == {"b": "final 250 stored", "c": "rcpt 550 no such user", "d": "final 452 4.2.2 mailbox full"}
    assert not done.in_doubt


# Refusals -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [450, 451, 550, 554])
def test_a_refused_mail_decides_every_recipient_and_what_follows_is_ignored(code: int) -> None:
    done = transact(PIPELINING, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: {code} not you
        S: 250 OK
        S: 550 no such user
        S: 503 no
    """)  # fmt: skip
    assert fates(done) == {"b": f"mail {code} not you", "c": f"mail {code} not you"}


def test_behind_a_refused_mail_nobody_is_accepted_whatever_the_server_says() -> None:
    done = transact(PIPELINING, mail("b"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 550 not you
        S: 250 OK
        S: 354 go
        C: .
    """)  # fmt: skip
    assert fates(done) == {"b": "mail 550 not you"}
    assert not done.content_sent
    assert not done.reusable


def test_without_pipelining_nothing_follows_a_refused_mail_but_rset() -> None:
    done = transact(PLAIN, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        S: 451 later
        C: RSET
        S: 250 OK
    """)  # fmt: skip
    assert fates(done) == {"b": "mail 451 later", "c": "mail 451 later"}
    assert done.reusable


def test_a_refused_rcpt_decides_its_recipient_alone() -> None:
    done = transact(PIPELINING, mail("b", "c", "d"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: RCPT TO:<d@example.net>
        C: DATA
        S: 250 OK
        S: 550 5.1.1 no such user
        S: 250 OK
        S: 450 4.2.1 greylisted
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {
        "b": "rcpt 550 5.1.1 no such user",
        "c": "final 250 queued",
        "d": "rcpt 450 4.2.1 greylisted",
    }
    assert done.reusable


@pytest.mark.parametrize("code", [451, 554])
def test_a_refused_data_decides_only_those_that_rcpt_accepted(code: int) -> None:
    done = transact(PIPELINING, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: {code} no data
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": f"data {code} no data"}
    assert not done.reusable


def test_if_every_rcpt_was_refused_a_refused_data_says_nothing_new() -> None:
    done = transact(PIPELINING, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 450 later
        S: 503 no recipients
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "rcpt 450 later"}


def test_503_behind_a_refused_rcpt_judges_nobody() -> None:
    done = transact(PIPELINING, mail("b", "c", "d"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: RCPT TO:<d@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 451 later
        S: 503 MAIL first
        S: 503 MAIL first
    """)  # fmt: skip
    assert fates(done) == {"b": "overflow", "c": "rcpt 451 later", "d": "overflow"}
    assert not done.in_doubt


def test_if_every_rcpt_was_refused_a_consent_to_data_gets_a_lone_dot_whose_reply_is_not_waited_for() -> None:
    done = transact(PIPELINING, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 450 later
        S: 354 go
        C: .
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "rcpt 450 later"}
    assert not done.reusable
    assert not done.content_sent
    assert not done.in_doubt


@pytest.mark.parametrize("offered", [PLAIN, CHUNKING, BOTH])
@pytest.mark.parametrize(("reply", "reusable"), [("250 OK", True), ("500 what?", False), ("421 bye", False)])
def test_if_every_rcpt_was_refused_before_data_was_sent_the_transaction_is_reset(
    offered: Capabilities, reply: str, reusable: bool
) -> None:
    rcpt, replies = "C: RCPT TO:<b@example.net>", ["S: 250 OK", "S: 550 no such user"]
    lines = [rcpt, *replies] if offered.pipelining else [replies[0], rcpt, replies[1]]
    done = transact(offered, mail("b"), "\n".join(["C: MAIL FROM:<a@example.org>", *lines, "C: RSET", f"S: {reply}"]))
    assert fates(done) == {"b": "rcpt 550 no such user"}
    assert done.reusable is reusable


@pytest.mark.parametrize("code", [451, 552])
def test_a_refused_chunk_decides(monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    monkeypatch.setattr(transaction_module, "CHUNK_SIZE", 4)
    done = transact(BOTH, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        S: 250 OK
        S: 250 OK
        S: 550 no such user
        C: BDAT 4
        C: <4 octets>
        S: 250 4 octets
        C: BDAT 4
        C: <4 octets>
        S: {code} too large
    """)  # fmt: skip
    assert fates(done) == {"b": f"data {code} too large", "c": "rcpt 550 no such user"}
    assert not done.reusable


@pytest.mark.parametrize("code", [421, 451, 550])
@pytest.mark.parametrize(
    ("offered", "tail"),
    [
        (PLAIN, "C: DATA\nS: 354 go\nC: <content>\nC: .\n"),
        (CHUNKING, "C: BDAT 10 LAST\nC: <10 octets>\n"),
    ],
)
def test_the_reply_to_the_end_of_data_decides_all_that_rcpt_accepted(
    offered: Capabilities, tail: str, code: int
) -> None:
    done = transact(
        offered,
        mail("b", "c"),
        "C: MAIL FROM:<a@example.org>\nS: 250 OK\n"
        "C: RCPT TO:<b@example.net>\nS: 250 OK\nC: RCPT TO:<c@example.net>\nS: 450 later\n"
        f"{tail}S: {code} no",
    )
    assert fates(done) == {"b": f"final {code} no", "c": "rcpt 450 later"}
    assert not done.reusable
    assert not done.in_doubt


@pytest.mark.parametrize("code", [452, 552])
def test_a_refusal_in_the_middle_of_the_content_decides_without_waiting_for_its_end(code: int) -> None:
    done = transact(PIPELINING, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 550 no such user
        S: 354 go
        C: <content>
        S: {code} too large
    """)  # fmt: skip
    assert fates(done) == {"b": f"data {code} too large", "c": "rcpt 550 no such user"}
    assert not done.reusable
    done.sent_final()
    assert not done.in_doubt  # whatever is sent now, the server has said no


def test_a_refusal_in_one_piece_with_the_consent_decides_too() -> None:
    done = transact(PLAIN, mail("b"), """
        C: MAIL FROM:<a@example.org>
        S: 250 OK
        C: RCPT TO:<b@example.net>
        S: 250 OK
        C: DATA
        S: 354 go
        S: 451 or rather not
    """)  # fmt: skip
    assert fates(done) == {"b": "data 451 or rather not"}
    assert not done.content_sent


@pytest.mark.parametrize(
    ("stage", "code", "another"),
    [
        (TryResult.MAIL, 451, True),
        (TryResult.RCPT, 450, True),
        (TryResult.DATA, 451, True),
        (TryResult.FINAL, 451, False),
        (TryResult.MAIL, 550, False),
        (TryResult.FINAL, 250, False),
    ],
)
def test_another_candidate_may_think_otherwise_about_a_4xx_before_the_end_of_data(
    stage: TryResult, code: int, another: bool
) -> None:
    assert Decision(stage, Reply(code)).may_try_another is another


# 421 is a farewell (section 5) ---------------------------------------------------------------------------------------

FAREWELLS = {
    "to MAIL": ("S: 421 bye", {"b": "undecided", "c": "undecided"}),
    "to the first RCPT": ("S: 250 OK\nS: 421 bye", {"b": "undecided", "c": "undecided"}),
    "to the second RCPT": (
        "S: 250 OK\nS: 550 no such user\nS: 421 bye",
        {"b": "rcpt 550 no such user", "c": "undecided"},
    ),
    "to DATA": (
        "S: 250 OK\nS: 550 no such user\nS: 250 OK\nS: 421 bye",
        {"b": "rcpt 550 no such user", "c": "undecided"},
    ),
    "unasked, with the consent": ("S: 250 OK\nS: 250 OK\nS: 250 OK\nS: 354 go\nS: 421 bye", None),
    "in the middle of the content": ("S: 250 OK\nS: 250 OK\nS: 250 OK\nS: 354 go\nC: <content>\nS: 421 bye", None),
    "to one RCPT, and the others are answered": (
        "S: 250 OK\nS: 421 not this one\nS: 550 no such user\nS: 354 go",
        {"b": "undecided", "c": "rcpt 550 no such user"},
    ),
    "to one RCPT, and the others are accepted": ("S: 250 OK\nS: 421 not this one\nS: 250 OK\nS: 354 go", None),
    "to MAIL, and the others are answered": ("S: 421 bye\nS: 250 OK\nS: 550 no such user\nS: 503 no", None),
}


@pytest.mark.parametrize(("replies", "expected"), FAREWELLS.values(), ids=FAREWELLS)
def test_a_421_before_the_end_of_data_decides_nobody(replies: str, expected: dict[str, str] | None) -> None:
    group = "C: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\nC: RCPT TO:<c@example.net>\nC: DATA\n"
    done = transact(PIPELINING, mail("b", "c"), group + replies)
    assert fates(done) == (expected or {"b": "undecided", "c": "undecided"})
    assert done.farewell is not None
    assert done.farewell.code == 421
    assert not done.reusable
    assert not done.in_doubt


def test_a_421_to_a_chunk_that_is_not_the_last_decides_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "CHUNK_SIZE", 4)
    done = transact(BOTH, mail("b"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        S: 250 OK
        S: 250 OK
        C: BDAT 4
        C: <4 octets>
        S: 421 bye
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided"}
    assert done.farewell == Reply(421, None, ("bye",))


def test_in_lmtp_a_421_among_the_final_replies_leaves_a_doubt_about_the_rest() -> None:
    done = transact(PIPELINING, mail("b", "c", "d"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: RCPT TO:<d@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 stored
        S: 421 bye
    """, lmtp=True)  # fmt: skip
    assert fates(done) == {"b": "final 250 stored", "c": "final 421 bye", "d": "undecided"}
    assert done.in_doubt
    assert done.accepted == (2,)


# The connection is lost (section 5) ----------------------------------------------------------------------------------

LOSSES = {
    "before any reply": ("S: <close>", {"b": "undecided", "c": "undecided"}),
    "behind MAIL": ("S: 250 OK\nS: <close>", {"b": "undecided", "c": "undecided"}),
    "behind a refused MAIL": ("S: 550 not you\nS: <close>", {"b": "mail 550 not you", "c": "mail 550 not you"}),
    "behind RCPT": (
        "S: 250 OK\nS: 550 no such user\nS: <close>",
        {"b": "rcpt 550 no such user", "c": "undecided"},
    ),
    "behind a refused DATA": (
        "S: 250 OK\nS: 550 no such user\nS: 250 OK\nS: 451 hm\nS: <close>",
        {"b": "rcpt 550 no such user", "c": "data 451 hm"},
    ),
    "behind the consent": (
        "S: 250 OK\nS: 450 later\nS: 250 OK\nS: 354 go\nS: <close>",
        {"b": "rcpt 450 later", "c": "undecided"},
    ),
    "in the middle of the content": (
        "S: 250 OK\nS: 450 later\nS: 250 OK\nS: 354 go\nC: <content>\nS: <close>",
        {"b": "rcpt 450 later", "c": "undecided"},
    ),
    "by a violation": ("S: 250 OK\nS: 550 no such user\nS: what?", {"b": "rcpt 550 no such user", "c": "undecided"}),
    "by an acceptance before the end of data": (
        "S: 250 OK\nS: 250 OK\nS: 250 OK\nS: 354 go\nC: <content>\nS: 250 queued",
        {"b": "undecided", "c": "undecided"},
    ),
}


@pytest.mark.parametrize(("replies", "expected"), LOSSES.values(), ids=LOSSES)
def test_a_loss_before_the_end_of_data_leaves_decided_what_was_decided(replies: str, expected: dict[str, str]) -> None:
    group = "C: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\nC: RCPT TO:<c@example.net>\nC: DATA\n"
    done = transact(PIPELINING, mail("b", "c"), group + replies)
    assert fates(done) == expected
    assert not done.in_doubt
    assert not done.reusable
    assert done.farewell is None


@pytest.mark.parametrize("end", ["S: <close>", "S: nonsense\n        S: <close>", "S: 354 more"])
def test_a_loss_after_the_final_dot_leaves_a_doubt(end: str) -> None:
    done = transact(PIPELINING, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        {end}
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "undecided"}
    assert done.in_doubt
    assert done.accepted == done.undecided == (1,)
    assert not done.reusable


def test_a_loss_behind_the_last_chunk_leaves_a_doubt_and_behind_another_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transaction_module, "CHUNK_SIZE", 4)
    envelope = "C: MAIL FROM:<a@example.org>\nC: RCPT TO:<b@example.net>\nS: 250 OK\nS: 250 OK\n"
    first, last = "C: BDAT 4\nC: <4 octets>\n", "C: BDAT 1 LAST\nC: <1 octets>\n"
    done = transact(BOTH, mail("b"), f"{envelope}{first}S: <close>", facts=Facts(size=5))
    assert fates(done) == {"b": "undecided"}
    assert not done.in_doubt
    done = transact(BOTH, mail("b"), f"{envelope}{first}S: 250 OK\n{last}S: <close>", facts=Facts(size=5))
    assert fates(done) == {"b": "undecided"}
    assert done.in_doubt


@pytest.mark.parametrize("reply", ["250 queued", "451 hm", "554 no"])
def test_a_reply_and_then_a_close_is_the_reply(reply: str) -> None:
    done = transact(PLAIN, mail("b"), f"""
        C: MAIL FROM:<a@example.org>
        S: 250 OK
        C: RCPT TO:<b@example.net>
        S: 250 OK
        C: DATA
        S: 354 go
        C: <content>
        C: .
        S: {reply}
        S: <close>
    """)  # fmt: skip
    assert fates(done) == {"b": f"final {reply}"}
    assert not done.in_doubt
    assert not done.reusable


def test_in_lmtp_a_loss_leaves_a_doubt_about_those_without_a_final_reply() -> None:
    done = transact(PIPELINING, mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 stored
        S: <close>
    """, lmtp=True)  # fmt: skip
    assert fates(done) == {"b": "final 250 stored", "c": "undecided"}
    assert done.in_doubt
    assert done.accepted == (1,)


DEAD = {
    "without a word": (["S: <close>"], False),
    "with a farewell": (["S: 421 idle for too long"], False),
    "behind an answer": (["S: 250 OK", "C: RCPT TO:<b@example.net>", "S: <close>"], True),
    "behind an answer, with a farewell": (["S: 250 OK", "C: RCPT TO:<b@example.net>", "S: 421 bye"], True),
}


@pytest.mark.parametrize(("script", "answered"), DEAD.values(), ids=DEAD)
def test_a_connection_that_was_dead_already_has_answered_nothing(script: list[str], answered: bool) -> None:
    done = transact(PLAIN, mail("b"), "\n".join(["C: MAIL FROM:<a@example.org>", *script]))
    assert done.answered is answered
    assert not done.content_sent


@pytest.mark.parametrize(("heard", "reply", "answered"), [(False, None, False), (True, None, True), (True, 421, False)])
def test_half_a_reply_is_an_answer_unless_it_is_a_farewell(heard: bool, reply: int | None, answered: bool) -> None:
    envelope = mail("b")
    transaction = Transaction(envelope, envelope.recipients, Facts(), PLAIN)
    transaction.next()
    if reply is not None:
        transaction.take(AnsweredCommand(None, Reply(reply)))
    transaction.lost(heard=heard)
    assert transaction.answered is answered


# Too many recipients (step 12) ---------------------------------------------------------------------------------------

TOO_MANY = [
    "452 too many",
    "452 4.5.3 too many",
    "450 4.5.3 too many",
    "550 5.5.3 too many",
    "552 5.5.3 too many",
    "552 too many",
]
NOT_TOO_MANY = ["450 busy", "451 4.3.0 hm", "550 no", "552 5.2.2 mailbox full", "554 5.7.1 no"]


def second_rcpt(reply: str) -> Transaction:
    return transact(PIPELINING, mail("b", "c"), f"""
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: {reply}
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip


@pytest.mark.parametrize("reply", TOO_MANY)
def test_one_too_many_behind_an_accepted_one_goes_in_a_further_transaction(reply: str) -> None:
    done = second_rcpt(reply)
    assert fates(done) == {"b": "final 250 queued", "c": "overflow"}
    assert done.reusable


@pytest.mark.parametrize("reply", NOT_TOO_MANY)
def test_another_refusal_behind_an_accepted_one_decides(reply: str) -> None:
    assert fates(second_rcpt(reply)) == {"b": "final 250 queued", "c": f"rcpt {reply}"}


@pytest.mark.parametrize(
    ("reply", "counts_as"),
    [
        ("452 too many", "452 too many"),
        ("452 4.5.3 too many", "452 4.5.3 too many"),
        ("452 4.2.2 mailbox full", "452 4.2.2 mailbox full"),
        ("552 too many", "452 4.5.3 too many"),
        ("552 5.5.3 too many", "452 4.5.3 too many"),
        ("550 5.5.3 too many", "452 4.5.3 too many"),
        ("552 5.2.2 mailbox full", "552 5.2.2 mailbox full"),
    ],
)
def test_one_too_many_before_any_acceptance_is_a_452(reply: str, counts_as: str) -> None:
    done = transact(PLAIN, mail("b"), f"""
        C: MAIL FROM:<a@example.org>
        S: 250 OK
        C: RCPT TO:<b@example.net>
        S: {reply}
        C: RSET
        S: 250 OK
    """)  # fmt: skip
    assert fates(done) == {"b": f"rcpt {counts_as}"}


def test_of_an_announced_limit_no_more_is_asked() -> None:
    done = transact(offer("PIPELINING", "LIMITS RCPTMAX=2"), mail("b", "c", "d", "e"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 452 too many
        S: 503 no
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "rcpt 452 too many", "d": "overflow", "e": "overflow"}


def test_a_refused_mail_decides_those_past_the_limit_too() -> None:
    done = transact(offer("LIMITS RCPTMAX=1"), mail("b", "c"), """
        C: MAIL FROM:<a@example.org>
        S: 550 not you
        C: RSET
        S: 250 OK
    """)  # fmt: skip
    assert fates(done) == {"b": "mail 550 not you", "c": "mail 550 not you"}


def test_cut_short_it_goes_on_with_those_that_were_accepted() -> None:
    transaction = Transaction(mail("b", "c", "d"), mail("b", "c", "d").recipients, Facts(), PLAIN)
    for command in ("mail", "rcpt"):
        step = transaction.next()
        assert isinstance(step, SendCommands), command
        transaction.take(AnsweredCommand(step.commands[0], Reply.make(250, None, "OK")))
        if command == "mail":
            transaction.cut_short()  # nobody was accepted yet: it goes on as before
    assert transaction.unnamed
    transaction.cut_short()
    assert not transaction.unnamed
    assert transaction.overflow == [1, 2]
    assert transaction.next() == SendCommands((Data(),))


# A used connection: the second reply to the message before may come late ---------------------------------------------

ENVELOPE = """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: RCPT TO:<c@example.net>
"""


def used(offered: Capabilities, script: str, *, lmtp: bool = False) -> Transaction:
    return transact(offered, mail("b", "c"), script, used=True, lmtp=lmtp)


def test_consent_to_data_proves_the_replies_to_the_envelope() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "final 250 queued"}
    assert done.reusable


def test_behind_a_refusal_data_is_used_in_place_of_chunks_for_its_answer_proves_something() -> None:
    done = used(BOTH, ENVELOPE + """
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        C: DATA
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "final 250 queued"}


@pytest.mark.parametrize("answer", ["221 bye", "421 bye"])
def test_a_refusal_of_all_is_believed_once_quit_has_its_own_answer(answer: str) -> None:
    done = used(BOTH, ENVELOPE + f"""
        S: 550 not you
        S: 503 what?
        S: 503 what?
        C: QUIT
        S: {answer}
    """)  # fmt: skip
    assert fates(done) == {"b": "mail 550 not you", "c": "mail 550 not you"}
    assert (done.reusable, done.farewell) == (False, None)


@pytest.mark.parametrize("surplus", ["250 OK", "354 go", "550 no"])
def test_a_refusal_is_withdrawn_if_quit_has_another_answer(surplus: str) -> None:
    done = used(BOTH, ENVELOPE + f"""
        S: 554 late
        S: 250 OK
        S: 250 OK
        C: QUIT
        S: {surplus}
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert (done.reusable, done.answered, done.in_doubt) == (False, False, False)


def test_a_temporary_refusal_of_all_needs_no_proof() -> None:
    done = used(BOTH, ENVELOPE + """
        S: 450 later
        S: 503 what?
        S: 503 what?
        C: RSET
        S: 250 OK
    """)  # fmt: skip
    assert fates(done) == {"b": "mail 450 later", "c": "mail 450 later"}
    assert done.reusable


def test_a_surplus_reply_within_the_group_withdraws_what_it_decided() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 554 late
        S: 250 OK
        S: 250 OK
        S: 250 OK
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert not done.answered


def test_what_we_refused_ourselves_needs_no_proof_and_stands() -> None:
    done = transact(BOTH, mail("b", "ö"), """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        S: 554 late
        S: 250 OK
        C: QUIT
        S: 250 OK
    """, used=True)  # fmt: skip
    assert fates(done)["b"] == "undecided"
    assert fates(done)["ö"].startswith("mail 553 5.6.7")
    done = transact(BOTH, mail("ö"), "", used=True)
    assert fates(done)["ö"].startswith("mail 553 5.6.7")


def test_a_surplus_reply_behind_an_acceptance_changes_nothing() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
        S: 554 late
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "final 250 queued"}
    assert (done.reusable, done.answered, done.in_doubt) == (False, True, False)


def test_a_surplus_reply_behind_a_chunk_leaves_a_doubt() -> None:
    done = used(BOTH, ENVELOPE + """
        S: 250 OK
        S: 250 OK
        S: 250 OK
        C: BDAT 10 LAST
        C: <10 octets>
        S: 250 OK
        S: 554 no
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert (done.in_doubt, done.accepted, done.answered) == (True, (0, 1), True)


def test_a_refusal_behind_the_content_is_a_doubt_if_quit_has_another_answer() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 550 no such user
        S: 354 go
        C: <content>
        C: .
        S: 554 late
        C: QUIT
        S: 250 queued
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "rcpt 550 no such user"}
    assert (done.in_doubt, done.accepted) == (True, (0,))


def test_in_lmtp_every_final_reply_may_be_displaced() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 554 late
        S: 250 queued
        C: QUIT
        S: 250 queued
    """, lmtp=True)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert (done.in_doubt, sorted(done.accepted)) == (True, [0, 1])


def test_a_refusal_in_the_middle_of_the_content_is_not_believed() -> None:
    done = used(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 354 go
        C: <content>
        S: 554 late
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "undecided"}
    assert (done.in_doubt, done.answered) == (False, False)


def test_on_a_new_connection_what_came_before_a_surplus_reply_was_in_step() -> None:
    done = transact(PIPELINING, mail("b", "c"), ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 250 OK
        S: 250 Resetting
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "undecided"}
    assert done.answered


# A server that judges our login and not the message (RFC 4954 6) ------------------------------------------------------


def forgotten(offered: Capabilities, script: str) -> Transaction:
    return transact(offered, mail("b", "c"), script, used=True, session_codes=frozenset({503, 530}))


@pytest.mark.parametrize("refusal", ["503 5.5.1 EHLO first", "530 5.7.0 Authentication required"])
@pytest.mark.parametrize("offered", [PLAIN, PIPELINING, BOTH], ids=["one by one", "DATA", "BDAT"])
def test_a_refusal_that_judges_our_login_decides_nobody(offered: Capabilities, refusal: str) -> None:
    script = "C: MAIL FROM:<a@example.org>\n"
    if offered is not PLAIN:
        script += "C: RCPT TO:<b@example.net>\nC: RCPT TO:<c@example.net>\n"
    script += "C: DATA\n" if offered is PIPELINING else ""
    script += f"S: {refusal}\n" + "S: 503 5.5.1 MAIL first\n" * (script.count("C: ") - 1)
    done = forgotten(offered, script)
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert str(done.session_refusal) == refusal
    assert not done.reusable


def refused_mail(refusal: str, *further: str, used: bool) -> Transaction:
    script = "\n".join(("C: MAIL FROM:<a@example.org>", f"S: {refusal}", *further))
    return transact(PLAIN, mail("b"), script, used=used)


def test_too_many_messages_on_a_used_connection_decide_nobody() -> None:
    done = refused_mail("452 4.5.3 Too many messages", used=True)
    assert fates(done) == {"b": "undecided"}
    assert str(done.session_refusal) == "452 4.5.3 Too many messages"
    assert not done.reusable


@pytest.mark.parametrize(
    ("refusal", "used"),
    [("452 4.5.3 Too many messages", False), ("452 4.3.1 Disk full", True), ("452 Too much", True)],
    ids=["a new connection", "another status", "no status"],
)
def test_any_other_refusal_of_mail_for_now_decides(refusal: str, used: bool) -> None:
    done = refused_mail(refusal, "C: RSET", "S: 250 OK", used=used)
    assert fates(done) == {"b": f"mail {refusal}"}
    assert done.session_refusal is None


def test_it_may_come_behind_rcpt_and_behind_data_too() -> None:
    done = forgotten(BOTH, ENVELOPE + """
        S: 250 OK
        S: 530 Authentication required
        S: 550 no such user
        C: QUIT
        S: 221 bye
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "rcpt 550 no such user"}
    done = forgotten(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 250 OK
        S: 530 Authentication required
    """)  # fmt: skip
    assert fates(done) == {"b": "undecided", "c": "undecided"}
    assert str(done.session_refusal) == "530 Authentication required"


def test_503_to_data_is_no_judgement_where_nobody_was_accepted() -> None:
    done = forgotten(PIPELINING, ENVELOPE + """
        C: DATA
        S: 250 OK
        S: 550 no such user
        S: 550 no such user
        S: 503 no recipients
        C: QUIT
        S: 221 bye
    """)  # fmt: skip
    assert fates(done) == {"b": "rcpt 550 no such user", "c": "rcpt 550 no such user"}
    assert done.session_refusal is None


@pytest.mark.parametrize("code", [500, 502])
def test_who_does_not_know_bdat_says_nothing_of_the_message(code: int) -> None:
    done = transact(CHUNKING, mail("b"), f"""
        C: MAIL FROM:<a@example.org>
        S: 250 OK
        C: RCPT TO:<b@example.net>
        S: 250 OK
        C: BDAT 10 LAST
        C: <10 octets>
        S: {code} what is that
    """)  # fmt: skip
    assert done.knows_no_chunks
    assert (done.in_doubt, done.reusable) == (False, False)
