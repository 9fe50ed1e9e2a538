"""From an event on the network to the outcome of a recipient, row by row, against the lab."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

import mailrider
from mailrider.lab.ca import CA, Kind
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
    ExtraOctets,
    MXScript,
    Silence,
    Stage,
    TLSFault,
)
from mailrider.smtp.capabilities import Capabilities
from mailrider.smtp.commands import EndOfData
from mailrider.smtp.transaction import Transaction
from tests.flow.delivery.internet import REFUSING, UNANSWERING, Shut, internet, outcome, stages

if TYPE_CHECKING:
    from mailrider.smtp.client import AnsweredCommand

GOOD = MXScript()
SHORT = {"command_timeout": 2, "submission_timeout": 2, "connect_timeout": 2}  # for a server that is silent

CA_ = CA()


def at(stage: Stage, action: Action) -> MXScript:
    return MXScript(replies={stage: action})


# Connect refused, unreachable, timed out; prohibited address ----------------------------------------------------------


@pytest.mark.parametrize("dead", [REFUSING, UNANSWERING], ids=["refused", "timed out"])
async def test_an_address_that_does_not_answer_leads_to_the_next_candidate(dead: Shut) -> None:
    async with internet({"a.test": [dead, GOOD]}, directives={"connect_timeout": 1}) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result)[0], stages(result)) == ("delivered", ["connect", "delivered"])


@pytest.mark.parametrize("dead", [REFUSING, UNANSWERING], ids=["refused", "timed out"])
async def test_no_candidate_answers_defers_441(dead: Shut) -> None:
    async with internet({"a.test": [dead, dead]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.1"), ["connect", "connect"])


async def test_a_prohibited_address_is_never_connected_to() -> None:
    async with internet({"a.test": [GOOD]}, directives={"prohibited_addresses": ["127.0.0.0/8"]}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").opened == 0
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.1"), ["prohibited"])


async def test_the_default_prohibits_loopback() -> None:
    default = mailrider.RemoteSettings().prohibited_addresses
    async with internet({"a.test": [GOOD]}, directives={"prohibited_addresses": default}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 451, "4.4.1")
        assert net.mx("a.test").opened == 0


# Closed before or in the greeting or EHLO; malformed reply ------------------------------------------------------------

CLOSED_EARLY = {
    "before the greeting": at(Stage.CONNECT, Close()),
    "at EHLO": at(Stage.EHLO, Close()),
    "silence at EHLO": at(Stage.EHLO, Silence()),
}
MALFORMED = {
    f"{name} {where}": at(stage, action)
    for name, action in {
        "mixed codes": MIXED_CODES,
        "bare LF": BARE_LF,
        "NUL": NUL,
        "overlong line": OVERLONG,
        "garbage": GARBAGE,
        "code 199": NO_REPLY_CODE,
    }.items()
    for where, stage in {"as greeting": Stage.CONNECT, "to EHLO": Stage.EHLO}.items()
}


@pytest.mark.parametrize("script", CLOSED_EARLY.values(), ids=CLOSED_EARLY)
async def test_closed_early_by_all_defers_442(script: MXScript) -> None:
    async with internet({"a.test": [script, script]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.4.2")
    assert len(result.attempts) == 2


@pytest.mark.parametrize("script", MALFORMED.values(), ids=MALFORMED)
async def test_malformed_replies_from_all_defer_450(script: MXScript) -> None:
    async with internet({"a.test": [script, script]}) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.5.0")


@pytest.mark.parametrize("script", [*CLOSED_EARLY.values(), *MALFORMED.values()], ids=[*CLOSED_EARLY, *MALFORMED])
async def test_after_a_bad_start_the_next_candidate_is_tried(script: MXScript) -> None:
    is_silent = script is CLOSED_EARLY["silence at EHLO"]
    async with internet({"a.test": [script, GOOD]}, directives={"command_timeout": 1} if is_silent else {}) as net:
        assert outcome(await net.send_one("x@a.test"))[0] == "delivered"
        assert net.mx("a.test", 1).accepted == 1


# TLS handshake failed -------------------------------------------------------------------------------------------------

BROKEN_TLS = {fault.value: MXTLS(fault=fault) for fault in (TLSFault.GARBAGE, TLSFault.ALERT, TLSFault.CLOSE)}
BROKEN_TLS["rejects late"] = MXTLS(CA_.issue(["mx0.a.test"]), fault=TLSFault.REJECTS_LATE)
BROKEN_TLS["rejects late in TLS 1.2"] = MXTLS(
    CA_.issue(["mx0.a.test"]), fault=TLSFault.REJECTS_LATE, protocols=("tls1.2", "tls1.2")
)
DEMANDING = {"mx_auth": [mailrider.LocalPolicy()]}


@pytest.mark.parametrize("tls", BROKEN_TLS.values(), ids=BROKEN_TLS)
async def test_a_broken_handshake_falls_back_to_clear_where_nothing_demands_tls(tls: MXTLS) -> None:
    async with internet({"a.test": [MXScript(tls=tls)]}) as net:
        result = await net.send_one("x@a.test")
        assert [connection.tls for connection in net.mx("a.test").connections][-1] is None
    assert (outcome(result)[0], stages(result)) == ("delivered", ["fallback", "delivered"])
    assert result.security.tls_level == mailrider.TLSLevel.NONE


@pytest.mark.parametrize("tls", BROKEN_TLS.values(), ids=BROKEN_TLS)
async def test_a_broken_handshake_defers_475_where_tls_is_demanded(tls: MXTLS) -> None:
    async with internet({"a.test": [MXScript(tls=tls)] * 2}, directives=DEMANDING) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").accepted == 0
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.7.5"), ["tls", "tls"])


async def test_a_handshake_that_times_out_never_falls_back() -> None:
    script = MXScript(tls=MXTLS(fault=TLSFault.SILENCE))
    async with internet({"a.test": [script]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").opened == 1
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.7.5"), ["tls"])


async def test_a_failed_handshake_is_remembered_for_the_address_and_domain() -> None:
    async with internet({"a.test": [MXScript(tls=MXTLS(fault=TLSFault.ALERT))]}) as net:
        first = await net.send_one("x@a.test")
        second = await net.send_one("x@a.test")
    assert (stages(first), stages(second)) == (["fallback", "delivered"], ["delivered"])


async def test_a_refused_starttls_goes_on_in_clear_on_the_same_connection() -> None:
    script = MXScript(tls=MXTLS(CA_.issue(["mx0.a.test"])), replies={Stage.STARTTLS: "454 4.7.0 Not now"})
    async with internet({"a.test": [script]}) as net:
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").opened, result.status) == (1, "delivered")
    assert result.security.tls_level == mailrider.TLSLevel.NONE
    assert stages(result) == ["fallback", "delivered"]
    assert str(result.attempts[0].reply) == "454 4.7.0 mx0.a.test said: Not now"


async def test_a_refused_starttls_is_no_fallback_where_tls_is_demanded() -> None:
    script = MXScript(tls=MXTLS(CA_.issue(["mx0.a.test"])), replies={Stage.STARTTLS: "454 4.7.0 Not now"})
    async with internet({"a.test": [script]}, directives=DEMANDING) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").accepted == 0
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.7.1"), ["policy"])


async def test_bytes_behind_the_220_to_starttls_make_the_candidate_unusable() -> None:
    injected = ExtraOctets(b"250-evil\r\n250 REQUIRETLS\r\n")
    script = MXScript(tls=MXTLS(CA_.issue(["mx0.a.test"])), replies={Stage.STARTTLS: injected})
    async with internet({"a.test": [script, GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").accepted, net.mx("a.test", 1).accepted) == (0, 1)
    assert stages(result) == ["tls", "delivered"]


# Greeting or EHLO 4xx, 421 anywhere before the final dot --------------------------------------------------------------

FAREWELLS = {
    "greeting 421": at(Stage.CONNECT, Close("421 4.3.2 Closing")),
    "greeting 450": at(Stage.CONNECT, "450 4.3.2 Busy"),
    "EHLO 421": at(Stage.EHLO, Close("421 4.3.2 Closing")),
    "EHLO 450": at(Stage.EHLO, "450 4.3.2 Busy"),
    "MAIL 421": at(Stage.MAIL, Close("421 4.3.2 Closing")),
    "RCPT 421": at(Stage.RCPT, Close("421 4.3.2 Closing")),
    "DATA 421": at(Stage.DATA, Close("421 4.3.2 Closing")),
}
PLAIN_OFFER = Capabilities(pipelining=True)


@pytest.mark.parametrize("script", FAREWELLS.values(), ids=FAREWELLS)
async def test_a_farewell_leads_on_and_defers_with_its_own_words_if_all_say_so(script: MXScript) -> None:
    script = replace(script, offer=PLAIN_OFFER)
    async with internet({"a.test": [script] * 3, "b.test": [script, GOOD]}) as net:
        alone, helped = await net.send("x@a.test", "x@b.test")
        assert all(net.mx("a.test", number).opened == 1 for number in range(3))
    assert (alone.status, alone.reply.code // 100, str(alone.reply.enhanced)) == ("deferred", 4, "4.3.2")
    assert "said: " in alone.reply.text
    assert helped.status == "delivered"


# Greeting 5xx, or EHLO and then HELO refused with 5xx -----------------------------------------------------------------


async def test_a_5xx_greeting_is_about_us_and_defers_432_quoting_it() -> None:
    refusing = at(Stage.CONNECT, "554 5.7.1 Your network is not welcome")
    async with internet({"a.test": [refusing, refusing]}) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.3.2")
    assert "mx1.a.test said: 554 5.7.1 Your network is not welcome" in result.reply.text


async def test_ehlo_and_helo_refused_defers_432() -> None:
    refusing = MXScript(replies={Stage.EHLO: "502 5.5.1 No", Stage.HELO: "550 5.7.1 Who are you?"})
    async with internet({"a.test": [refusing]}) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result), "Who are you?" in result.reply.text) == (("deferred", 451, "4.3.2"), True)


async def test_ehlo_refused_and_helo_accepted_delivers() -> None:
    async with internet({"a.test": [at(Stage.EHLO, "502 5.5.1 No")]}) as net:
        assert (await net.send_one("x@a.test")).status == "delivered"


async def test_every_candidate_greets_521_fails() -> None:
    no_mail = at(Stage.CONNECT, "521 5.3.2 This host does not accept mail")
    async with internet({"a.test": [no_mail, no_mail], "b.test": [no_mail, REFUSING]}) as net:
        all_of_them, not_all = await net.send("x@a.test", "x@b.test")
    assert outcome(all_of_them) == ("failed", 521, "5.3.2")
    assert outcome(not_all) == ("deferred", 451, "4.3.2")


# MAIL/RCPT/DATA 4xx ---------------------------------------------------------------------------------------------------

TRANSIENT = {stage.name: at(stage, "450 4.2.0 Come back later") for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA)}


@pytest.mark.parametrize("script", TRANSIENT.values(), ids=TRANSIENT)
async def test_a_4xx_leads_to_the_next_candidate_and_two_of_them_end_the_attempt(script: MXScript) -> None:
    script = replace(script, offer=PLAIN_OFFER)
    async with internet({"a.test": [script] * 3, "b.test": [script, GOOD]}) as net:
        alone, helped = await net.send("x@a.test", "x@b.test")
        assert [net.mx("a.test", number).opened for number in range(3)] == [1, 1, 0]
    assert outcome(alone) == ("deferred", 450, "4.2.0")
    assert helped.status == "delivered"


async def test_what_a_server_said_of_the_recipient_is_shown_whatever_another_says_of_itself() -> None:
    greylisting = at(Stage.RCPT, "450 4.2.0 Greylisted")
    busy = at(Stage.CONNECT, Close("421 4.3.2 Busy"))
    async with internet({"a.test": [greylisting, busy, at(Stage.CONNECT, "554 5.7.1 Go away")]}) as net:
        result = await net.send_one("x@a.test")
    assert (outcome(result), result.mx) == (("deferred", 450, "4.2.0"), "mx0.a.test")
    assert stages(result) == ["rcpt", "greeting", "greeting"]


# MAIL/RCPT/DATA/final 5xx ---------------------------------------------------------------------------------------------

PERMANENT = {stage.name: at(stage, "554 5.7.1 Never") for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.END)}


@pytest.mark.parametrize("script", PERMANENT.values(), ids=PERMANENT)
async def test_a_5xx_is_final_at_once(script: MXScript) -> None:
    script = replace(script, offer=PLAIN_OFFER)
    async with internet({"a.test": [script, GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test", 1).opened == 0
    assert outcome(result) == ("failed", 554, "5.7.1")
    assert result.reply.text == "mx0.a.test said: Never"


async def test_a_5xx_stands_whatever_another_candidate_said_before() -> None:
    later, never = at(Stage.RCPT, "450 4.2.0 Later"), at(Stage.RCPT, "550 5.1.1 Nobody")
    async with internet({"a.test": [later, never]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("failed", 550, "5.1.1")


async def test_recipients_of_one_transaction_end_each_in_its_own_way() -> None:
    script = MXScript(recipients={"no@a.test": "550 5.1.1 Nobody", "later@a.test": "450 4.2.1 Later"})
    async with internet({"a.test": [script]}) as net:
        report = await net.send("yes@a.test", "no@a.test", "later@a.test")
        assert net.mx("a.test").messages[0].addresses == ["yes@a.test"]
    assert [outcome(result)[0] for result in report] == ["delivered", "failed", "deferred"]


# Too many recipients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reply", ["552 Too many recipients", "552 5.5.3 Too many recipients"])
async def test_a_552_that_means_too_many_counts_as_452(reply: str) -> None:
    async with internet({"a.test": [at(Stage.RCPT, reply)]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 452, "4.5.3")


async def test_recipients_past_the_limit_go_in_a_further_transaction_on_the_same_connection() -> None:
    script = MXScript(recipients={"two@a.test": ["452 4.5.3 Too many"]})
    async with internet({"a.test": [script]}) as net:
        report = await net.send("one@a.test", "two@a.test")
        assert [message.addresses for message in net.mx("a.test").messages] == [["one@a.test"], ["two@a.test"]]
        assert net.mx("a.test").opened == 1
    assert [result.status.value for result in report] == ["delivered", "delivered"]


async def test_an_announced_limit_of_recipients_is_kept() -> None:
    offer = Capabilities(pipelining=True, max_recipients=2, keywords={"LIMITS": "RCPTMAX=2"})
    async with internet({"a.test": [MXScript(offer=offer)]}) as net:
        report = await net.send(*(f"{n}@a.test" for n in range(5)))
        assert [len(message.addresses) for message in net.mx("a.test").messages] == [2, 2, 1]
    assert {result.status.value for result in report} == {"delivered"}


# Lost, or a command timed out, between MAIL and the end of data -------------------------------------------------------

LOST = {
    **{f"closed at {stage.name}": at(stage, Close()) for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA)},
    **{f"silence at {stage.name}": at(stage, Silence()) for stage in (Stage.MAIL, Stage.RCPT, Stage.DATA)},
    "closed in the content": MXScript(content=Close(), content_after=10),
}


@pytest.mark.parametrize("script", LOST.values(), ids=LOST)
async def test_a_connection_lost_before_the_end_leads_on_and_defers_442(script: MXScript) -> None:
    script = replace(script, offer=PLAIN_OFFER)
    message = b"Subject: x\r\n\r\n" + b"x" * 70 + b"\r\n" + b"y" * 10_000_000 + b"\r\n"
    async with internet({"a.test": [script] * 2, "b.test": [script, GOOD]}, directives={"command_timeout": 1}) as net:
        alone, helped = await net.send("x@a.test", "x@b.test", message=message)
        assert net.mx("a.test", 1).opened == 1
    assert outcome(alone) == ("deferred", 451, "4.4.2")
    assert (alone.in_doubt, helped.status) == (False, "delivered")


async def test_a_complete_reply_read_before_the_loss_decides() -> None:
    script = MXScript(offer=PLAIN_OFFER, recipients={"no@a.test": "550 5.1.1 Nobody"}, replies={Stage.DATA: Close()})
    async with internet({"a.test": [script]}) as net:
        report = await net.send("no@a.test", "yes@a.test")
    assert [outcome(result) for result in report] == [("failed", 550, "5.1.1"), ("deferred", 451, "4.4.2")]


async def test_a_refusal_in_the_middle_of_the_content_decides() -> None:
    script = MXScript(offer=PLAIN_OFFER, content="552 5.3.4 Too much", content_after=1000)
    message = b"Subject: x\r\n\r\n" + b"x" * 3_000_000 + b"\r\n"
    async with internet({"a.test": [script]}) as net:
        assert outcome(await net.send_one("x@a.test", message)) == ("failed", 552, "5.3.4")


# After the final dot --------------------------------------------------------------------------------------------------


async def test_a_4xx_after_the_final_dot_defers_with_that_reply_and_no_other_candidate_is_tried() -> None:
    async with internet({"a.test": [at(Stage.END, "452 4.3.1 Disk full"), GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test", 1).opened == 0
    assert (outcome(result), result.in_doubt) == (("deferred", 452, "4.3.1"), False)


@pytest.mark.parametrize("action", [Close(), Silence(), GARBAGE], ids=["lost", "timed out", "garbage"])
async def test_lost_after_the_final_dot_is_in_doubt_and_no_other_candidate_is_tried(action: Action) -> None:
    async with internet({"a.test": [at(Stage.END, action), GOOD]}, directives=SHORT) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test", 1).opened == 0
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.4.2"), True)


async def test_a_421_after_the_final_dot_is_the_reply() -> None:
    async with internet({"a.test": [at(Stage.END, Close("421 4.3.0 Going down")), GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test", 1).opened == 0
    assert (outcome(result), result.in_doubt) == (("deferred", 421, "4.3.0"), False)


async def test_a_reply_and_then_close_is_the_reply() -> None:
    async with internet({"a.test": [at(Stage.END, Close("250 2.0.0 Ok"))]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("delivered", 250, "2.0.0")


@pytest.mark.parametrize("action", [Close(), "554 5.0.0 No way", GARBAGE], ids=["close", "554", "garbage"])
async def test_a_failing_quit_never_changes_the_result(action: Action) -> None:
    async with internet({"a.test": [at(Stage.QUIT, action)]}) as net:
        assert (await net.send_one("x@a.test")).status == "delivered"


# Policies, and the unexpected -----------------------------------------------------------------------------------------


async def test_a_candidate_refused_by_policy_leads_to_the_next() -> None:
    secure = MXScript(tls=MXTLS(CA_.issue(["mx1.a.test"], Kind.SELF_SIGNED)))
    async with internet({"a.test": [GOOD, secure]}, directives=DEMANDING) as net:
        result = await net.send_one("x@a.test")
        assert b"MAIL" not in b"".join(said.octets for said in net.mx("a.test").connections[0].transcript)
    assert (result.status.value, stages(result)) == ("delivered", ["policy", "delivered"])


async def test_all_candidates_refused_by_policy_defers_with_its_reason() -> None:
    async with internet({"a.test": [GOOD, GOOD]}, directives=DEMANDING) as net:
        result = await net.send_one("x@a.test")
    assert outcome(result) == ("deferred", 451, "4.7.1")
    assert "local_policy demands encrypted" in result.reply.text


async def test_an_exception_that_nobody_expected_defers_and_never_bounces(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("mailrider.delivery.attempt.ConnectRequest", explode)
    async with internet({"a.test": [GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert any(type(event).__name__ == "Bug" for event in net.events)
    assert outcome(result) == ("deferred", 451, "4.3.0")


async def test_an_exception_after_the_end_of_data_is_in_doubt(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Transaction.take

    def explode(transaction: Transaction, answer: AnsweredCommand) -> None:
        if isinstance(answer.command, EndOfData):
            raise ZeroDivisionError("a bug")
        usual(transaction, answer)

    monkeypatch.setattr(Transaction, "take", explode)
    async with internet({"a.test": [MXScript(offer=PLAIN_OFFER), GOOD]}) as net:
        result = await net.send_one("x@a.test")
        assert (net.mx("a.test").accepted, net.mx("a.test", 1).opened) == (1, 0)
    assert (outcome(result), result.in_doubt) == (("deferred", 451, "4.3.0"), True)


# Found by an audit ----------------------------------------------------------------------------------------------------


async def test_an_address_without_tls_is_unusable_where_tls_is_demanded_and_the_next_one_is_tried() -> None:
    asked = itertools.count()
    script = MXScript(
        tls=MXTLS(CA_.issue(["mx0.a.test"])),
        replies={Stage.STARTTLS: lambda _: "454 4.7.0 Not now" if next(asked) == 0 else None},
    )
    async with internet({"a.test": [script], "b.test": [script]}, directives=DEMANDING) as net:
        net.dns.zones["mx0.a.test"] = {"A": [net.mx("a.test").address, net.mx("b.test").address]}
        result = await net.send_one("x@a.test")
    assert (result.status.value, stages(result)) == ("delivered", ["policy", "delivered"])


async def test_recipients_past_the_limit_share_the_fate_of_a_farewell() -> None:
    script = replace(at(Stage.MAIL, Close("421 4.3.2 Going down")), offer=PLAIN_OFFER)
    async with internet({"a.test": [script]}) as net:
        report = await net.send(*(f"{number}@a.test" for number in range(103)))
    assert {outcome(result) for result in report} == {("deferred", 421, "4.3.2")}
    assert {len(result.attempts) for result in report} == {1}


async def test_a_finished_handshake_of_tls_1_2_is_never_a_reason_to_fall_back() -> None:
    tls = MXTLS(CA_.issue(["mx0.a.test"]), protocols=("tls1.2", "tls1.2"))
    script = MXScript(tls=tls, replies={Stage.EHLO_IN_TLS: Close()})
    async with internet({"a.test": [script]}) as net:
        result = await net.send_one("x@a.test")
        assert net.mx("a.test").opened == 1
    assert (outcome(result), stages(result)) == (("deferred", 451, "4.4.2"), ["ehlo"])


async def test_521_to_ehlo_is_no_greeting() -> None:
    script = MXScript(replies={Stage.EHLO: "521 5.3.2 No", Stage.HELO: "521 5.3.2 No"})
    async with internet({"a.test": [script]}) as net:
        assert outcome(await net.send_one("x@a.test")) == ("deferred", 451, "4.3.2")
