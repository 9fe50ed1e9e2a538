"""Counters, made from events (OpenMetrics, by prometheus-client).

`Metrics` is an `Emit`. Every event is counted by its name; those that operators ask for have counters of their own,
with labels of few values: never an address, and of domains only the largest destinations of a queue. What is counted
for each message is counted in dictionaries of our own, which the library reads when it is asked: its own children take
a lock and five calls for one more.
"""

from __future__ import annotations

import platform
from collections import defaultdict
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, Protocol, runtime_checkable

from prometheus_client import CollectorRegistry, Gauge, Histogram, Info, ProcessCollector
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from mailrider.model import endpoint_event, event, queue_event
from mailrider.model.outcome import Status
from mailrider.model.tls_session import TLSHostRefused, TLSSessionSeen
from mailrider.policy.sts import events as mtasts_events
from mailrider.reporting.event import TLSReportSettled
from mailrider.tlsrpt.findings import refusal_findings, session_findings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from datetime import datetime

    from mailrider.model.event import Emit, Event
    from mailrider.model.security import Security
    from mailrider.queue.message import Stats
    from mailrider.tlsrpt.report import SessionFinding

_GRAVE: Final = (event.WARNING, event.ERROR)
_LEVELS: Final = ("mx_level", "tls_level", "authenticated_by")

# What is counted, by name: what it is, and its labels.
_COUNTERS: Final[Mapping[str, tuple[str, ...]]] = {
    "received_messages": ("Messages that arrived whole, by the class of our reply", "endpoint", "reply"),
    "received_octets": ("Octets of the messages that were accepted", "endpoint"),
    "refused": ("Senders, recipients and messages refused before the end of data", "endpoint", "reply"),
    "turned_away_clients": ("Connections that were not served", "endpoint"),
    "failed_logins": ("Wrong passwords", "endpoint"),
    "outcomes": ("Recipients, by what an attempt came to", "status"),
    "delivered_recipients": ("Delivered recipients, by security level", *_LEVELS),
    "connections": ("Connections opened to other servers", "tls"),
    "judged_connections": ("Connections found good enough for a message, by security level", *_LEVELS),
    "failed_lookups": ("Questions that DNS could not answer", "type"),
    "dnssec_answers": ("Answers of DNS that were validated in this process, by what was found", "validity"),
    "policy_fetches": ("Fetches of MTA-STS policies, by what came of them", "result"),
    "policy_refusals": ("Hosts and connections that a policy refused", "policy"),
    "failed_addresses": ("Addresses that could not be used, by the stage that failed", "stage"),
    "queue_recipients": ("Queued recipients, by what became of them", "end"),
    "notifications": ("Notifications that were queued", "action"),
    "tlsrpt_sessions": ("Sessions that TLS reports count, by policy and result", "policy_type", "result"),
    "tlsrpt_reports": ("TLS reports, by endpoint and what became of them", "endpoint", "outcome"),
}
# Counters of all events of one kind.
_COUNTERS_OF_A_KIND: Final[Mapping[str, tuple[type[Event], str]]] = {
    "fallbacks": (event.FellBackToClear, "Connections in clear because TLS failed and nothing demanded it"),
    "testing_misses": (event.TestingPolicyMissed, "What an MTA-STS policy in testing mode would have refused"),
    "reused_connections": (event.ConnectionReused, "Transactions on connections that were there already"),
    "queued_messages": (queue_event.MessageQueued, "Messages that a queue accepted"),
}
_GAUGES: Final[Mapping[str, tuple[str, ...]]] = {
    "destinations_down": ("Destinations of which no server can be reached", "queue"),
    "queue_messages": ("Messages in a queue", "queue"),
    "queue_oldest_seconds": ("The age of the oldest message in a queue, 0 if there is none", "queue"),
    "queue_octets": ("Octets in a queue", "queue"),
    "queue_waiting": ("Recipients in a queue, for the largest destinations", "queue", "destination", "state"),
    "queue_age": ("Recipients in a queue, by their age", "queue", "age"),
}
_HISTOGRAMS: Final = {
    # From the same machine to the fifth day.
    "delivery_seconds": (
        "From acceptance to delivery",
        (0.1, 0.3, 1, 3, 10, 30, 60, 300, 900, 3600, 4 * 3600, 86400, 5 * 86400),
    ),
    "connection_wait_seconds": ("Waiting for a connection", (0.01, 0.1, 1, 10, 60, 300)),
}


