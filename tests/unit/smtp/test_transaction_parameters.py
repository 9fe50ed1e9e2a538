"""What a transaction asks of a server, and what it does not even ask: the rules of the extensions.

SIZE RFC 1870, 8BITMIME RFC 6152, SMTPUTF8 RFC 6531, DSN parameters RFC 3461, REQUIRETLS RFC 8689, LIMITS RFC 9422.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from mailrider.model.address import NULL_PATH, Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, OriginalRecipient, Recipient, Ret
from mailrider.smtp.steps import SendCommands
from mailrider.smtp.transaction import MAX_RECIPIENTS, Transaction
from tests.unit.smtp.dialogue import Facts, fates, mail, offer, to, transact

if TYPE_CHECKING:
    from mailrider.smtp.commands import Command

PLAIN, PIPELINING = offer(), offer("PIPELINING")

# What the server does not offer (step 10) ----------------------------------------------------------------------------

EIGHT_BIT = Facts(eight_bit=True)
UTF8_HEADER = Facts(eight_bit=True, header_is_utf8=True)
PLAIN_MAIL, UTF8_MAIL = mail("b"), mail("b", smtputf8=True)
UTF8_SENDER, UTF8_RECIPIENT = mail("b", sender="ä@example.org"), mail("b", "ö")
IDN = Envelope(ReversePath.parse("a@bücher.example"), (Recipient(Mailbox.parse("b@bücher.example")),))

LOCAL_REFUSALS: dict[str, tuple[list[str], Envelope, Facts, bool, dict[str, str]]] = {
    "larger than SIZE": (["SIZE 9"], PLAIN_MAIL, Facts(10), False, {"b": "552 5.3.4"}),
    "as large as SIZE": (["SIZE 10"], PLAIN_MAIL, Facts(10), False, {}),
    "SIZE 0 is no limit": (["SIZE 0"], PLAIN_MAIL, Facts(10), False, {}),
    "SIZE without a number is none": (["SIZE"], PLAIN_MAIL, Facts(10), False, {}),
    "8-bit content is sent as it is": ([], PLAIN_MAIL, EIGHT_BIT, False, {}),
    "8-bit content, strict": ([], PLAIN_MAIL, EIGHT_BIT, True, {"b": "554 5.6.3"}),
    "8-bit content, strict, 8BITMIME": (["8BITMIME"], PLAIN_MAIL, EIGHT_BIT, True, {}),
    "7-bit content, strict": ([], PLAIN_MAIL, Facts(), True, {}),
    "non-ASCII sender": ([], UTF8_SENDER, Facts(), False, {"b": "550 5.6.7"}),
    "non-ASCII sender, SMTPUTF8": (["SMTPUTF8"], UTF8_SENDER, Facts(), False, {}),
    "non-ASCII recipient": ([], UTF8_RECIPIENT, Facts(), False, {"ö": "553 5.6.7"}),
    "non-ASCII recipient, SMTPUTF8": (["SMTPUTF8"], UTF8_RECIPIENT, Facts(), False, {}),
    "non-ASCII domains only": ([], IDN, Facts(), False, {}),
    "UTF-8 header": ([], UTF8_MAIL, UTF8_HEADER, False, {"b": "554 5.6.9"}),
    "UTF-8 header, SMTPUTF8": (["SMTPUTF8"], UTF8_MAIL, UTF8_HEADER, False, {}),
    "UTF-8 header, non-ASCII recipient": (
        [],
        mail("b", "ö", smtputf8=True),
        UTF8_HEADER,
        False,
        {"b": "554 5.6.9", "ö": "553 5.6.7"},
    ),
    "UTF-8 header that nobody announced": ([], PLAIN_MAIL, UTF8_HEADER, False, {}),
    "announced, but the header is ASCII": ([], UTF8_MAIL, EIGHT_BIT, False, {}),
    "too large for all, whoever they are": (
        ["SIZE 9"],
        UTF8_RECIPIENT,
        Facts(10),
        False,
        {"b": "552 5.3.4", "ö": "552 5.3.4"},
    ),
}


@pytest.mark.parametrize(
    ("keywords", "envelope", "facts", "strict", "refused"), LOCAL_REFUSALS.values(), ids=LOCAL_REFUSALS
)
def test_what_the_server_cannot_take_is_refused_without_asking_it(
    keywords: list[str], envelope: Envelope, facts: Facts, strict: bool, refused: dict[str, str]
) -> None:
    transaction = Transaction(envelope, envelope.recipients, facts, offer(*keywords), strict_eight_bit=strict)
    decided = {
        envelope.recipients[index].mailbox.local_part: f"{decision.reply.code} {decision.reply.enhanced}"
        for index, decision in transaction.decisions.items()
    }
    assert decided == refused
    assert all(decision.is_ours for decision in transaction.decisions.values())
    assert not any(decision.may_try_another for decision in transaction.decisions.values())
    if len(refused) == len(envelope.recipients):
        assert transaction.next() is None
        assert transaction.reusable
        assert not transaction.answered
    else:
        assert transaction.next() is not None


def test_one_recipient_that_the_server_cannot_take_does_not_hold_up_the_others() -> None:
    done = transact(PIPELINING, UTF8_RECIPIENT, """
        C: MAIL FROM:<a@example.org>
        C: RCPT TO:<b@example.net>
        C: DATA
        S: 250 OK
        S: 250 OK
        S: 354 go
        C: <content>
        C: .
        S: 250 queued
    """)  # fmt: skip
    assert fates(done)["b"] == "final 250 queued"
    assert fates(done)["ö"].startswith("mail 553 5.6.7")


def test_a_refused_mail_does_not_change_what_we_refused_ourselves() -> None:
    done = transact(PLAIN, UTF8_RECIPIENT, """
        C: MAIL FROM:<a@example.org>
        S: 450 later
        C: RSET
        S: 250 OK
    """)  # fmt: skip
    assert fates(done)["b"] == "mail 450 later"
    assert fates(done)["ö"].startswith("mail 553 5.6.7")


# Parameters: as offered and needed (step 10) -------------------------------------------------------------------------

DSN = Envelope(
    ReversePath.parse("a@example.org"),
    (Recipient(Mailbox.parse("b@example.net"), Notify.FAILURE, OriginalRecipient("rfc822", "c@example.com")),),
    ret=Ret.HEADERS,
    envid="id 1",
)
REQUIRETLS = mail("b", requiretls=True)
BARE = ["MAIL FROM:<a@example.org>", "RCPT TO:<b@example.net>"]
UTF8_BARE = ["MAIL FROM:<a@example.org> SMTPUTF8", "RCPT TO:<b@example.net>"]

PARAMETERS: dict[str, tuple[list[str], Envelope, Facts, list[str]]] = {
    "nothing offered": ([], DSN, EIGHT_BIT, BARE),
    "SIZE": (["SIZE"], PLAIN_MAIL, Facts(10), ["MAIL FROM:<a@example.org> SIZE=10", BARE[1]]),
    "8BITMIME": (["8BITMIME"], PLAIN_MAIL, EIGHT_BIT, ["MAIL FROM:<a@example.org> BODY=8BITMIME", BARE[1]]),
    "8BITMIME not needed": (["8BITMIME"], PLAIN_MAIL, Facts(), BARE),
    "DSN": (
        ["DSN"],
        DSN,
        Facts(),
        [
            "MAIL FROM:<a@example.org> RET=HDRS ENVID=id+201",
            "RCPT TO:<b@example.net> NOTIFY=FAILURE ORCPT=rfc822;c@example.com",
        ],
    ),
    "DSN not needed": (["DSN"], PLAIN_MAIL, Facts(), BARE),
    "REQUIRETLS": (["REQUIRETLS"], REQUIRETLS, Facts(), ["MAIL FROM:<a@example.org> REQUIRETLS", BARE[1]]),
    "REQUIRETLS not offered": ([], REQUIRETLS, Facts(), BARE),
    "REQUIRETLS of a message that is not so": (["REQUIRETLS"], PLAIN_MAIL, Facts(), BARE),
    "SMTPUTF8 for the sender": (
        ["SMTPUTF8"],
        UTF8_SENDER,
        Facts(),
        ["MAIL FROM:<ä@example.org> SMTPUTF8", BARE[1]],
    ),
    "SMTPUTF8 for a recipient": (["SMTPUTF8"], UTF8_RECIPIENT, Facts(), [*UTF8_BARE, "RCPT TO:<ö@example.net>"]),
    "SMTPUTF8 for the header": (["SMTPUTF8"], UTF8_MAIL, UTF8_HEADER, UTF8_BARE),
    "SMTPUTF8 not needed": (["SMTPUTF8"], UTF8_MAIL, EIGHT_BIT, BARE),
    "SMTPUTF8 not announced": (["SMTPUTF8"], PLAIN_MAIL, UTF8_HEADER, BARE),
    "IDN": ([], IDN, Facts(), ["MAIL FROM:<a@xn--bcher-kva.example>", "RCPT TO:<b@xn--bcher-kva.example>"]),
    "null reverse-path": ([], mail("b", sender=""), Facts(), ["MAIL FROM:<>", BARE[1]]),
}


def lines(commands: tuple[Command, ...]) -> list[str]:
    return b"".join(command.encode() for command in commands).decode().splitlines()


@pytest.mark.parametrize(("keywords", "envelope", "facts", "expected"), PARAMETERS.values(), ids=PARAMETERS)
def test_parameters_are_sent_if_they_are_offered_and_needed(
    keywords: list[str], envelope: Envelope, facts: Facts, expected: list[str]
) -> None:
    transaction = Transaction(envelope, envelope.recipients, facts, offer("PIPELINING", *keywords))
    step = transaction.next()
    assert isinstance(step, SendCommands)
    assert lines(step.commands) == [*expected, "DATA"]


def test_smtputf8_is_for_those_who_are_asked_not_for_those_past_the_limit() -> None:
    offered = offer("PIPELINING", "SMTPUTF8", "LIMITS RCPTMAX=1")
    transaction = Transaction(UTF8_RECIPIENT, UTF8_RECIPIENT.recipients, Facts(), offered)
    step = transaction.next()
    assert isinstance(step, SendCommands)
    assert lines(step.commands) == [*BARE, "DATA"]


def test_a_transaction_for_some_of_the_recipients() -> None:
    envelope = replace(PLAIN_MAIL, recipients=to("b", "c", "d"))
    transaction = Transaction(envelope, envelope.recipients[1:2], Facts(), PIPELINING)
    step = transaction.next()
    assert isinstance(step, SendCommands)
    assert lines(step.commands) == ["MAIL FROM:<a@example.org>", "RCPT TO:<c@example.net>", "DATA"]


@pytest.mark.parametrize(
    ("keywords", "asked"),
    [
        ([], MAX_RECIPIENTS),
        (["LIMITS RCPTMAX=0"], MAX_RECIPIENTS),
        (["LIMITS RCPTMAX=7"], 7),
        (["LIMITS RCPTMAX=250"], 250),
        (["LIMITS RCPTMAX=999999"], 10 * MAX_RECIPIENTS),
    ],
)
def test_how_many_recipients_one_transaction_carries(keywords: list[str], asked: int) -> None:
    envelope = mail(*(f"b{number}" for number in range(1200)))
    transaction = Transaction(envelope, envelope.recipients, Facts(), offer("PIPELINING", *keywords))
    step = transaction.next()
    assert isinstance(step, SendCommands)
    assert len(step.commands) == 1 + asked + 1
    assert len(transaction.overflow) == 1200 - asked


@pytest.mark.parametrize(
    ("limits", "named", "later"),
    [
        ("RCPTMAX=9", ["b@x.test", "c@y.test", "d@x.test", "e@z.test"], []),
        ("RCPTDOMAINMAX=3", ["b@x.test", "c@y.test", "d@x.test", "e@z.test"], []),
        ("RCPTDOMAINMAX=2", ["b@x.test", "c@y.test", "d@x.test"], ["e@z.test"]),
        ("RCPTDOMAINMAX=1", ["b@x.test", "d@x.test"], ["c@y.test", "e@z.test"]),
        ("RCPTDOMAINMAX=1 RCPTMAX=1", ["b@x.test"], ["c@y.test", "e@z.test", "d@x.test"]),
    ],
)
def test_recipients_beyond_what_a_server_takes_wait_for_a_further_transaction(
    limits: str, named: list[str], later: list[str]
) -> None:
    recipients = tuple(Recipient(Mailbox.parse(each)) for each in ("b@x.test", "c@y.test", "d@x.test", "e@z.test"))
    transaction = Transaction(Envelope(NULL_PATH, recipients), recipients, Facts(), offer(f"LIMITS {limits}"))
    assert [str(recipients[index].mailbox) for index in transaction.unnamed] == named
    assert [str(recipients[index].mailbox) for index in transaction.overflow] == later
