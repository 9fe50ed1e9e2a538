"""The counters of several processes as one: what the supervisor shows for its workers.

Counters and histograms are added, those of workers that have ended included, so that no sum ever falls. What is in the
queues is added as well, since each worker has a part of each queue; where a sum would mean nothing, the largest counts.
Of the destinations of a queue the largest are shown, so each worker tells of more than that: what is large as a whole
need not be large in each part. A worker's part of a destination that is not among its `TOLD` largest is missing.
What the kernel says of a process has the label `worker`.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.samples import Sample

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mailrider.observe.metrics import Metrics

OF_PROCESS: Final = "process_"  # how names begin that the library has from the kernel
ADDED: Final = frozenset({"counter", "histogram", "summary"})  # kinds that only grow
LARGEST: Final = frozenset({"mailrider_queue_oldest_seconds", "mailrider_destinations_down", "mailrider_build"})

SHOWN: Final = 20  # destinations of each queue
TOLD: Final = 100  # destinations of each queue that a worker tells of: the others have a hundredth of its part at most
WAITING: Final = "mailrider_queue_waiting"

_Key = tuple[str, tuple[tuple[str, str], ...]]


def encode_metrics(metrics: Metrics) -> str:
    """The counters of a process, as text for `decode_metrics`."""
    encode, _ = choose_encoder("application/openmetrics-text")
    return encode(metrics.registry).decode("utf-8")


def decode_metrics(text: str) -> list[Metric]:
    """The inverse. Raises `ValueError` for what is none."""
    return list(text_string_to_metric_families(text))  # type: ignore[no-untyped-call] # prometheus_client


def add_up(sources: Iterable[Sequence[Metric]]) -> list[Metric]:
    """The families of all sources, each sample once."""
    families: dict[str, Metric] = {}
    values: dict[str, dict[_Key, float]] = {}
    for source in sources:
        for family in source:
            families.setdefault(family.name, Metric(family.name, family.documentation, family.type, family.unit))
            known = values.setdefault(family.name, {})
            for sample in family.samples:
                key = (sample.name, tuple(sorted(sample.labels.items())))
                known[key] = _both(sample.name, known[key], sample.value) if key in known else sample.value
    if WAITING in values:
        values[WAITING] = _largest(values[WAITING])
    for name, family in families.items():
        family.samples = [Sample(each, dict(labels), value) for (each, labels), value in values[name].items()]
    return list(families.values())


def _both(name: str, one: float, other: float) -> float:
    if name.endswith("_created"):
        return min(one, other)
    return max(one, other) if name.removesuffix("_info") in LARGEST else one + other


def _largest(waiting: dict[_Key, float]) -> dict[_Key, float]:
    """What waits for the largest destinations of each queue."""
    sizes: dict[str, Counter[str]] = {}
    for key, value in waiting.items():
        queue, destination = _destination(key)
        sizes.setdefault(queue, Counter())[destination] += round(value)
    shown = {
        (queue, destination)
        for queue, counts in sizes.items()
        for destination in sorted(counts, key=lambda each: (-counts[each], each))[:SHOWN]
    }
    return {key: value for key, value in waiting.items() if _destination(key) in shown}


def _destination(key: _Key) -> tuple[str, str]:
    labels = dict(key[1])
    return labels["queue"], labels["destination"]


def of_worker(families: Iterable[Metric], worker: str | None) -> list[Metric]:
    """What is of one process has its label then. With None it is left out, and so is what is in the queues: the
    successor of such a worker has the same shard, and counts it."""
    if worker is None:
        return only_counters(families)
    found: list[Metric] = []
    for family in families:
        if not family.name.startswith(OF_PROCESS):
            found.append(family)
        else:
            labelled = Metric(family.name, family.documentation, family.type, family.unit)
            labelled.samples = [
                Sample(sample.name, {**sample.labels, "worker": worker}, sample.value) for sample in family.samples
            ]
            found.append(labelled)
    return found


def only_counters(families: Iterable[Metric]) -> list[Metric]:
    """What counts on when a process has ended."""
    return [each for each in families if each.type in ADDED and not each.name.startswith(OF_PROCESS)]


class MetricSums(Collector):
    """What is shown: `own` counters, and the latest of each worker. `registry` has all of it."""

    def __init__(self, own: Metrics) -> None:
        self.registry = CollectorRegistry()
        self._own = own
        self._latest: dict[int, list[Metric]] = {}
        self._ended: list[Metric] = []
        self._label: Callable[[int], str | None] = str
        self.registry.register(self)

    def label_with(self, label: Callable[[int], str | None]) -> None:
        """How a worker is called, by its number; None for one that ends beside its successor."""
        self._label = label

    def show(self, number: int, families: list[Metric]) -> None:
        """What a worker has counted so far."""
        self._latest[number] = families

    def end(self, number: int) -> None:
        """A worker has ended; its counters go on counting."""
        counted = only_counters(self._latest.pop(number, []))
        self._ended = add_up([self._ended, counted])

    def collect(self) -> Iterable[Metric]:
        """See `prometheus_client.registry.Collector`."""
        yield from add_up(
            [
                of_worker(self._own.registry.collect(), "supervisor"),
                *(of_worker(families, self._label(number)) for number, families in self._latest.items()),
                self._ended,
            ]
        )

    def describe(self) -> Iterable[Metric]:
        """For the library, which else would collect at once."""
        return []
