"""Servers and zones that mean harm: each ends within its bound, with the right outcome, and nothing is left behind."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest

import mailrider
from mailrider.lab.ca import CA
from mailrider.lab.mx_script import (
    MXTLS,
    Close,
    EndlessOutput,
    ExtraOctets,
    MXScript,
    Raw,
    Silence,
    SlowReply,
    Stage,
    Stall,
    TLSFault,
)
from mailrider.smtp.capabilities import Capabilities
from tests.flow.delivery.internet import internet, outcome
from tests.support.loops import LOOPS, run_clean

if TYPE_CHECKING:
    from collections.abc import Mapping

    from mailrider.lab.mx_script import Action
    from mailrider.lab.zones import ZoneTable


PATIENT, IMPATIENT = 30.0, 0.5  # seconds that a busy machine may take, or that a silent server has
HANDSHAKE = 2.0  # the greeting and what comes before the handshake may take as long as that, too


def timers(seconds: float) -> dict[str, float]:
    """Those of a client that waits so long for a server."""
    return {"command_timeout": seconds, "submission_timeout": seconds, "connect_timeout": 30}


PIPELINING = Capabilities(pipelining=True)
CERTIFIED = MXTLS(CA().issue(["mx0.a.test"]))


def at(stage: Stage, action: Action, **more: Any) -> MXScript:
    return MXScript(replies={stage: action}, **more)


@dataclass
class Case:
    """What a message to `a.test` meets, and what must become of it."""

    expected: tuple[str, int, str]
    script: MXScript | None = None
    zones: ZoneTable = field(default_factory=dict)
    message: bytes = b"Subject: x\r\n\r\n"
    patience: float = PATIENT


def addresses(count: int) -> ZoneTable:
    return {
        "a.test": {"MX": "0 mx.test"},
        "mx.test": {"A": [f"127.4.{n // 250}.{n % 250 + 1}" for n in range(count)]},
    }


MX_MANY: ZoneTable = {"a.test": {"MX": [f"{n % 5} mx{n}.many.test" for n in range(4_000)]}}
LOOP: ZoneTable = {f"loop{n}.test": {"CNAME": f"loop{(n + 1) % 20}.test"} for n in range(20)}
BIG = b"Subject: x\r\n\r\n" + b"y" * 20_000_000
NO_SENSE, LOST, TLS_FAILED = ("deferred", 451, "4.5.0"), ("deferred", 451, "4.4.2"), ("deferred", 451, "4.7.5")

CASES: Mapping[str, Case] = {
    "an endless greeting": Case(NO_SENSE, at(Stage.CONNECT, EndlessOutput(b"220-and furthermore\r\n"))),
    "an endless EHLO reply": Case(NO_SENSE, at(Stage.EHLO, EndlessOutput())),
    "an endless reply to MAIL": Case(NO_SENSE, at(Stage.MAIL, EndlessOutput(), offer=PIPELINING)),
    "an endless reply to the final dot": Case(LOST, at(Stage.END, EndlessOutput())),
    "an endless line": Case(NO_SENSE, at(Stage.EHLO, EndlessOutput(b"250-" + b"x" * 10_000))),
    "endless replies that nobody asked for": Case(NO_SENSE, at(Stage.EHLO, EndlessOutput(b"250 Ok\r\n"))),
    "endless farewells": Case(("deferred", 421, "4.0.0"), at(Stage.MAIL, EndlessOutput(b"421 Bye\r\n"))),
    "an octet at a time": Case(LOST, at(Stage.EHLO, SlowReply("250 " + "x" * 500, seconds=0.1)), patience=IMPATIENT),
    "silence": Case(LOST, at(Stage.EHLO, Silence()), patience=IMPATIENT),
    "content that is not read": Case(
        LOST, MXScript(offer=PIPELINING, content=Stall(), content_after=9), message=BIG, patience=IMPATIENT
    ),
    "chunks that are not read": Case(LOST, MXScript(content=Stall(), content_after=9), message=BIG, patience=IMPATIENT),
    "replies with line ends of their own": Case(NO_SENSE, at(Stage.MAIL, Raw(b"250 Ok\n250 Ok\n"), offer=PIPELINING)),
    "injection behind STARTTLS": Case(
        TLS_FAILED, at(Stage.STARTTLS, ExtraOctets(b"250-mx\r\n250 REQUIRETLS\r\n"), tls=CERTIFIED)
    ),
    "injection of a single octet behind STARTTLS": Case(
        TLS_FAILED, at(Stage.STARTTLS, ExtraOctets(b"2"), tls=CERTIFIED)
    ),
    "a farewell behind STARTTLS": Case(TLS_FAILED, at(Stage.STARTTLS, ExtraOctets(b"421 Bye\r\n"), tls=CERTIFIED)),
    "a handshake without an end": Case(TLS_FAILED, MXScript(tls=MXTLS(fault=TLSFault.SILENCE)), patience=HANDSHAKE),
    "a reset in every way": Case(LOST, at(Stage.MAIL, Close(abrupt=True), tls=CERTIFIED)),
    # Ten of them are asked; the others have not said that they have no address.
    "more MX records than a message holds": Case(("deferred", 451, "4.4.1"), zones=MX_MANY),
    "a CNAME loop": Case(("deferred", 451, "4.4.3"), zones={"a.test": {"CNAME": "loop0.test"}, **LOOP}),
    "a CNAME to itself": Case(("deferred", 451, "4.4.3"), zones={"a.test": {"CNAME": "a.test"}}),
    "an MX that is a CNAME loop": Case(("deferred", 451, "4.4.3"), zones={"a.test": {"MX": "0 loop0.test"}, **LOOP}),
    "more addresses than are tried": Case(("deferred", 451, "4.4.1"), zones=addresses(1_900)),
    "more addresses than an answer is read for": Case(("deferred", 451, "4.4.3"), zones=addresses(5_000)),
}


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_it_ends_as_it_should_and_leaves_nothing(case: Case, loop: str) -> None:
    async def scenario() -> None:
        scripts = {} if case.script is None else {"a.test": [case.script]}
        async with internet(scripts, case.zones, timers(case.patience)) as net:
            result = await net.send_one("x@a.test", case.message)
        assert outcome(result) == case.expected

    run_clean(loop, scenario())


@pytest.mark.parametrize("loop", LOOPS)
def test_many_deliveries_to_hosts_of_every_kind_leave_nothing(loop: str) -> None:
    silent: dict[str, list[MXScript]] = {}
    noisy = {"good.test": [MXScript()]}
    expected = {"x@good.test": ("delivered", 250, "2.0.0")}
    for number, case in enumerate(CASES.values()):
        if case.script is not None:
            hosts = noisy if case.patience == PATIENT else silent
            hosts[f"d{number}.test"] = [case.script]
            expected[f"x@d{number}.test"] = case.expected

    async def scenario() -> None:
        async with internet(noisy, {}, timers(PATIENT)) as one, internet(silent, {}, timers(HANDSHAKE)) as other:
            reports = await asyncio.gather(*(net.send(*(f"x@{each}" for each in net.hosts)) for net in (one, other)))
        assert {result.recipient: outcome(result) for report in reports for result in report} == expected

    run_clean(loop, scenario())


# Line ends in arguments -----------------------------------------------------------------------------------------------

INJECTION = "\r\nRCPT TO:<victim@b.test>"
LINE_ENDS = ["\r\n", "\r", "\n", "\0", "\x85", "\u2028"]


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
async def test_no_line_end_in_an_address_reaches_a_server(end: str) -> None:
    wrong = [
        f"x@a.test{end}",
        f"{end}x@a.test",
        f"x{end}y@a.test",
        f'"x{end}y"@a.test',
        f"x@a{end}.test",
        f"x@[127.0.0.1{end}]",
        f"x@a.test>{end}RCPT TO:<victim@b.test",
    ]
    async with internet({"a.test": [MXScript()]}) as net:
        report = await net.send(*wrong)
        for sender in wrong:
            report = mailrider.Report((*report, *await net.remote.send(b"Subject: x\r\n\r\n", sender, ["x@a.test"])))
        assert not net.dns.queries
        assert not net.mx("a.test").opened
    assert {result.reply.code for result in report} == {501}
    assert all(each.isprintable() for result in report for each in result.reply.lines)


@pytest.mark.parametrize("end", LINE_ENDS, ids=ascii)
def test_no_line_end_in_any_other_argument_is_accepted(end: str) -> None:
    text = f"x{end}y"
    for arguments in ({"envid": text}, {"notify": f"NEVER{end}"}, {"ret": f"FULL{end}"}):
        with pytest.raises(ValueError, match=r".+"):
            mailrider.DSN(**arguments)
    settings: list[dict[str, Any]] = [
        {"hostname": f"client.test{end}"},
        {"hostname": f"a{end}.test"},
        {"hostname": "client.test", "local_ip": f"127.0.0.1{end}"},
    ]
    for directives in settings:
        with pytest.raises(ValueError, match=r".+"):
            mailrider.Remote(**directives)


async def test_line_ends_in_the_content_stay_content() -> None:
    message = f"Subject: x{INJECTION}\n\n.\r.\n.\r\n.{INJECTION}\r\n.\r\nQUIT\r\n".encode()
    for offer in (PIPELINING, Capabilities(pipelining=True, chunking=True)):
        async with internet({"a.test": [MXScript(offer=offer)]}) as net:
            assert (await net.send_one("x@a.test", message)).status == "delivered"
            server = net.mx("a.test")
            assert server.accepted == 1
            assert server.messages[0].addresses == ["x@a.test"]