@runtime_checkable
class ChoosesEvents(Protocol):
    """An `Emit` that wants some kinds of events only."""

    def listener_for(self, kind: type[Event]) -> Emit | None:
        """Who is to be told of that kind of event; None: nobody."""


class FanOut:
    """Tells all of these what is told to `emit`. One that `ChoosesEvents` is asked once for each kind of event."""

    def __init__(self, *emits: Emit | ChoosesEvents) -> None:
        listeners = self._listeners = _Listeners(emits)

        def emit(happened: Event) -> None:
            for tell in listeners[type(happened)]:
                tell(happened)

        self.emit: Emit = emit

    def ask_again(self) -> None:
        """Somebody chooses others now."""
        self._listeners.clear()


def fan_out(*emits: Emit | ChoosesEvents) -> Emit:
    """An `Emit` that tells all of these; see `FanOut`."""
    return FanOut(*emits).emit


class _Listeners(dict[type["Event"], list["Emit"]]):
    """Who is told of a kind of event; found out when the first one happens."""

    def __init__(self, emits: Iterable[Emit | ChoosesEvents]) -> None:
        super().__init__()
        self._emits = tuple(emits)

    def __missing__(self, kind: type[Event]) -> list[Emit]:
        asked = (each.listener_for(kind) if isinstance(each, ChoosesEvents) else each for each in self._emits)
        told = self[kind] = [each for each in asked if each is not None]
        return told


class _Counter(Collector):
    """A counter: `values` has one for each set of labels. What happens for each message adds to them itself."""

    def __init__(self, name: str, about: str, *labels: str) -> None:
        self._name, self._about, self._labels = name, about, labels
        self.values: defaultdict[tuple[str, ...], float] = defaultdict(float)

    def count(self, *labels: str) -> None:
        """One more."""
        self.values[labels] += 1

    def collect(self) -> Iterable[CounterMetricFamily]:
        """See `prometheus_client.registry.Collector`."""
        family = CounterMetricFamily(self._name, self._about, labels=self._labels)
        for labels, value in self.values.items():
            family.add_metric(labels, value)
        yield family


class _TotalOf(Collector):
    """A counter that is kept elsewhere, and asked for when somebody looks."""

    def __init__(self, name: str, about: str, ask: Callable[[], int | None]) -> None:
        self._name, self._about, self._ask = name, about, ask

    def collect(self) -> Iterable[CounterMetricFamily]:
        """See `prometheus_client.registry.Collector`."""
        yield CounterMetricFamily(self._name, self._about, value=self._ask() or 0)


class _EventCounter(Collector):
    """All events, by the names that they have in the log. Those that want attention are there before the first one:
    Prometheus sees no increase where a series begins with 1."""

    def __init__(self, happened: dict[type[Event], int], named: dict[str, int]) -> None:
        self._happened = happened
        self._named = named

    def collect(self) -> Iterable[CounterMetricFamily]:
        """See `prometheus_client.registry.Collector`."""
        about = "What happened, by the name that it has in the log"
        family = CounterMetricFamily("mailrider_events", about, labels=["event"])
        expected = {kind.kind_name(): 0 for kind in _below(event.Event) if kind.level in _GRAVE}
        expected[event.ServerTrustChanged("", False, "").log_name] = 0
        counted = {kind.kind_name(): times for kind, times in self._happened.items() if not _says_what_happened(kind)}
        for name, times in (expected | counted | self._named).items():
            family.add_metric([name], times)
        yield family


