"""`mailrider tlsrpt`: what was counted and sent, and sending it now."""

from __future__ import annotations

import json
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from mailrider.app.check.addresses import SourceAddress, source_addresses
from mailrider.app.check.reports import check_reporting, check_reporting_outside
from mailrider.app.reports import reporter_of, store_of
from mailrider.clock import SystemClock
from mailrider.config import load
from mailrider.delivery.settings import RemoteSettings
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.reporting.store import DeliveryState, EndpointKind
from mailrider.signing.keys import dns_record, open_key
from mailrider.testing.resolver import FakeResolver
from mailrider.tlsrpt.findings import session_findings
from mailrider.tlsrpt.report import DayCounts, build_report
from mailrider.x509.key_kind import KeyKind
from tests.support.commands import run_here
from tests.unit.reporting.world import session

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.reporting.store import ReportStore

BLOCK = 'tlsrpt {\norganization "Example Inc."\ncontact tls@example.org\nthrough &q\n}\n'
QUEUE = "target.queue q {\ntarget &out\n}\n"
REMOTE = "target.remote out {\nmx_auth {\nmtasts\ndane\n}\n}\n"
SIGNS = "target.queue q {\ntarget &out\nmodify {\ndkim example.org s1\n}\n}\n"


def config(folder: Path, text: str = BLOCK + QUEUE + REMOTE) -> Path:
    path = folder / "mailrider.conf"
    path.write_text(f"hostname mx.example.org\nstate_dir {folder}/state\n{text}")
    return path


def filled(path: Path) -> ReportStore:
    """Something was counted for a.test today, and yesterday's report waits."""
    configuration = load(path)
    settings = configuration.globals.tlsrpt
    assert settings is not None
    store = store_of(configuration, settings)
    now = SystemClock().now()
    counts = DayCounts()
    counts.add(session_findings(session(fails=True)))
    yesterday = now.date() - timedelta(days=1)
    store.add({(now.date(), "a.test"): counts, (yesterday, "a.test"): counts})
    report = build_report("a.test", yesterday, counts, reporter_of(settings), store.secret)
    store.freeze(report, [(EndpointKind.MAIL, "r@a.test")], now + timedelta(hours=1), now + timedelta(hours=24))
    return store


def test_list_shows_days_with_what_became_of_them(tmp_path: Path) -> None:
    path = config(tmp_path)
    filled(path)
    ran = run_here("-c", path, "tlsrpt", "list", "--json")
    today, yesterday = ran.objects
    assert (today["successful"], today["failed"], today["ended"]) == (0, 1, None)
    assert [each["state"] for each in yesterday["deliveries"]] == ["waiting"]
    assert "a.test  0 good, 1 failed: mail waiting" in run_here("-c", path, "tlsrpt", "list").out


def test_a_report_by_mail_that_a_queue_took_is_not_called_delivered(tmp_path: Path) -> None:
    path = config(tmp_path)
    store = filled(path)
    (waits,) = store.waiting(SystemClock().now() + timedelta(hours=2), 10)
    store.settle(waits, DeliveryState.DELIVERED, SystemClock().now(), "250 2.0.0 Queued as 0d7m3k9q2xv4t")
    told = run_here("-c", path, "tlsrpt", "list").out
    assert "a.test  0 good, 1 failed: mail queued (250 2.0.0 Queued as 0d7m3k9q2xv4t)" in told
    _, yesterday = run_here("-c", path, "tlsrpt", "list", "--json").objects
    assert [each["state"] for each in yesterday["deliveries"]] == ["delivered"]


