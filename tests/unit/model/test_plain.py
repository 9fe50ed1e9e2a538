"""What a store keeps and programs read: the keys and words stay as they are."""

from __future__ import annotations

from dataclasses import replace

from mailrider.model.address import Mailbox
from mailrider.model.envelope import Recipient
from mailrider.model.outcome import Delivered, Try, TryResult, outcome_for
from mailrider.model.plain import MAX_TRIES, attempt_facts, outcome_facts, try_facts, with_dialogue
from mailrider.model.queue_event import RecipientDone
from mailrider.model.reply import Reply
from mailrider.model.security import Mechanism, MXLevel, Security, TLSLevel
from mailrider.model.tls_problem import TLSProblem, TLSProblemKind
from mailrider.model.tls_session import DANESeen, PoliciesSeen, STSSeen
from mailrider.model.transcript import Transcript

REPLY = Reply.make(451, "4.7.1", "Later")
SAID = {"code": 451, "enhanced": "4.7.1", "text": "Later"}
OUTCOME = outcome_for(
    Recipient(Mailbox.parse("b@example.net")),
    REPLY,
    mx="mx.example.net",
    address="192.0.2.1",
    security=Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED, Mechanism.DANE, "TLSv1.3", "AES"),
)


def test_an_outcome_in_plain_values() -> None:
    assert outcome_facts(OUTCOME) == {
        "status": "deferred",
        **SAID,
        "mx": "mx.example.net",
        "address": "192.0.2.1",
        "mx_level": "dnssec",
        "tls_level": "authenticated",
        "tls_version": "TLSv1.3",
        "cipher": "AES",
        "authenticated_by": "dane",
        "in_doubt": False,
    }


def test_a_try_in_plain_values() -> None:
    tried = Try("mx.example.net", None, TryResult.LOOKUP, REPLY)
    assert try_facts(tried) == {"mx": "mx.example.net", "address": None, "result": "lookup", **SAID}


def test_an_attempt_has_its_tries_and_only_as_many_as_are_kept() -> None:
    tried = Try("mx.example.net", None, TryResult.LOOKUP, REPLY)
    told = attempt_facts(replace(OUTCOME, tries=(tried,) * (MAX_TRIES + 1), signed=("example.org:s",)))
    assert told == outcome_facts(OUTCOME) | {
        "signed": ("example.org:s",),
        "throttled": False,
        "attempts": [try_facts(tried)] * MAX_TRIES,
    }
    assert "signed" not in attempt_facts(OUTCOME)


def test_what_was_said_is_told_where_it_did_not_deliver() -> None:
    tried = (Try("mx.example.net", None, TryResult.RCPT, REPLY, transcript=Transcript(("RCPT", "451"))),)
    assert with_dialogue(replace(OUTCOME, tries=tried))["dialogue"] == "RCPT\n451"
    assert "dialogue" not in with_dialogue(OUTCOME)
    assert "dialogue" not in with_dialogue(Delivered(OUTCOME.recipient, Reply.make(250, "2.0.0", "ok"), tries=tried))


def test_a_problem_of_tls_reads_as_its_text() -> None:
    assert str(TLSProblem(TLSProblemKind.TIMED_OUT, "no answer")) == "no answer"


def test_policies_that_were_seen_are_named() -> None:
    assert str(PoliciesSeen("example.net")) == "example.net: none"
    assert str(PoliciesSeen("example.net", STSSeen(), DANESeen("mx.example.net", ()))) == "example.net: sts tlsa"


def test_a_recipient_is_over_when_it_is_neither_tried_again_nor_in_an_operator_s_hand() -> None:
    assert RecipientDone("1", "a@example.org", OUTCOME, 1).is_over
    assert not RecipientDone("1", "a@example.org", OUTCOME, 1, operator="held").is_over
