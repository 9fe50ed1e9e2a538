"""Checks: what fits, which word holds, and what becomes of a message."""

from __future__ import annotations

import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from mailrider.app.pipelines import open_checks
from mailrider.config.bind import Binder
from mailrider.config.expand import Allowance, Expander
from mailrider.config.parser import Node, Word
from mailrider.config.secret_values import SecretValues
from mailrider.config.source import Position, Problems, Source
from mailrider.config.values import WRONG
from mailrider.endpoint.pipeline.check import (
    NOT_NOW,
    REFUSED,
    Arrival,
    CheckAction,
    CheckResult,
    HeaderCheck,
    MessageChecked,
    examine,
    strictest,
)
from mailrider.endpoint.pipeline.route import Branch
from mailrider.endpoint.pipeline.settings import CheckSettings, RspamdOptions
from mailrider.model.address import Mailbox
from mailrider.model.event import discard
from mailrider.model.handover import DIRECT
from mailrider.model.outcome import AttemptReport, Status, outcome_for
from mailrider.model.reply import Reply
from mailrider.settings.directive import InvalidSetting
from mailrider.signing.open import open_signing
from mailrider.signing.settings import ModifySettings
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.x509.key_kind import KeyKind
from tests.support.queueing import MESSAGE, TAKEN, envelope

if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any

    from mailrider.model.envelope import Envelope
    from mailrider.model.event import Event
    from mailrider.model.handover import Handover
    from mailrider.settings.directive import Settings

ARRIVAL = Arrival("192.0.2.1", "client", "anna", "mx.example.org", "1")


@dataclass
class Says:
    """A check that says always the same."""

    finding: CheckResult
    asked: list[Arrival] = field(default_factory=list)

    async def examine(self, envelope: Envelope, content: Content, arrival: Arrival) -> CheckResult:
        self.asked.append(arrival)
        return self.finding


@dataclass
class Sink:
    """Takes everything."""

    given: list[tuple[Envelope, Content, Arrival]] = field(default_factory=list)

    async def deliver(
        self, envelope: Envelope, content: Content, handover: Handover, arrival: Arrival
    ) -> AttemptReport:
        self.given.append((envelope, content, arrival))
        return AttemptReport(tuple(outcome_for(each, TAKEN) for each in envelope.recipients))


def branch(sink: Sink, check: Says) -> Branch:
    return Branch(sink, [check], Mailbox.parse("postmaster@example.org"), discard)  # type: ignore[arg-type]


def says(action: CheckAction, reply: Reply | None = None) -> Says:
    return Says(CheckResult(action, "test", "because", reply))


# --- A header field against a pattern -----------------------------------------------------------


@pytest.mark.parametrize(
    ("pattern", "value", "fits"),
    [
        ("YES", b"yes", True),
        ("YES", b"yes, score 9", False),
        ("yes*", b"Yes, score 9", True),
        ("*buy now*", b"please buy now!", True),
        ("*buy now*", b"please buy\r\n now!", True),
        ("a.c", b"abc", False),
        ("[ab]?", b"b1", True),
        ("*grün*", "ist grün".encode(), True),
        ("*grün*", b"=?utf-8?q?ist_gr=C3=BCn?=", True),
        ("*x*", b"=?no-such-charset?q?x?=", True),
        ("*x*", b"\xff\xfe", False),
        ("*", b"", True),
    ],
)
async def test_a_pattern_fits_the_whole_value_whatever_its_case(pattern: str, value: bytes, fits: bool) -> None:
    check = HeaderCheck("X-Test", pattern, CheckAction.QUARANTINE)
    content = Content.inspect(b"From: a@example.org\r\nx-test: " + value + b"\r\n\r\nbody\r\n")
    found = await check.examine(envelope("b@example.net"), content, Arrival())
    assert found.action is (CheckAction.QUARANTINE if fits else CheckAction.PASS)


async def test_any_field_of_the_name_will_do_and_the_body_is_none() -> None:
    check = HeaderCheck("X", "yes", CheckAction.REJECT)
    two = Content.inspect(b"X: no\r\nX: yes\r\n\r\n")
    body = Content.inspect(b"X: no\r\n\r\nX: yes\r\n")
    assert (await check.examine(envelope("b@example.net"), two, Arrival())).action is CheckAction.REJECT
    assert (await check.examine(envelope("b@example.net"), body, Arrival())).action is CheckAction.PASS