def test_preview_is_the_report_of_today_and_show_that_which_is_sent(tmp_path: Path) -> None:
    path = config(tmp_path)
    store = filled(path)
    preview = json.loads(run_here("-c", path, "tlsrpt", "preview", "a.test").out)
    shown = json.loads(run_here("-c", path, "tlsrpt", "show", "a.test").out)
    today, yesterday = (each.day.isoformat() for each in store.days())
    assert preview["date-range"]["start-datetime"] == f"{today}T00:00:00Z"
    assert shown["date-range"]["start-datetime"] == f"{yesterday}T00:00:00Z"
    assert run_here("-c", path, "tlsrpt", "show", "a.test", "--day", yesterday).code == 0
    assert run_here("-c", path, "tlsrpt", "show", "a.test", "--day", today).code == 69
    assert run_here("-c", path, "tlsrpt", "preview", "b.test").code == 69


def test_send_now_makes_it_due_and_drop_gives_it_up(tmp_path: Path) -> None:
    path = config(tmp_path)
    store = filled(path)
    now = SystemClock().now()
    assert store.waiting(now, 10) == []
    assert run_here("-c", path, "tlsrpt", "send", "--now", "a.test").code == 0
    assert [each.domain for each in store.waiting(SystemClock().now(), 10)] == ["a.test"]
    assert run_here("-c", path, "tlsrpt", "drop").out == "1 dropped\n"
    assert store.waiting(SystemClock().now(), 10) == []
    nothing = run_here("-c", path, "tlsrpt", "send", "--now", "a.test")
    assert (nothing.code, nothing.out) == (69, "")
    assert "no report to a.test about a past day waits" in nothing.err


def test_where_nothing_was_ever_counted_the_commands_make_no_store(tmp_path: Path) -> None:
    path = config(tmp_path)
    assert [run_here("-c", path, "tlsrpt", *each).code for each in (["list"], ["drop"], ["show", "a.test"])] == [
        0,
        0,
        69,
    ]
    assert not (tmp_path / "state" / "tls_reports").exists()


def test_without_a_block_they_say_so(tmp_path: Path) -> None:
    ran = run_here("-c", config(tmp_path, REMOTE), "tlsrpt", "list")
    assert (ran.code, "there is no tlsrpt { }" in ran.err) == (78, True)


@pytest.mark.parametrize(
    ("text", "level", "words"),
    [
        (REMOTE, "note", "none are sent"),
        (BLOCK + QUEUE + REMOTE, "error", "nothing signs for example.org"),
        (BLOCK + SIGNS + REMOTE, "ok", "all days are reported, as tls@example.org"),
        (BLOCK + SIGNS + "target.remote out {\nmx_auth {\nmtasts\n}\n}\n", "warning", "lacks dane"),
        (BLOCK + SIGNS + "target.remote out {\nmx_auth {\ndane\n}\n}\n", "warning", "lacks mtasts"),
        (BLOCK + SIGNS + "target.remote out {\nmx_auth off\n}\n", "warning", "lacks mtasts and dane"),
        (BLOCK + SIGNS + "target.remote out {\ntlsrpt no\n}\n", "warning", "no target.remote is reported about"),
        (
            BLOCK + SIGNS + "target.smtp out {\nhost tcp://mx.example.net:25\n}\n",
            "warning",
            "leads to no target.remote",
        ),
    ],
)
def test_check_says_what_is_missing(tmp_path: Path, text: str, level: str, words: str) -> None:
    findings = list(check_reporting(load(config(tmp_path, text))))
    assert [each.text for each in findings if each.level == level and words in each.text]


NAME = ("s1._domainkey.example.org", "TXT")
KEY = "v=DKIM1; k=rsa; {}p=MTE="


async def outside(
    path: Path, record: object = b"", *, validates: bool = True, sources: tuple[SourceAddress, ...] = ()
) -> list[tuple[str, str]]:
    resolver = FakeResolver({NAME: record}, validates=validates)  # type: ignore[dict-item]
    findings = await check_reporting_outside(load(path), resolver, sources)
    return [(each.level, each.text) for each in findings]


