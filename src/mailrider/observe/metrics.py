"""Counters, made from events (OpenMetrics, by prometheus-client).

`Metrics` is an `Emit`. Every event is counted by its name; those that operators ask for have counters of their own,
with labels of few values: never an address, and of domains only the largest destinations of a queue. The children are
bound once, so that an event costs a microsecond.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING, Any, Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from mailrider.model import endpoint_event, event, queue_event
from mailrider.model.outcome import Status
from mailrider.observe.describe import event_name
from mailrider.policy import mtasts_events
from mailrider.queue.ids import RANDOM_BITS, moment, parse_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from mailrider.clock import Clock
    from mailrider.model.event import Emit, Event
    from mailrider.queue.message import Stats

# Seconds from acceptance to delivery: from the same machine to the fifth day.
_BUCKETS: Final = (0.1, 0.3, 1, 3, 10, 30, 60, 300, 900, 3600, 4 * 3600, 86400, 5 * 86400)
# Seconds that a message waited for one of the few connections to a host.
_WAITS: Final = (0.01, 0.1, 1, 10, 60, 300)


def fan_out(*emits: Emit) -> Emit:
    """An `Emit` that tells all of these."""

    def emit(happened: Event) -> None:
        for each in emits:
            each(happened)

    return emit


class Metrics:
    """Counts what happens; `registry` has all of it."""

    def __init__(self, clock: Clock) -> None:
        self.registry = registry = CollectorRegistry()
        self._clock = clock

        def counter(name: str, about: str, *labels: str) -> Any:
            """Its children by their labels' values, bound once."""
            made = Counter(f"mailrider_{name}", about, labels, registry=registry)
            return cache(made.labels) if labels else lambda: made

        def gauge(name: str, about: str, *labels: str) -> Gauge:
            return Gauge(f"mailrider_{name}", about, labels, registry=registry)

        self._events = counter("events", "What happened, by the name that it has in the log", "event")
        self._received = counter(
            "received_messages", "Messages that arrived whole, by the class of our reply", "endpoint", "reply"
        )
        self._received_octets = counter("received_octets", "Octets of the messages that were accepted", "endpoint")
        self._refused = counter(
            "refused", "Senders, recipients and messages refused before the end of data", "endpoint", "reply"
        )
        self._clients_refused = counter("turned_away_clients", "Connections that were not served", "endpoint")
        self._logins_failed = counter("failed_logins", "Wrong passwords", "endpoint")
        self._outcomes = counter("outcomes", "Recipients, by what an attempt came to", "status")
        self._levels = counter(
            "delivered_recipients",
            "Delivered recipients, by security level",
            "mx_level",
            "tls_level",
            "authenticated_by",
        )
        self._connections = counter("connections", "Connections opened to other servers", "tls")
        self._judged = counter(
            "judged_connections",
            "Connections found good enough for a message, by security level",
            "mx_level",
            "tls_level",
            "authenticated_by",
        )
        self._fallbacks = counter("fallbacks", "Connections in clear because TLS failed and nothing demanded it")
        self._lookups = counter("failed_lookups", "Questions that DNS could not answer", "type")
        self._fetches = counter("policy_fetches", "Fetches of MTA-STS policies, by what came of them", "result")
        self._missed = counter("testing_misses", "What an MTA-STS policy in testing mode would have refused")
        self._reused = counter("reused_connections", "Transactions on connections that were there already")
        self._policy = counter("policy_refusals", "Hosts and connections that a policy refused", "policy")
        self._addresses = counter("failed_addresses", "Addresses that took us nowhere, by the stage", "stage")
        self._queued = counter("queued_messages", "Messages that a queue accepted")
        self._done = counter("queue_recipients", "Queued recipients, by what became of them", "end")
        self._notifications = counter("notifications", "Notifications that were queued", "action")
        self._latency = Histogram(
            "mailrider_delivery_seconds", "From acceptance to delivery", buckets=_BUCKETS, registry=registry
        )
        self._waited = Histogram(
            "mailrider_connection_wait_seconds", "Waiting for a connection", buckets=_WAITS, registry=registry
        )
        self._down = gauge("destinations_down", "Destinations of which no server can be reached")
        self._queue_messages = gauge("queue_messages", "Messages in a queue", "queue")
        self._queue_octets = gauge("queue_octets", "Octets in a queue", "queue")
        self._queue_states = gauge(
            "queue_waiting", "Recipients in a queue, for the largest destinations", "queue", "destination", "state"
        )
        self._queue_ages = gauge("queue_age", "Recipients in a queue, by their age", "queue", "age")
        self._handlers: Mapping[type[Event], Callable[[Any], None]] = {
            endpoint_event.MailTaken: self._take_mail,
            endpoint_event.MailRefused: lambda it: self._refused(it.endpoint, _class(it.reply.code)).inc(),
            endpoint_event.ClientTurnedAway: lambda it: self._clients_refused(it.endpoint).inc(),
            endpoint_event.LoginFailed: lambda it: self._logins_failed(it.endpoint).inc(),
            event.RecipientSettled: self._settle,
            event.ConnectionOpened: lambda it: self._connections(it.tls_version or "none").inc(),
            event.ConnectionJudged: self._judge,
            event.FellBackToClear: lambda _: self._fallbacks().inc(),
            event.LookupDidFail: lambda it: self._lookups(it.record_type).inc(),
            event.TestingPolicyMissed: lambda _: self._missed().inc(),
            mtasts_events.RecordLookupFailed: lambda _: self._lookups("TXT").inc(),
            mtasts_events.PolicyFetched: lambda _: self._fetches("ok").inc(),
            mtasts_events.PolicyFetchFailed: lambda it: self._fetches(it.failure).inc(),
            event.ConnectionReused: lambda _: self._reused().inc(),
            event.ConnectionAwaited: lambda it: self._waited.observe(it.seconds),
            event.CandidateRefused: lambda it: self._policy(it.refusal.policy).inc(),
            event.AddressFailed: lambda it: self._addresses(it.stage).inc(),
            queue_event.MessageQueued: lambda _: self._queued().inc(),
            queue_event.RecipientDone: self._finish,
            queue_event.NotificationQueued: lambda it: self._notifications(it.action).inc(),
            queue_event.DestinationDown: lambda _: self._down.inc(),
            queue_event.DestinationUp: lambda _: self._down.dec(),
        }
        self._names: dict[type[Event], Counter] = {}

    def __call__(self, happened: Event) -> None:
        kind = type(happened)
        named = self._names.get(kind)
        if named is None:
            named = self._names[kind] = self._events(event_name(happened))
        named.inc()
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(happened)

    def _take_mail(self, taken: endpoint_event.MailTaken) -> None:
        self._received(taken.endpoint, _class(taken.reply.code)).inc()
        if taken.reply.is_positive:
            self._received_octets(taken.endpoint).inc(taken.size)

    def _settle(self, settled: event.RecipientSettled) -> None:
        outcome = settled.outcome
        self._outcomes(outcome.status.value).inc()
        if outcome.status is Status.DELIVERED:
            security = outcome.security
            self._levels(security.mx_level.word, security.tls_level.word, security.authenticated_by or "none").inc()

    def _judge(self, judged: event.ConnectionJudged) -> None:
        security = judged.security
        self._judged(security.mx_level.word, security.tls_level.word, security.authenticated_by or "none").inc()

    def _finish(self, done: queue_event.RecipientDone) -> None:
        if done.retry_at is not None:
            self._done("deferred").inc()
            return
        delivered = done.outcome.status is Status.DELIVERED
        self._done("delivered" if delivered else "given_up" if done.given_up else "failed").inc()
        if delivered:
            accepted = moment(parse_id(done.message) >> RANDOM_BITS)
            self._latency.observe(max(0.0, (self._clock.now() - accepted).total_seconds()))

    def show_queue(self, name: str, stats: Stats) -> None:
        """How much is in a queue now; what was shown of it before is forgotten."""
        self._queue_messages.labels(name).set(stats.messages)
        self._queue_octets.labels(name).set(stats.octets)
        for gauge in (self._queue_states, self._queue_ages):
            gauge.remove_by_labels({"queue": name})
        for each in stats.destinations:
            for state in ("queued", "active", "held"):
                self._queue_states.labels(name, each.destination, state).set(getattr(each, state))
        for age, recipients in stats.ages.items():
            self._queue_ages.labels(name, age).set(recipients)


def _class(code: int) -> str:
    return f"{code // 100}xx"