@pytest.mark.parametrize("value", [b"x" * 500_000 + b"buy now", b"=?utf-8?q?" + b"x" * 500_000 + b"_buy=20now?="])
async def test_the_whole_value_is_looked_at_however_long_it_is(value: bytes) -> None:
    content = Content.inspect(b"X: " + value + b"\r\n\r\n")
    for pattern, action in (("*buy now", CheckAction.REJECT), ("*buy now?", CheckAction.PASS)):
        found = await HeaderCheck("X", pattern, CheckAction.REJECT).examine(
            envelope("b@example.net"), content, Arrival()
        )
        assert found.action is action


async def test_a_long_header_is_looked_at_off_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    inner = HeaderCheck.fits

    def noted(self: HeaderCheck, value: bytes) -> bool:
        threads.append(threading.current_thread())
        return inner(self, value)

    monkeypatch.setattr(HeaderCheck, "fits", noted)
    for size in (1, 20_000):
        content = Content.inspect(b"X: " + b"y" * size + b"\r\n\r\n")
        await HeaderCheck("X", "z", CheckAction.REJECT).examine(envelope("b@example.net"), content, Arrival())
    assert [each is threading.main_thread() for each in threads] == [True, False]


BAD_WORDS = [
    "=?utf-8?b?x?=",
    "=?no-such?q?x?=",
    "=?hex?q?x?=",
    "=?rot13?q?x?=",
    "=?undefined?q?x?=",
    "=?idna?q?=FF?=",
    "=?unicode_escape?q?=5Cud800?=",
    "=?utf-8\x00?q?x?=",
    "=?../x?q?x?=",
    "=?utf-8?q?=?=",
    "=?utf-8?q?" * 2000 + "x" + "?=" * 2000,
]


@pytest.mark.parametrize("value", BAD_WORDS)
async def test_an_encoded_word_that_is_bad_keeps_nobody_from_a_decision(value: str) -> None:
    check = HeaderCheck("X", "*x*", CheckAction.REJECT)
    content = Content.inspect(b"X: x" + value.encode() + b"\r\n\r\n")
    assert (await check.examine(envelope("b@example.net"), content, Arrival())).action is CheckAction.REJECT


# --- Which word holds ---------------------------------------------------------------------------


def test_the_strictest_word_holds() -> None:
    findings = [CheckResult(each) for each in (CheckAction.PASS, CheckAction.DEFER, CheckAction.QUARANTINE)]
    assert strictest(findings).action is CheckAction.DEFER
    assert strictest([*findings, CheckResult(CheckAction.REJECT)]).action is CheckAction.REJECT
    assert strictest([]).action is CheckAction.PASS


async def test_after_a_rejection_nobody_else_is_asked() -> None:
    events: list[Event] = []
    later = says(CheckAction.PASS)
    checks = [says(CheckAction.QUARANTINE), says(CheckAction.REJECT), later]
    found = await examine(checks, envelope("b@example.net"), Content.inspect(MESSAGE), Arrival(id="1"), events.append)
    assert found.refusal == REFUSED
    assert later.asked == []
    assert [(type(each), getattr(each, "action", "")) for each in events] == [
        (MessageChecked, "quarantine"),
        (MessageChecked, "reject"),
    ]


# --- Before a pipeline --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("check", "reply", "status"),
    [
        (says(CheckAction.REJECT), REFUSED, Status.FAILED),
        (says(CheckAction.REJECT, Reply.make(550, "5.7.1", "spam")), Reply.make(550, "5.7.1", "spam"), Status.FAILED),
        (says(CheckAction.DEFER), NOT_NOW, Status.DEFERRED),
    ],
)
async def test_what_is_refused_reaches_nobody(check: Says, reply: Reply, status: Status) -> None:
    sink = Sink()
    given = envelope("b@example.net", "c@example.net")
    report = await branch(sink, check).deliver(given, Content.inspect(MESSAGE), DIRECT, Arrival())
    assert [(each.reply, each.status) for each in report] == [(reply, status)] * 2
    assert sink.given == []


async def test_a_quarantined_message_is_refused_while_its_client_is_there_since_no_target_sends_it_on() -> None:
    sink, check = Sink(), says(CheckAction.QUARANTINE)
    given = envelope("b@example.net")
    (outcome,) = await branch(sink, check).deliver(given, Content.inspect(MESSAGE), DIRECT, ARRIVAL)
    assert (outcome.status, outcome.reply.code, str(outcome.reply.status)) == (Status.FAILED, 550, "5.7.0")
    assert sink.given == []


async def test_what_passes_is_left_alone() -> None:
    sink, check = Sink(), says(CheckAction.PASS)
    given, content = envelope("b@example.net"), Content.inspect(MESSAGE)
    await branch(sink, check).deliver(given, content, DIRECT, ARRIVAL)
    assert sink.given == [(given, content, ARRIVAL)]
    assert check.asked == [ARRIVAL]


