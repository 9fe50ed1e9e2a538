"""Reports are made once a day is over, frozen, and sent until they are taken (RFC 8460 4.1, 5.5)."""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.dns.answer import LookupFailed
from mailrider.model.address import Mailbox
from mailrider.model.envelope import Recipient
from mailrider.model.event import Bug
from mailrider.model.outcome import Failed
from mailrider.model.queue_event import RecipientDone
from mailrider.model.reply import Reply
from mailrider.reporting.event import TLSReportSettled, TLSReportsHeldUp, TLSReportsResumed
from mailrider.reporting.service import MAX_WRITTEN, endpoints_of
from mailrider.reporting.store import FILE, DeliveryState, EndpointKind, ReportStore, ReportsUnavailable
from mailrider.testing.resolver import TableRow
from mailrider.tlsrpt.findings import session_findings
from mailrider.tlsrpt.record import find_record
from mailrider.tlsrpt.report import DayCounts, build_report
from tests.unit.reporting.world import BY_MAIL, DAY, HOUR, NOON, REPORTER, World, days_in, session

if TYPE_CHECKING:
    from pathlib import Path

TODAY = date(2026, 11, 30)


def report(body: bytes) -> Any:
    return json.loads(gzip.decompress(body))


async def test_a_day_is_reported_after_its_end_once_with_all_that_was_counted(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    for fails in (False, True, False):
        world.recorder(session(fails=fails))
        await world.pass_time(60)
    await world.pass_time(11 * HOUR)
    assert world.courier.sent == []
    await world.pass_time(6 * HOUR)
    await world.stop()
    ((domain, target, _, body),) = world.courier.sent
    (policy,) = report(body)["policies"]
    assert (domain, target) == ("a.test", "reports@a.test")
    assert policy["summary"] == {"total-successful-session-count": 2, "total-failure-session-count": 1}


async def test_the_border_of_a_day_is_where_the_handshake_ended(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    await world.pass_time(12 * HOUR - 1)
    world.recorder(session())
    await world.pass_time(2)
    world.recorder(session())
    await world.stop()
    assert [each.day for each in days_in(tmp_path)] == [TODAY + timedelta(days=1), TODAY]


async def test_a_week_with_restarts_jumps_and_a_store_that_is_away_at_midnight_sends_each_report_once(
    tmp_path: Path,
) -> None:
    world = World(tmp_path)
    await world.start()
    expected = []
    for number in range(7):
        for _ in range(4):
            world.recorder(session())
            await world.pass_time(600)
        expected.append((TODAY + timedelta(days=number)).strftime("%Y%m%d"))
        if number == 1:  # the store is away at midnight
            await world.pass_time(11 * HOUR)
            store = tmp_path / FILE
            world.store.close()
            hidden = store.rename(tmp_path / "away")
            store.mkdir()
            await world.pass_time(HOUR)
            world.recorder(session("b.test"))
            await world.pass_time(600)
            store.rmdir()
            hidden.rename(store)
            await world.pass_time(10 * HOUR)
        else:
            await world.pass_time(12 * HOUR)
            if number % 2:
                await world.stop()
                await world.start()
            if number == 2:  # a wrong time server, and a right one
                world.clock.jump(timedelta(minutes=-30))
                await world.pass_time(600)
                world.clock.jump(timedelta(minutes=30))
            if number == 4:
                world.clock.jump(timedelta(hours=2))
                await world.pass_time(600)
                world.clock.jump(timedelta(hours=-2))
            await world.pass_time(11 * HOUR)
        next_noon = NOON + timedelta(days=number + 1)
        await world.pass_time(max(0.0, (next_noon - world.clock.now()).total_seconds()))
    await world.pass_time(20 * HOUR)
    await world.stop()
    assert [id.partition(".")[0] for domain, _, id, _ in world.courier.sent if domain == "a.test"] == expected
    kinds = [type(event) for event in world.events if not isinstance(event, TLSReportSettled)]
    assert kinds == [TLSReportsHeldUp, TLSReportsResumed]


async def test_what_was_counted_while_the_store_was_away_is_not_lost(tmp_path: Path) -> None:
    world = World(tmp_path)
    (tmp_path / FILE).mkdir()
    await world.start()
    world.recorder(session())
    await world.pass_time(world.tick)
    (tmp_path / FILE).rmdir()
    await world.pass_time(world.tick)
    (day,) = world.store.days()
    assert day.counts.has_sessions
    await world.stop()


async def test_a_kill_loses_at_most_what_was_not_written_yet(tmp_path: Path) -> None:
    world = World(tmp_path, tick=10)
    await world.start()
    world.recorder(session())
    await world.pass_time(10)
    world.recorder(session())
    await world.kill()
    (day,) = days_in(tmp_path)
    (counts,) = day.counts.policies.values()
    assert counts.successful == 1


async def test_killed_between_freezing_and_sending_the_same_octets_are_sent_once(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    world.recorder(session())
    never = asyncio.Event()

    async def dies(*_: Any) -> Any:
        await never.wait()

    world.courier.send, sends = dies, world.courier.send  # type: ignore[method-assign,assignment]
    await world.pass_time(17 * HOUR)
    frozen = world.store.report(TODAY, "a.test")
    assert frozen is not None
    await world.kill()
    world.courier.send = sends  # type: ignore[method-assign]
    await world.start()
    await world.pass_time(2 * DAY)
    await world.stop()
    assert [(id, body) for _, _, id, body in world.courier.sent] == [(frozen.report_id, frozen.body)]


async def test_what_cannot_be_delivered_is_tried_for_24_hours_and_then_given_up(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.courier.answers = [DeliveryState.WAITING] * 100
    await world.start()
    world.recorder(session())
    await world.pass_time(12 * HOUR)
    times = []
    for _ in range(30 * 60):
        before = len(world.courier.sent)
        await world.clock.advance(60)
        times += [world.clock.now()] * (len(world.courier.sent) - before)
    await world.stop()
    gaps = [round((later - earlier).total_seconds() / 60) for earlier, later in itertools.pairwise(times)]
    assert [5 * 2**n for n in range(len(gaps))] == pytest.approx(gaps, abs=2)
    assert len({body for *_, body in world.courier.sent}) == 1
    assert len(gaps) == 8, "5 minutes, 10, ... 640: the next would come behind 24 hours"
    assert [event.outcome for event in world.events if isinstance(event, TLSReportSettled)] == ["expired"]


async def test_once_an_endpoint_has_taken_it_another_is_not_tried_again(tmp_path: Path) -> None:
    world = World(tmp_path, {"a.test": b"v=TLSRPTv1; rua=https://r.a.test/x,mailto:reports@a.test"})
    world.courier.answers = [DeliveryState.WAITING, DeliveryState.DELIVERED]
    await world.start()
    world.recorder(session())
    await world.pass_time(40 * HOUR)
    await world.stop()
    assert sorted(target for _, target, *_ in world.courier.sent) == ["https://r.a.test/x", "reports@a.test"]


@pytest.mark.parametrize(
    "record", [b"v=spf1 -all", b"v=TLSRPTv1; rua=http://a.test", LookupFailed], ids=["none", "unusable", "no-dns"]
)
async def test_a_domain_that_does_not_ask_gets_none(tmp_path: Path, record: Any) -> None:
    world = World(tmp_path, {"b.test": BY_MAIL} if record is LookupFailed else {"a.test": record})
    await world.start()
    world.recorder(session())
    await world.pass_time(3 * DAY)
    assert (world.courier.sent, [each.ended is None for each in world.store.days()]) == ([], [False])
    await world.stop()


async def test_where_only_failures_are_reported_a_good_day_is_not(tmp_path: Path) -> None:
    world = World(tmp_path, {"a.test": BY_MAIL, "b.test": BY_MAIL}, only_failures=True)
    await world.start()
    world.recorder(session())
    world.recorder(session("b.test", fails=True))
    await world.pass_time(2 * DAY)
    await world.stop()
    assert [domain for domain, *_ in world.courier.sent] == ["b.test"]


async def test_a_thousand_names_of_one_victim_send_it_one_report_in_ten_seconds(tmp_path: Path) -> None:
    names = [f"n{number}.test" for number in range(50)]
    victim = b"v=TLSRPTv1; rua=https://victim.test/x"
    world = World(tmp_path, {**dict.fromkeys(names, victim), "a.test": BY_MAIL}, tick=10)
    await world.start()
    for name in (*names, "a.test"):
        world.recorder(session(name))
    await world.pass_time(13 * HOUR)
    now = world.clock.now()
    await world.stop()
    for name in (*names, "a.test"):
        world.store.make_due(name, now)
    world.store.close()
    world.courier.sent.clear()
    await world.start()
    await world.clock.advance(100)
    await world.stop()
    assert sum(target.startswith("https") for _, target, *_ in world.courier.sent) <= 10


async def test_a_thousand_domains_with_slow_name_servers_hold_up_nobodys_report(tmp_path: Path) -> None:
    evil = [f"d{number}.evil.test" for number in range(1000)]
    world = World(tmp_path, dict.fromkeys(evil, TableRow([], delay=120)) | {"a.test": BY_MAIL})
    await world.start()
    for domain in (*evil, "a.test"):
        world.recorder(session(domain))
    await world.pass_time(12 * HOUR + 5 * HOUR)
    assert [domain for domain, *_ in world.courier.sent] == ["a.test"]
    assert all(day.ended for day in world.store.days())
    await world.stop()


async def test_an_address_that_refused_a_report_gets_none_for_a_week(tmp_path: Path) -> None:
    world = World(tmp_path, {"a.test": b"v=TLSRPTv1; rua=mailto:reports@a.test"})
    await world.start()
    outcome = Failed(Recipient(Mailbox.parse("reports@a.test")), Reply.make(550, "5.1.1", "No such user"))
    world.recorder(RecipientDone("1", "tls@sender.test", outcome, 1))
    for _ in range(10):
        world.recorder(session())
        await world.pass_time(DAY)
    await world.stop()
    assert [id.partition(".")[0] for _, _, id, _ in world.courier.sent] == ["20261207", "20261208", "20261209"]


def test_all_mail_addresses_are_one_endpoint_and_each_url_is_one() -> None:
    record: Any = find_record([b"v=TLSRPTv1; rua=mailto:a@x.test,https://y.test/r,mailto:b@x.test,https://z.test/"])
    assert endpoints_of(record, ["b@x.test"]) == [
        (EndpointKind.HTTPS, "https://y.test/r"),
        (EndpointKind.HTTPS, "https://z.test/"),
        (EndpointKind.MAIL, "a@x.test"),
    ]


async def test_a_bug_while_a_report_is_sent_is_told_and_the_report_tried_again_later(tmp_path: Path) -> None:
    world = World(tmp_path)
    await world.start()
    try:
        world.recorder(session())
        world.courier.bug = ZeroDivisionError()
        await world.pass_time(DAY)
        tries = len(world.courier.sent)
        world.courier.bug = None
        await world.pass_time(DAY / 2)
    finally:
        await world.stop()
    assert 1 < tries < 12  # from 5 minutes, doubling
    assert len([each for each in world.events if isinstance(each, Bug)]) == tries
    assert len(world.courier.sent) == tries + 1


async def test_names_below_one_domain_send_one_report_in_ten_seconds_wherever_each_wants_it(tmp_path: Path) -> None:
    names = [f"n{number}.evil.test" for number in range(50)]
    records = {name: f"v=TLSRPTv1; rua=mailto:{name}@victim.test".encode() for name in names}
    world = World(tmp_path, {**records, "a.test": BY_MAIL}, tick=10)
    yesterday = TODAY - timedelta(days=1)
    await world.start()
    counts = DayCounts()
    counts.add(session_findings(session()))
    world.store.add({(yesterday, name): counts for name in (*names, "a.test")})
    await world.clock.advance(100)
    await world.stop()
    sent = [domain for domain, *_ in world.courier.sent]
    assert "a.test" in sent
    assert 5 <= sum(name.endswith(".evil.test") for name in sent) <= 10


async def test_counts_are_written_and_reports_sent_while_name_servers_take_their_time(tmp_path: Path) -> None:
    world = World(tmp_path, {"slow.test": TableRow([], delay=300), "a.test": BY_MAIL}, tick=10)
    yesterday = TODAY - timedelta(days=1)
    await world.start()
    counts = DayCounts()
    counts.add(session_findings(session()))
    world.store.add({(yesterday, "slow.test"): counts, (yesterday, "a.test"): counts})
    await world.clock.advance(10)  # the name server is asked
    world.recorder(session("b.test"))
    await world.clock.advance(20)
    assert [day.domain for day in world.store.days(day=TODAY)] == ["b.test"]
    assert [domain for domain, *_ in world.courier.sent] == ["a.test"]
    assert world.store.days("slow.test")[0].ended is None
    await world.stop()


def test_thousands_that_wait_keep_nobody_out(tmp_path: Path) -> None:
    store = ReportStore(tmp_path)
    counts = DayCounts()
    counts.add(session_findings(session()))
    now = NOON
    for number in range(30):
        domain = f"d{number}.test"
        store.add({(TODAY, domain): counts})
        report = build_report(domain, TODAY, counts, REPORTER, store.secret)
        # The last one came last, and all the others before it are still there.
        store.freeze(report, [(EndpointKind.MAIL, f"r@{domain}")], now + timedelta(seconds=number), now + timedelta(1))
    seen: set[str] = set()
    while "d29.test" not in seen:
        found = store.waiting(now + timedelta(hours=1), 10)
        assert len(found) == 10
        seen |= {each.domain for each in found}
    store.close()


@pytest.mark.parametrize("fails", [False, True], ids=["written", "not written"])
async def test_what_is_being_written_when_the_service_ends_is_counted_once(tmp_path: Path, fails: bool) -> None:
    world = World(tmp_path, tick=10)
    await world.start()
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slowly(work: Any, *arguments: Any) -> Any:
        if work == world.store.add and not may_end.is_set():
            began.set()
            await may_end.wait()
            if fails:
                raise ReportsUnavailable("the disk is full")
        return work(*arguments)

    world.service.in_thread = slowly
    world.recorder(session())
    await world.clock.advance(10)
    assert began.is_set()
    stopping = asyncio.ensure_future(world.stop())
    await world.clock.advance(1)
    may_end.set()
    await stopping
    (day,) = days_in(tmp_path)
    assert [each.successful for each in day.counts.policies.values()] == [1]


async def test_thousands_of_domains_are_written_in_parts_and_what_was_written_is_not_written_again(
    tmp_path: Path,
) -> None:
    world = World(tmp_path, tick=10)
    await world.start()
    parts: list[int] = []

    async def noted(work: Any, *arguments: Any) -> Any:
        if work == world.store.add:
            parts.append(len(arguments[0]))
            if len(parts) == 2:
                raise ReportsUnavailable("the disk is full")
        return work(*arguments)

    world.service.in_thread = noted
    for number in range(MAX_WRITTEN + 10):
        world.recorder(session(f"d{number}.test"))
    await world.clock.advance(10)
    await world.clock.advance(10)
    await world.stop()
    assert parts == [MAX_WRITTEN, 10, 10]
    counted = [each.successful for day in days_in(tmp_path) for each in day.counts.policies.values()]
    assert counted == [1] * (MAX_WRITTEN + 10)
