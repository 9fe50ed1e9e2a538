"""Counters from events."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import ClientTurnedAway, LoginFailed, MailRefused, MailTaken
from mailrider.model.event import (
    AddressFailed,
    AnswerValidated,
    CandidateRefused,
    ConnectionAwaited,
    ConnectionJudged,
    ConnectionOpened,
    ConnectionReused,
    FellBackToClear,
    LookupDidFail,
    RecipientSettled,
    SecurityUnavailable,
    ServerTrustChanged,
    Validity,
)
from mailrider.model.event import TestingPolicyMissed as MissedPolicy
from mailrider.model.outcome import Delivered
from mailrider.model.queue_event import DestinationDown, MessageQueued, NotificationQueued, QueueShort, RecipientDone
from mailrider.model.reply import Reply
from mailrider.model.security import Mechanism, MXLevel, Refusal, Security, TLSLevel
from mailrider.model.tls_problem import TLSProblemKind
from mailrider.model.tls_session import PoliciesSeen, TLSHostRefused, TLSSessionSeen
from mailrider.mtasts.policy import STSMode
from mailrider.observe.describe import describe
from mailrider.observe.metrics import Metrics, fan_out
from mailrider.policy.sts.events import PolicyFetched, PolicyFetchFailed, RecordLookupFailed
from mailrider.queue.ids import IdSource, format_id
from mailrider.queue.message import DestinationCount, Stats
from mailrider.reporting.event import TLSReportSettled
from mailrider.testing.clock import FakeClock
from tests.support.problems import problem
from tests.support.queueing import BUSY, TAKEN, deferred, delivered, failed, recipient

if TYPE_CHECKING:
    from mailrider.model.event import Emit, Event

NOW = FakeClock().now()
NET = Domain("example.net")
B = recipient("b@example.net")
SAFE = Delivered(B, TAKEN, security=Security(MXLevel.DNSSEC, TLSLevel.AUTHENTICATED, authenticated_by=Mechanism.DANE))


def count(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(f"mailrider_{name}", labels)


def test_sessions_are_counted_by_policy_and_result_and_reports_by_what_became_of_them() -> None:
    metrics = Metrics()
    policies = PoliciesSeen("a.test", all_asked=True)
    metrics(TLSSessionSeen(policies, "mx", "mx", "192.0.2.1", "192.0.2.2"))
    metrics(
        TLSSessionSeen(
            policies, "mx", "mx", "192.0.2.1", "192.0.2.2", problem("no", TLSProblemKind.STARTTLS_NOT_OFFERED)
        )
    )
    metrics(TLSHostRefused(policies, "mx", problem("no", TLSProblemKind.TLSA_LOOKUP_FAILED)))
    metrics(TLSReportSettled("a.test", "2026-11-30", "https", "delivered", "status 200"))
    expected = [
        ("no-policy-found", "success"),
        ("no-policy-found", "starttls-not-supported"),
        ("tlsa", "dnssec-invalid"),
    ]
    for policy, result in expected:
        assert count(metrics, "tlsrpt_sessions_total", policy_type=policy, result=result) == 1
    assert count(metrics, "tlsrpt_reports_total", endpoint="https", outcome="delivered") == 1


def waiting_for(destination: str, queued: int, active: int, held: int) -> DestinationCount:
    return DestinationCount(destination, queued, active, held, 0, datetime(2026, 1, 1, tzinfo=UTC), None)


@pytest.mark.parametrize(
    ("happened", "name", "labels"),
    [
        (
            MailTaken("submission", "192.0.2.1", "a", "ESMTPSA", "a@example.org", 1, 10, TAKEN),
            "received_messages_total",
            {"endpoint": "submission", "reply": "2xx"},
        ),
        (
            MailRefused("smtp", "192.0.2.1", "", "a@example.org", "", BUSY, 10),
            "received_messages_total",
            {"endpoint": "smtp", "reply": "4xx"},
        ),
        (
            MailRefused("smtp", "192.0.2.1", "", "a@example.org", "b", Reply.make(550, "5.7.1", "no")),
            "refused_total",
            {"endpoint": "smtp", "reply": "5xx"},
        ),
        (ClientTurnedAway("smtp", "192.0.2.1", "full"), "turned_away_clients_total", {"endpoint": "smtp"}),
        (LoginFailed("submission", "192.0.2.1", "a"), "failed_logins_total", {"endpoint": "submission"}),
        (RecipientSettled(NET, "a@example.org", failed(B)), "outcomes_total", {"status": "failed"}),
        (
            RecipientSettled(NET, "a@example.org", SAFE),
            "delivered_recipients_total",
            {"mx_level": "dnssec", "tls_level": "authenticated", "authenticated_by": "dane"},
        ),
        (ConnectionOpened("mx", "192.0.2.1", "TLSv1.3", "x", ""), "connections_total", {"tls": "TLSv1.3"}),
        (ConnectionOpened("mx", "192.0.2.1", None, None, "no"), "connections_total", {"tls": "none"}),
        (
            ConnectionJudged(NET, "mx", "192.0.2.1", SAFE.security, "a match"),
            "judged_connections_total",
            {"mx_level": "dnssec", "tls_level": "authenticated", "authenticated_by": "dane"},
        ),
        (
            ConnectionJudged(NET, "mx", "192.0.2.1", Security(), "no TLS"),
            "judged_connections_total",
            {"mx_level": "none", "tls_level": "none", "authenticated_by": "none"},
        ),
        (FellBackToClear(NET, "mx", "192.0.2.1", "an alert", problem("an alert")), "fallbacks_total", {}),
        (LookupDidFail("example.net", "MX", "SERVFAIL", "deferred"), "failed_lookups_total", {"type": "MX"}),
        (AnswerValidated(Validity.BOGUS), "dnssec_answers_total", {"validity": "bogus"}),
        (RecordLookupFailed(NET, "SERVFAIL", None), "failed_lookups_total", {"type": "TXT"}),
        (MissedPolicy(NET, "mx", None, "not named"), "testing_misses_total", {}),
        (PolicyFetched(NET, "1", STSMode.ENFORCE, timedelta(days=1), True), "policy_fetches_total", {"result": "ok"}),
        (PolicyFetchFailed(NET, "redirect", problem("301"), None), "policy_fetches_total", {"result": "redirect"}),
        (ConnectionReused("mx", "192.0.2.1", 1), "reused_connections_total", {}),
        (ConnectionAwaited(NET, "mx", "192.0.2.1", 0.5), "connection_wait_seconds_count", {}),
        (
            CandidateRefused(NET, "mx", None, Refusal("mtasts", 451, "4.7.0", "no match")),
            "policy_refusals_total",
            {"policy": "mtasts"},
        ),
        (AddressFailed(NET, "mx", None, "connect", BUSY), "failed_addresses_total", {"stage": "connect"}),
        (MessageQueued("1", "a@example.org", 1, 10), "queued_messages_total", {}),
        (NotificationQueued("1", "2", "b", "failed"), "notifications_total", {"action": "failed"}),
        (RecipientDone("1", "a", failed(B), 1), "queue_recipients_total", {"end": "failed"}),
        (RecipientDone("1", "a", deferred(B), 1, given_up=True), "queue_recipients_total", {"end": "given_up"}),
        (RecipientDone("1", "a", deferred(B), 1, operator="held"), "queue_recipients_total", {"end": "deferred"}),
        (RecipientDone("1", "a", deferred(B), 1, operator="removed"), "queue_recipients_total", {"end": "removed"}),
        (
            RecipientDone("1", "a", deferred(B), 1, datetime(2026, 1, 1, tzinfo=UTC)),
            "queue_recipients_total",
            {"end": "deferred"},
        ),
    ],
)
def test_what_operators_ask_for_is_counted(happened: Event, name: str, labels: dict[str, str]) -> None:
    metrics = Metrics()
    metrics(happened)
    metrics(happened)
    assert count(metrics, name, **labels) == 2


def test_every_event_is_counted_by_its_name() -> None:
    metrics, seen = Metrics(), list[object]()
    fan_out(metrics, seen.append)(ClientTurnedAway("smtp", "192.0.2.1", "full"))
    assert count(metrics, "events_total", event="client_turned_away") == 1
    assert len(seen) == 1


def test_each_listener_is_asked_once_for_a_kind_and_told_what_it_wants() -> None:
    asked: list[object] = []
    told: list[Event] = []

    class Choosy:
        def listener_for(self, kind: type[Event]) -> Emit | None:
            asked.append(kind)
            return told.append if kind is ClientTurnedAway else None

        def __call__(self, event: Event) -> None:
            raise AssertionError("what it is told goes elsewhere")

    emit = fan_out(Choosy())
    away = ClientTurnedAway("smtp", "192.0.2.1", "full")
    for happened in (away, ConnectionReused("mx", "192.0.2.1", 1), away):
        emit(happened)
    assert (told, asked) == ([away, away], [ClientTurnedAway, ConnectionReused])


def test_only_what_was_accepted_counts_as_received_octets() -> None:
    metrics = Metrics()
    metrics(MailTaken("smtp", "192.0.2.1", "", "ESMTP", "a@example.org", 1, 10, TAKEN))
    metrics(MailRefused("smtp", "192.0.2.1", "", "a@example.org", "", BUSY, 10))
    assert count(metrics, "received_octets_total", endpoint="smtp") == 10


def test_the_time_to_delivery_is_that_since_acceptance() -> None:
    metrics = Metrics()
    message = format_id(IdSource(FakeClock()).take(1))
    metrics(RecipientDone(message, "a", delivered(B), 1, age=timedelta(seconds=20)))
    assert count(metrics, "delivery_seconds_sum") == pytest.approx(20, abs=0.01)
    assert count(metrics, "delivery_seconds_bucket", le="10.0") == 0
    assert count(metrics, "delivery_seconds_bucket", le="30.0") == 1


def test_destinations_that_are_down_are_what_the_queue_says_now_and_not_what_was_counted() -> None:
    metrics = Metrics()
    metrics(DestinationDown("example.net", 60, BUSY))
    metrics(DestinationDown("example.net", 120, BUSY))
    metrics.show_queue("main", Stats(1, 1, (), {}), NOW, 1)
    assert count(metrics, "destinations_down", queue="main") == 1
    metrics.show_queue("main", Stats(1, 1, (), {}), NOW, 0)
    assert count(metrics, "destinations_down", queue="main") == 0


def test_of_a_queue_that_is_there_no_more_nothing_is_shown() -> None:
    metrics = Metrics()
    for name in ("old", "main"):
        metrics.show_queue(name, Stats(1, 1, (waiting_for("example.org", 1, 0, 0),), {"1h": 1}), NOW, 1)
    metrics.show_queues_only(["main"])
    for gauge in ("destinations_down", "queue_messages", "queue_octets"):
        assert count(metrics, gauge, queue="old") is None, gauge
        assert count(metrics, gauge, queue="main") == 1, gauge
    assert count(metrics, "queue_waiting", queue="old", destination="example.org", state="queued") is None
    assert count(metrics, "queue_age", queue="old", age="1h") is None


def test_a_queue_shows_what_is_in_it_now_and_nothing_of_before() -> None:
    metrics = Metrics()
    metrics.show_queue("other", Stats(1, 1, (waiting_for("example.org", 1, 0, 0),), {}), NOW)
    metrics.show_queue("main", Stats(2, 20, (waiting_for("example.net", 1, 2, 3),), {"1h": 6}), NOW)
    waiting = {"queue": "main", "destination": "example.net"}
    assert [count(metrics, "queue_waiting", **waiting, state=each) for each in ("queued", "active", "held")] == [
        1,
        2,
        3,
    ]
    assert count(metrics, "queue_age", queue="main", age="1h") == 6
    metrics.show_queue("main", Stats(0, 0, (), {}), NOW)
    assert count(metrics, "queue_messages", queue="main") == 0
    assert count(metrics, "queue_waiting", **waiting, state="queued") is None
    assert count(metrics, "queue_waiting", queue="other", destination="example.org", state="queued") == 1


def test_what_strangers_choose_makes_no_further_counter() -> None:
    metrics = Metrics()

    def series_after(number: int) -> int:
        name, address = f"n{number}.test", f"192.0.2.{number}"
        domain, nobody = Domain(name), recipient(f"u{number}@{name}")
        for happened in (
            MailTaken("smtp", address, name, "ESMTP", f"a@{name}", 1, 10, BUSY),
            MailRefused("smtp", address, name, f"a@{name}", f"b@{name}", Reply.make(550 + number % 5, "5.7.1", name)),
            ClientTurnedAway("smtp", address, name),
            LoginFailed("smtp", address, name),
            RecipientSettled(domain, f"a@{name}", failed(nobody)),
            ConnectionOpened(name, address, "TLSv1.3", name, name),
            LookupDidFail(name, "MX", name, "deferred"),
            PolicyFetchFailed(domain, "redirect", problem(name), None),
            CandidateRefused(domain, name, address, Refusal("mtasts", 451, "4.7.0", name)),
            AddressFailed(domain, name, address, "connect", Reply.make(450, "4.2.0", name)),
            NotificationQueued(name, name, f"a@{name}", "failed"),
            RecipientDone(name, f"a@{name}", failed(nobody), 1),
        ):
            metrics(happened)
        return sum(len(family.samples) for family in metrics.registry.collect())

    assert len({series_after(number) for number in range(30)}) == 1


def test_events_have_the_names_of_the_log() -> None:
    metrics = Metrics()
    happened = [
        CandidateRefused(NET, "mx", None, Refusal("mtasts", 451, "4.7.0", "no match")),
        LookupDidFail("a.test", "MX", "SERVFAIL", "deferred"),
        RecipientSettled(NET, "a@example.org", failed(B)),
        RecipientDone("id", "a@example.org", failed(B), 1),
        RecipientDone("id", "a@example.org", failed(B), 1, given_up=True),
        QueueShort(1, 2),
        SecurityUnavailable("none"),
        ServerTrustChanged("192.0.2.1", True, "it does"),
    ]
    for each in happened:
        metrics(each)
    names = {describe(each).name for each in happened}
    assert {name for name in names if count(metrics, "events_total", event=name)} == names
    told = next(each for each in metrics.registry.collect() if each.name == "mailrider_events").samples
    assert {each.labels["event"] for each in told if each.name.endswith("_total") and each.value} == names


def test_the_age_of_the_oldest_message_the_version_and_the_process_are_shown() -> None:
    metrics = Metrics()
    metrics.show_queue("main", Stats(1, 1, (), {}, NOW - timedelta(minutes=5)), NOW)
    assert count(metrics, "queue_oldest_seconds", queue="main") == 300
    metrics.show_queue("main", Stats(0, 0, (), {}), NOW)
    assert count(metrics, "queue_oldest_seconds", queue="main") == 0
    shown = {each.name for each in metrics.registry.collect()}
    assert {"mailrider_build", "process_cpu_seconds", "process_resident_memory_bytes"} <= shown