def _below(kind: type[Event]) -> Iterator[type[Event]]:
    """All kinds of events that somebody may emit."""
    for below in kind.__subclasses__():
        yield below
        yield from _below(below)


class Metrics:
    """Counts what happens; `registry` has all of it."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self._happened: defaultdict[type[Event], int] = defaultdict(int)
        self._named: defaultdict[str, int] = defaultdict(int)
        registry.register(_EventCounter(self._happened, self._named))
        ProcessCollector(registry=registry)
        build = Info("mailrider_build", "The version that runs", registry=registry)
        build.info({"version": version("mailrider"), "python": platform.python_version()})

        self._counters = {name: _Counter(f"mailrider_{name}", *about) for name, about in _COUNTERS.items()}
        for name, (kind, text) in _COUNTERS_OF_A_KIND.items():
            registry.register(_TotalOf(f"mailrider_{name}", text, partial(self._happened.get, kind)))
        for each in self._counters.values():
            registry.register(each)
        self._gauges = {
            name: Gauge(f"mailrider_{name}", text, labels, registry=registry)
            for name, (text, *labels) in _GAUGES.items()
        }
        self._latency, self._waited = (
            Histogram(f"mailrider_{name}", text, buckets=buckets, registry=registry)
            for name, (text, buckets) in _HISTOGRAMS.items()
        )
        # What happens for each message.
        self._received, self._received_octets = self._counters["received_messages"], self._counters["received_octets"]
        self._outcomes, self._levels = self._counters["outcomes"], self._counters["delivered_recipients"]
        self._done = self._counters["queue_recipients"]
        self._shown: set[str] = set()  # queues
        self._handlers = self._make_handlers()

    def _make_handlers(self) -> Mapping[type[Event], Callable[[Any], None]]:
        """What is counted of an event beside that it happened."""
        judged = self._counters["judged_connections"]
        return {
            endpoint_event.MailTaken: self._take_mail,
            endpoint_event.MailRefused: self._refuse_mail,
            endpoint_event.ClientTurnedAway: lambda it: self._counters["turned_away_clients"].count(it.endpoint),
            endpoint_event.LoginFailed: lambda it: self._counters["failed_logins"].count(it.endpoint),
            endpoint_event.LoginHeldBack: lambda it: self._counters["failed_logins"].count(it.endpoint),
            event.RecipientSettled: self._settle,
            event.RecipientAttempted: self._settle,
            event.ConnectionOpened: lambda it: self._counters["connections"].count(it.tls_version or "none"),
            event.ConnectionJudged: lambda it: judged.count(*_levels_of(it.security)),
            event.AnswerValidated: lambda it: self._counters["dnssec_answers"].count(it.validity),
            event.LookupDidFail: lambda it: self._counters["failed_lookups"].count(it.record_type),
            mtasts_events.RecordLookupFailed: lambda _: self._counters["failed_lookups"].count("TXT"),
            mtasts_events.PolicyFetched: lambda _: self._counters["policy_fetches"].count("ok"),
            mtasts_events.PolicyFetchFailed: lambda it: self._counters["policy_fetches"].count(it.failure),
            event.ConnectionAwaited: lambda it: self._waited.observe(it.seconds),
            event.CandidateRefused: lambda it: self._counters["policy_refusals"].count(it.refusal.policy),
            event.AddressFailed: lambda it: self._counters["failed_addresses"].count(it.stage),
            queue_event.RecipientDone: self._finish,
            TLSSessionSeen: lambda it: self._count_sessions(session_findings(it)),
            TLSHostRefused: lambda it: self._count_sessions(refusal_findings(it)),
            TLSReportSettled: lambda it: self._counters["tlsrpt_reports"].count(it.endpoint, it.outcome),
            queue_event.NotificationQueued: lambda it: self._counters["notifications"].count(it.action),
        }

    def show_lost_lines(self, lost: Callable[[], int]) -> None:
        """Count lines of the log that nobody read in time; asked for when somebody looks."""
        self.registry.register(_TotalOf("mailrider_log_lines_lost", "Lines of the log that nobody read in time", lost))

    def __call__(self, happened: Event) -> None:
        self.listener_for(type(happened))(happened)

    def listener_for(self, kind: type[Event]) -> Emit:
        """See `fan_out`."""
        times, handle = self._happened, self._handlers.get(kind)

        named = self._named if _says_what_happened(kind) else None

        def count(happened: Event) -> None:
            times[kind] += 1
            if named is not None:
                named[happened.log_name] += 1
            if handle is not None:
                handle(happened)

        return count

    def _count_sessions(self, findings: Iterable[SessionFinding]) -> None:
        for each in findings:
            result = each.failures[0].result.value if each.failures else "success"
            self._counters["tlsrpt_sessions"].count(each.policy.type.value, result)

    def _take_mail(self, taken: endpoint_event.MailTaken) -> None:
        self._received.values[taken.endpoint, _class(taken.reply.code)] += 1
        self._received_octets.values[taken.endpoint,] += taken.size

    def _refuse_mail(self, refused: endpoint_event.MailRefused) -> None:
        arrived = refused.size is not None
        (self._received if arrived else self._counters["refused"]).count(refused.endpoint, _class(refused.reply.code))

    def _settle(self, settled: event.RecipientSettled) -> None:
        outcome = settled.outcome
        status = outcome.status
        self._outcomes.values[str(status),] += 1
        if status is Status.DELIVERED:
            self._levels.values[_levels_of(outcome.security)] += 1

    def _finish(self, done: queue_event.RecipientDone) -> None:
        if done.operator == "removed":
            self._done.count("removed")
            return
        if not done.is_over:
            self._done.count("deferred")
            return
        delivered = done.outcome.status is Status.DELIVERED
        self._done.count("delivered" if delivered else "given_up" if done.given_up else "failed")
        if delivered:
            self._latency.observe(max(0.0, done.age.total_seconds()))

    def show_queues_only(self, names: Iterable[str]) -> None:
        """These are the queues that there are; what was shown of others is forgotten."""
        for name in self._shown - set(names):
            for gauge in self._gauges.values():
                gauge.remove_by_labels({"queue": name})
        self._shown &= set(names)

    def show_queue(self, name: str, stats: Stats, now: datetime, down: int = 0) -> None:
        """How much is in a queue `now`, and how many destinations are `down`; what was shown before is forgotten."""
        self._shown.add(name)
        gauges = self._gauges
        age = 0.0 if stats.oldest is None else (now - stats.oldest).total_seconds()
        gauges["destinations_down"].labels(name).set(down)
        gauges["queue_messages"].labels(name).set(stats.messages)
        gauges["queue_oldest_seconds"].labels(name).set(max(0.0, age))
        gauges["queue_octets"].labels(name).set(stats.octets)
        waiting, ages = gauges["queue_waiting"], gauges["queue_age"]
        for gauge in (waiting, ages):
            gauge.remove_by_labels({"queue": name})
        for each in stats.destinations:
            for state in ("queued", "active", "held"):
                waiting.labels(name, each.destination, state).set(getattr(each, state))
        for span, recipients in stats.ages.items():
            ages.labels(name, span).set(recipients)


def _says_what_happened(kind: type[Event]) -> bool:
    """True if the names of its events in the log depend on what happened."""
    return kind.log_name is not event.Event.log_name


def _levels_of(security: Security) -> tuple[str, str, str]:
    return security.mx_level.word, security.tls_level.word, security.authenticated_by or "none"


def _class(code: int) -> str:
    return f"{code // 100}xx"
