"""What a recipient's failed tries add up to."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.delivery.tally import FailedTry, Tally, Weight, decisive_try
from mailrider.model.address import Mailbox
from mailrider.model.envelope import Recipient
from mailrider.model.outcome import Deferred, Delivered, Failed, Try, TryResult
from mailrider.model.reply import EnhancedCode, Reply
from mailrider.model.security import NO_SECURITY, MXLevel, Requirement, Security, TLSLevel

ONE, TWO = (Recipient(Mailbox.parse(f"{name}@example.org")) for name in ("one", "two"))


def failed(weight: Weight, code: int, enhanced: str, mx: str = "mx", **more: object) -> FailedTry:
    return FailedTry(weight, TryResult.CONNECT, Reply.make(code, enhanced, f"{mx}: {code} {enhanced}"), mx, **more)  # type: ignore[arg-type]


LOOKUP = failed(Weight.LOOKUP, 451, "4.4.3")
NO_ADDRESS = failed(Weight.LOOKUP, 550, "5.4.4")
CONNECT = failed(Weight.CONNECT, 451, "4.4.1")
LOST = failed(Weight.CLOSED, 451, "4.4.2")
TLS = failed(Weight.TLS, 451, "4.7.5")
POLICY = failed(Weight.POLICY, 451, "4.7.1")
BUSY = failed(Weight.SERVER, 450, "4.3.2")
GREYLISTED = failed(Weight.MAIL, 450, "4.2.0")
GREETS_521 = failed(Weight.SERVER, 451, "4.3.2", if_all=Reply(521, EnhancedCode(5, 3, 2), ("No mail here",)))
NOT_QUALIFIED = failed(Weight.POLICY, 550, "5.7.10", requiretls=True)
NO_EXTENSION = failed(Weight.POLICY, 550, "5.7.30", requiretls=True)

TABLE = {
    "one": ([CONNECT], (451, "4.4.1")),
    "no candidate has an address": ([NO_ADDRESS, NO_ADDRESS], (550, "5.4.4")),
    "one has no address, one lookup failed": ([NO_ADDRESS, LOOKUP], (451, "4.4.3")),
    "temporary outranks permanent, however weight": ([CONNECT, NO_ADDRESS], (451, "4.4.1")),
    "a lost connection tells more than one that was never made": ([LOST, CONNECT], (451, "4.4.2")),
    "TLS tells more than the network": ([TLS, LOST, CONNECT, LOOKUP], (451, "4.7.5")),
    "a policy tells more than TLS": ([POLICY, TLS], (451, "4.7.1")),
    "a server's words tell more than ours": ([BUSY, POLICY, TLS, LOST, CONNECT, LOOKUP], (450, "4.3.2")),
    "a server's words about the recipient tell most": ([GREYLISTED, BUSY], (450, "4.2.0")),
    "a server's words about the recipient tell more than 521": ([GREYLISTED, GREETS_521], (450, "4.2.0")),
    "521 from all": ([GREETS_521, GREETS_521], (521, "5.3.2")),
    "521 from one, another is dead": ([GREETS_521, CONNECT], (451, "4.3.2")),
    "521 from the last, another is dead": ([CONNECT, GREETS_521], (451, "4.3.2")),
    "521 from one, another has no address": ([GREETS_521, NO_ADDRESS], (451, "4.3.2")),
    "REQUIRETLS: levels": ([NOT_QUALIFIED], (550, "5.7.10")),
    "REQUIRETLS: only the extension": ([NO_EXTENSION, NO_EXTENSION], (550, "5.7.30")),
    "REQUIRETLS: here the extension, there the levels": ([NO_EXTENSION, NOT_QUALIFIED], (550, "5.7.10")),
    "REQUIRETLS: here the levels, there the extension": ([NOT_QUALIFIED, NO_EXTENSION], (550, "5.7.10")),
    "REQUIRETLS: and one without an address": ([NO_EXTENSION, NO_ADDRESS], (550, "5.7.30")),
    "REQUIRETLS: a lookup that could have qualified failed": ([NOT_QUALIFIED, LOOKUP], (451, "4.7.0")),
    "REQUIRETLS: a connection that could have qualified failed": ([CONNECT, NO_EXTENSION], (451, "4.7.0")),
    "REQUIRETLS: TLS that could have qualified failed": ([NO_EXTENSION, TLS], (451, "4.7.0")),
    "REQUIRETLS: a server that could have qualified was busy": ([NOT_QUALIFIED, BUSY], (451, "4.7.0")),
}


@pytest.mark.parametrize(("failed_tries", "expected"), TABLE.values(), ids=TABLE)
def test_endings_decide(failed_tries: list[FailedTry], expected: tuple[int, str]) -> None:
    shown = decisive_try(failed_tries)
    assert shown is not None
    assert (shown.reply.code, str(shown.reply.enhanced)) == expected


def test_no_endings_decide_nothing() -> None:
    assert decisive_try([]) is None


def test_of_equals_the_last_is_shown() -> None:
    first, last = failed(Weight.CONNECT, 451, "4.4.1", "mx1"), failed(Weight.CONNECT, 451, "4.4.1", "mx2")
    assert decisive_try([first, last]) is last


def test_a_deferred_requiretls_message_says_what_failed() -> None:
    shown = decisive_try([NOT_QUALIFIED, CONNECT])
    assert shown is not None
    assert shown.reply.text == f"REQUIRETLS cannot be satisfied at the moment: {CONNECT.reply.text}"


# A message with REQUIRETLS hears of its levels, unless a server that reached them had its say.

OWN = Requirement(min_mx=MXLevel.MTASTS, min_tls=TLSLevel.AUTHENTICATED)
SHOWN = Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED)
REQUIRETLS_TABLE = {
    "nobody could be connected to": ([CONNECT], (451, "4.7.0")),
    "no address could be looked up": ([LOOKUP], (451, "4.7.0")),
    "a handshake failed": ([TLS], (451, "4.7.0")),
    "a lookup failed, says a policy": ([POLICY], (451, "4.7.0")),
    "a server was too busy to show its levels": ([BUSY], (450, "4.3.2")),
    "one qualified, and was lost": ([failed(Weight.CLOSED, 451, "4.4.2", security=SHOWN)], (451, "4.4.2")),
    "one qualified, and was lost; another does not": (
        [NO_EXTENSION, failed(Weight.CLOSED, 451, "4.4.2", security=SHOWN)],
        (451, "4.4.2"),
    ),
    "one qualified, and says 4xx": ([failed(Weight.MAIL, 452, "4.2.2", security=SHOWN)], (452, "4.2.2")),
    "none has an address": ([NO_ADDRESS], (550, "5.4.4")),
    "levels": ([NOT_QUALIFIED], (550, "5.7.10")),
}


@pytest.mark.parametrize(("failed_tries", "expected"), REQUIRETLS_TABLE.values(), ids=REQUIRETLS_TABLE)
def test_endings_of_a_requiretls_message_decide(failed_tries: list[FailedTry], expected: tuple[int, str]) -> None:
    shown = decisive_try(failed_tries, OWN)
    assert shown is not None
    assert (shown.reply.code, str(shown.reply.enhanced)) == expected


ANY = st.sampled_from(
    [LOOKUP, NO_ADDRESS, CONNECT, LOST, TLS, POLICY, BUSY, GREYLISTED, GREETS_521, NOT_QUALIFIED, NO_EXTENSION],
)


@given(st.lists(ANY, min_size=1, max_size=8))
def test_a_temporary_ending_never_becomes_a_failure_unless_all_greet_521(failed_tries: list[FailedTry]) -> None:
    shown = decisive_try(failed_tries)
    assert shown is not None
    if any(each is not GREETS_521 and each.reply.is_transient for each in failed_tries):
        assert shown.reply.is_transient
    elif all(each is GREETS_521 for each in failed_tries):
        assert shown.reply.code == 521
    else:
        assert shown.reply.is_transient is any(each is GREETS_521 for each in failed_tries)


@given(st.permutations([LOOKUP, CONNECT, TLS, POLICY, BUSY, NO_ADDRESS]))
def test_the_order_of_different_endings_does_not_matter(failed_tries: list[FailedTry]) -> None:
    assert decisive_try(failed_tries) is BUSY


# The tally -----------------------------------------------------------------------------------------------------------

SECURE = Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED)
OK = Reply.make(250, "2.0.0", "Ok")
NEVER = Reply.make(550, "5.1.1", "Nobody")


def test_a_reply_decides_its_recipient_alone() -> None:
    tally = Tally([ONE, TWO])
    tally.decide(0, TryResult.FINAL, OK, "mx", "192.0.2.1", SECURE)
    assert list(tally.pending) == [1]
    tally.decide(1, TryResult.RCPT, NEVER, "mx", "192.0.2.1", SECURE)
    one, two = tally.conclude()
    tries = (Try("mx", "192.0.2.1", TryResult.DELIVERED, OK, SECURE),)
    assert one == Delivered(ONE, OK, "mx", "192.0.2.1", SECURE, tries)
    tries = (Try("mx", "192.0.2.1", TryResult.RCPT, NEVER, SECURE),)
    assert two == Failed(TWO, NEVER, "mx", "192.0.2.1", SECURE, tries)


def test_an_ending_counts_for_the_pending_ones_only() -> None:
    tally = Tally([ONE, TWO])
    tally.decide(0, TryResult.FINAL, OK, "mx", None, NO_SECURITY)
    tally.end(CONNECT)
    one, two = tally.conclude()
    assert [len(one.tries), len(two.tries)] == [1, 1]
    assert (one.status, two.status, two.reply) == ("delivered", "deferred", CONNECT.reply)


def test_a_decision_stands_whatever_ended_before() -> None:
    tally = Tally([ONE])
    tally.end(BUSY)
    tally.decide(0, TryResult.RCPT, NEVER, "mx2", None, NO_SECURITY)
    (outcome,) = tally.conclude()
    assert (outcome.status, [each.mx for each in outcome.tries]) == ("failed", ["mx", "mx2"])


def test_the_second_candidate_that_says_4xx_decides() -> None:
    tally = Tally([ONE])
    tally.defer_transient(0, BUSY)
    assert list(tally.pending) == [0]
    second = failed(Weight.SERVER, 451, "4.7.1", "mx2")
    tally.defer_transient(0, second)
    assert list(tally.pending) == []
    (outcome,) = tally.conclude()
    assert (outcome.status, outcome.reply, outcome.mx) == ("deferred", second.reply, "mx2")


def test_a_doubt_defers_and_says_so() -> None:
    tally = Tally([ONE])
    tally.doubt(0, LOST)
    (outcome,) = tally.conclude()
    assert isinstance(outcome, Deferred)
    assert (outcome.in_doubt, outcome.reply, len(outcome.tries)) == (True, LOST.reply, 1)


def test_a_note_ends_nothing() -> None:
    tally = Tally([ONE])
    tally.note(Try("mx", None, TryResult.FALLBACK, TLS.reply))
    assert list(tally.pending) == [0]
    (outcome,) = tally.conclude()
    assert (outcome.reply.code, str(outcome.reply.enhanced), len(outcome.tries)) == (451, "4.4.1", 1)


@pytest.mark.parametrize(("reply", "status"), [(NEVER, "failed"), (LOST.reply, "deferred")], ids=["5xx", "4xx"])
def test_an_unroutable_next_hop_ends_as_its_reply_says(reply: Reply, status: str) -> None:
    tally = Tally([ONE, TWO])
    tally.decide(0, TryResult.FINAL, OK, "mx", None, NO_SECURITY)
    tally.refuse_pending(reply)
    assert [outcome.status for outcome in tally.conclude()] == ["delivered", status]


def test_what_cannot_go_on_is_deferred_even_by_a_5xx() -> None:
    tally = Tally([ONE])
    tally.end(CONNECT)
    tally.defer_pending(LOOKUP.reply)
    (outcome,) = tally.conclude()
    assert (outcome.status, outcome.reply, len(outcome.tries)) == ("deferred", LOOKUP.reply, 1)


def test_the_recipients_are_those_given() -> None:
    tally = Tally([ONE, TWO])
    assert tally.recipients(tally.pending) == [ONE, TWO]
