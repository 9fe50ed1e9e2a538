"""The counters of several workers as one."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING

import pytest
from prometheus_client.exposition import choose_encoder

from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import ClientTurnedAway
from mailrider.model.event import ConnectionAwaited
from mailrider.observe.metric_sums import SHOWN, WAITING, MetricSums, add_up, decode_metrics, encode_metrics
from mailrider.observe.metrics import Metrics
from mailrider.queue.message import DestinationCount, Stats
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

CLOCK = FakeClock()


def stats(messages: int, age: int) -> Stats:
    return Stats(messages, messages * 100, (), {}, CLOCK.now() - timedelta(seconds=age))


def counted(turned_away: int, waits: tuple[float, ...] = (), messages: int = 0, age: int = 0) -> list[Metric]:
    """What a worker tells the supervisor."""
    metrics = Metrics()
    for _ in range(turned_away):
        metrics(ClientTurnedAway("smtp", "192.0.2.1", "too many"))
    for seconds in waits:
        metrics(ConnectionAwaited(Domain.parse("mx.test"), "mx.test", "192.0.2.1", seconds))
    metrics.show_queue("queue", stats(messages, age), CLOCK.now(), down=1)
    return decode_metrics(encode_metrics(metrics))


def shown(sums: MetricSums) -> list[str]:
    encode, _ = choose_encoder("application/openmetrics-text")
    return encode(sums.registry).decode().splitlines()


@pytest.fixture
def sums() -> MetricSums:
    return MetricSums(Metrics())


def test_counters_are_added(sums: MetricSums) -> None:
    sums.show(1, counted(2))
    sums.show(2, counted(3))
    assert 'mailrider_turned_away_clients_total{endpoint="smtp"} 5.0' in shown(sums)


def test_the_supervisor_s_own_count_too() -> None:
    own = Metrics()
    sums = MetricSums(own)
    own(ClientTurnedAway("smtp", "192.0.2.1", "too many"))
    sums.show(1, counted(2))
    assert 'mailrider_turned_away_clients_total{endpoint="smtp"} 3.0' in shown(sums)


def test_histograms_are_added_bucket_by_bucket(sums: MetricSums) -> None:
    sums.show(1, counted(0, (0.05, 5.0)))
    sums.show(2, counted(0, (0.05,)))
    lines = [line for line in shown(sums) if line.startswith("mailrider_connection_wait_seconds")]
    assert "seconds_created" in lines.pop()
    assert lines == [
        'mailrider_connection_wait_seconds_bucket{le="0.01"} 0.0',
        'mailrider_connection_wait_seconds_bucket{le="0.1"} 2.0',
        'mailrider_connection_wait_seconds_bucket{le="1.0"} 2.0',
        'mailrider_connection_wait_seconds_bucket{le="10.0"} 3.0',
        'mailrider_connection_wait_seconds_bucket{le="60.0"} 3.0',
        'mailrider_connection_wait_seconds_bucket{le="300.0"} 3.0',
        'mailrider_connection_wait_seconds_bucket{le="+Inf"} 3.0',
        "mailrider_connection_wait_seconds_count 3.0",
        "mailrider_connection_wait_seconds_sum 5.1",
    ]


def test_queues_are_added_and_the_oldest_message_and_destinations_that_are_down_are_not(sums: MetricSums) -> None:
    sums.show(1, counted(0, messages=2, age=10))
    sums.show(2, counted(0, messages=3, age=70))
    lines = shown(sums)
    assert 'mailrider_queue_messages{queue="queue"} 5.0' in lines
    assert 'mailrider_queue_oldest_seconds{queue="queue"} 70.0' in lines
    assert 'mailrider_destinations_down{queue="queue"} 1.0' in lines


def test_what_the_kernel_says_has_the_worker_in_a_label(sums: MetricSums) -> None:
    sums.label_with({1: "0", 2: None}.get)
    sums.show(1, counted(0))
    sums.show(2, counted(0))
    names = [line.split()[0] for line in shown(sums) if line.startswith("process_open_fds")]
    assert names == ['process_open_fds{worker="supervisor"}', 'process_open_fds{worker="0"}']


def test_a_queue_is_counted_once_while_a_worker_ends_beside_its_successor(sums: MetricSums) -> None:
    sums.label_with({1: None, 2: "0"}.get)
    sums.show(1, counted(2, messages=5))
    sums.show(2, counted(1, messages=5))
    lines = shown(sums)
    assert 'mailrider_queue_messages{queue="queue"} 5.0' in lines
    assert 'mailrider_turned_away_clients_total{endpoint="smtp"} 3.0' in lines


def test_the_version_is_said_once(sums: MetricSums) -> None:
    sums.show(1, counted(0))
    sums.show(2, counted(0))
    (line,) = [line for line in shown(sums) if line.startswith("mailrider_build_info")]
    assert line.endswith(" 1.0")


def test_what_a_worker_counted_stays_when_it_has_ended_and_its_queue_does_not(sums: MetricSums) -> None:
    sums.show(1, counted(2, (0.05,), messages=2))
    sums.end(1)
    sums.show(2, counted(1, (0.05,), messages=2))
    sums.end(3)  # it ended before it was asked
    lines = shown(sums)
    assert 'mailrider_turned_away_clients_total{endpoint="smtp"} 3.0' in lines
    assert "mailrider_connection_wait_seconds_count 2.0" in lines
    assert 'mailrider_queue_messages{queue="queue"} 2.0' in lines
    sums.end(2)
    assert 'mailrider_turned_away_clients_total{endpoint="smtp"} 3.0' in shown(sums)
    assert not any(line.startswith("mailrider_queue_messages{") for line in shown(sums))


def test_the_moment_in_which_a_counter_was_made_is_the_first() -> None:
    text = "# HELP a x\n# TYPE a counter\na_total 1.0\na_created {}\n# EOF\n"
    (family,) = add_up([decode_metrics(text.format(20.0)), decode_metrics(text.format(10.0))])
    assert [(sample.name, sample.value) for sample in family.samples] == [("a_total", 2.0), ("a_created", 10.0)]


def test_what_is_no_text_of_counters_is_refused() -> None:
    with pytest.raises(ValueError):
        decode_metrics("nonsense {")


def waiting(counts: dict[str, int]) -> list[Metric]:
    """What a worker tells that has so many queued recipients of these destinations."""
    metrics = Metrics()
    now = CLOCK.now()
    each = tuple(DestinationCount(name, count, 0, 0, 0, now, None) for name, count in counts.items())
    metrics.show_queue("queue", Stats(1, 1, each, {}), now)
    return decode_metrics(encode_metrics(metrics))


def destinations_shown(sums: MetricSums) -> dict[str, int]:
    (family,) = [each for each in sums.collect() if each.name == WAITING]
    queued = [each for each in family.samples if each.labels["state"] == "queued"]
    return {each.labels["destination"]: round(each.value) for each in queued}


def test_the_largest_destinations_of_all_workers_are_shown_and_no_more(sums: MetricSums) -> None:
    sums.show(0, waiting({f"a{number}.example": 100 + number for number in range(SHOWN)} | {"both.example": 99}))
    sums.show(1, waiting({f"b{number}.example": 100 + number for number in range(SHOWN)} | {"both.example": 99}))
    shown = destinations_shown(sums)
    assert len(shown) == SHOWN
    assert shown["both.example"] == 198, "it is the largest, although it is the smallest of each worker"
    assert min(shown.values()) == 110


def test_each_queue_has_its_own_largest_destinations(sums: MetricSums) -> None:
    sums.show(0, waiting(dict.fromkeys((f"a{number}.example" for number in range(2 * SHOWN)), 7)))
    other = Metrics()
    other.show_queue(
        "other", Stats(1, 1, (DestinationCount("b.example", 1, 0, 0, 0, CLOCK.now(), None),), {}), CLOCK.now()
    )
    sums.show(1, decode_metrics(encode_metrics(other)))
    assert len(destinations_shown(sums)) == SHOWN + 1