# --- Settings -----------------------------------------------------------------------------------


def read(cls: type[Settings], text: str, directory: Path) -> tuple[Any, str]:
    problems = Problems("text")
    source = Source("text", text, directory)
    nodes = Expander(problems, {}, lambda _: b"", Allowance(problems)).expand(source)
    block = Node(Word("check", Position(source, 0)), (), nodes)
    settings = Binder(problems, directory, SecretValues({})).settings(cls, block, "check")
    return settings, "\n".join(str(each.message) for each in problems.in_order())


def test_checks_are_configured_by_a_line_each(tmp_path: Path) -> None:
    text = (
        'header X-Spam-Flag YES quarantine\nheader Subject "*buy now*" reject\n'
        "rspamd http://127.0.0.1:11333\nrspamd unix:///run/rspamd.sock {\n timeout 3s\n io_error_action ignore\n}\n"
    )
    settings, problems = read(CheckSettings, text, tmp_path)
    assert problems == ""
    assert settings.header == (
        HeaderCheck("X-Spam-Flag", "YES", CheckAction.QUARANTINE),
        HeaderCheck("Subject", "*buy now*", CheckAction.REJECT),
    )
    first, second = settings.rspamd
    assert (first.url, first.options) == ("http://127.0.0.1:11333", RspamdOptions())
    assert (second.url, second.options.io_error_action) == ("unix:///run/rspamd.sock", CheckAction.PASS)


def test_signatures_are_configured_by_a_line_each(tmp_path: Path) -> None:
    text = (
        "dkim example.org s1\ndkim example.org example.net example.org s2\n"
        "dkim example.org s3 {\n newkey_algo ed25519\n key_path keys/s3.pem\n}\n"
    )
    settings, problems = read(ModifySettings, text, tmp_path)
    assert problems == ""
    assert [(list(map(str, each.domains)), each.selector) for each in settings.dkim] == [
        (["example.org"], "s1"),
        (["example.org", "example.net"], "s2"),
        (["example.org"], "s3"),
    ]
    assert settings.dkim[2].options.newkey_algo is KeyKind.ED25519
    assert settings.dkim[2].options.key_path == tmp_path / "keys" / "s3.pem"


@pytest.mark.parametrize(
    ("cls", "text", "problem"),
    [
        (CheckSettings, "header Subject reject", "a field, a pattern and"),
        (CheckSettings, "header Subject x bounce", "expected quarantine or reject at the end"),
        (CheckSettings, "header a:b x reject", "expected"),
        (CheckSettings, "rspamd ftp://127.0.0.1", "http://HOST:PORT"),
        (CheckSettings, "rspamd", "the address of rspamd"),
        (CheckSettings, "rspamd http://127.0.0.1:1 {\n io_error_action reject\n}", "use defer"),
        (ModifySettings, "dkim example.org", "domains and a selector"),
        (ModifySettings, "dkim a.example b.example s {\n key_path k\n}", "key_path is for one domain"),
        (ModifySettings, "dkim a.example s {\n key_path {domain}_{selector}.key\n}", "the path of one file"),
        (ModifySettings, "dkim example.org -s", "a selector is letters"),
        (ModifySettings, "dkim example.org \N{KELVIN SIGN}", "a selector is letters"),
        (ModifySettings, "dkim example.org \N{LATIN SMALL LETTER LONG S}1", "a selector is letters"),
        (ModifySettings, "dkim exa..mple s", "domain"),
        (ModifySettings, "dkim example.org s {\n newkey_algo dsa\n}", "rsa2048, rsa4096 or ed25519"),
    ],
)
def test_what_makes_no_sense_is_told(cls: type[Settings], text: str, problem: str, tmp_path: Path) -> None:
    settings, problems = read(cls, text + "\n", tmp_path)
    assert settings is WRONG
    assert problem in problems


def test_programs_give_values(tmp_path: Path) -> None:
    check = HeaderCheck("X", "y", CheckAction.REJECT)
    assert CheckSettings(header=[check]).header == (check,)
    with pytest.raises(InvalidSetting):
        CheckSettings(rspamd=[3])  # type: ignore[list-item]
    with pytest.raises(InvalidSetting):
        ModifySettings(dkim=[3])  # type: ignore[list-item]


async def test_nothing_configured_is_nothing_done() -> None:
    async with open_checks(None, FakeClock()) as checks:
        assert checks == ()
    assert await open_signing(None, FakeClock(), discard) is None
    assert await open_signing(ModifySettings(), FakeClock(), discard) is None