@pytest.mark.parametrize(
    ("tag", "expected"),
    [
        ("", []),
        ("s=*; ", []),
        ("s=email:tlsrpt; ", []),
        ("s= tlsrpt ; ", []),
        ("s=email; ", ["s1._domainkey.example.org allows no reports (s=email), so receivers may ignore them"]),
        ("s=tlsrpts:email; ", ["s1._domainkey.example.org allows no reports (s=email:tlsrpts), so receivers may"]),
    ],
)
async def test_a_key_record_that_allows_no_reports_is_a_warning(tmp_path: Path, tag: str, expected: list[str]) -> None:
    path = config(tmp_path, BLOCK + SIGNS + REMOTE)
    found = await outside(path, KEY.format(tag).encode())
    assert len(found) == len(expected)
    for (level, text), words in zip(found, expected, strict=True):
        assert (level, text[: len(words)]) == ("warning", words)


async def test_the_key_record_that_setup_and_dkim_new_write_allows_reports(tmp_path: Path) -> None:
    key = open_key(tmp_path / "key", KeyKind.ED25519, Domain("example.org"), "s1", discard)
    record = dns_record(Domain("example.org"), "s1", key).partition('"')[2].rstrip('"')
    assert "; s=email:tlsrpt; " in record
    assert await outside(config(tmp_path, BLOCK + SIGNS + REMOTE), record.encode()) == []


async def test_reports_without_dnssec_are_a_warning(tmp_path: Path) -> None:
    path = config(tmp_path, BLOCK + SIGNS + REMOTE)
    ((level, text),) = await outside(path, KEY.format("").encode(), validates=False)
    assert (level, text.startswith("they say nothing of DANE, since DNSSEC is off")) == ("warning", True)


async def test_an_address_behind_nat_that_nobody_named_is_told(tmp_path: Path) -> None:
    path = config(tmp_path, BLOCK + SIGNS + REMOTE)
    sources = (SourceAddress(ip_address("100.64.0.9"), is_sure=False), SourceAddress(ip_address("2600::25")))
    ((level, text),) = await outside(path, KEY.format("").encode(), sources=sources)
    assert (level, "100.64.0.9" in text, "2600::25" in text) == ("note", True, False)


@pytest.mark.parametrize(
    ("own", "left_out"), [("", ["127.0.2.1", "fd00::9"]), ("own_addresses 203.0.113.7\n", ["fd00::9"])]
)
async def test_each_address_that_reports_leave_out_is_told_that_of_a_lab_too(
    tmp_path: Path, own: str, left_out: list[str]
) -> None:
    path = config(tmp_path, own + BLOCK + SIGNS + REMOTE)
    sources = tuple(SourceAddress(ip_address(each)) for each in ("127.0.2.1", "fd00::9", "2600::25"))
    told = await outside(path, KEY.format("").encode(), sources=sources)
    assert [text.split(" is private, ")[0].rpartition(" ")[2] for _, text in told] == left_out


async def test_without_reports_nobody_is_asked(tmp_path: Path) -> None:
    sources = (SourceAddress(ip_address("10.0.0.9"), is_sure=False),)
    assert await outside(config(tmp_path, SIGNS + REMOTE), validates=False, sources=sources) == []


@pytest.mark.parametrize(
    ("told", "address", "is_sure"),
    [
        ("", "10.0.0.9", False),
        ("", "100.64.0.9", False),
        ("", "fd00::9", False),
        ("", "9.9.9.9", True),
        ("own_addresses 9.9.9.9\n", "10.0.0.9", True),
        ("own_addresses 9.9.9.9\n", "fd00::9", False),
    ],
)
def test_what_others_see_of_an_address_of_no_internet_is_sure_where_own_addresses_says_it(
    tmp_path: Path, told: str, address: str, is_sure: bool
) -> None:
    configuration = load(config(tmp_path, told + REMOTE))
    settings = configuration.targets["out"].settings
    assert isinstance(settings, RemoteSettings)
    seen = ip_address(address)
    found = {each.address.version: each.is_sure for each in source_addresses(settings, [seen])}
    assert found[seen.version] is is_sure
