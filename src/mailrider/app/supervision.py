"""Rules of the supervisor: whom to start, when, who makes way for whom, and who is ended because it is silent. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

SHORTEST: Final = 1.0  # seconds until a worker that has died is started again
LONGEST: Final = 60.0  # the same after several deaths; one that lived so long begins anew

# Variables that a worker has although the configuration uses them: the interpreter and its libraries need them.
KEPT: Final = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"})
KEPT_PREFIXES: Final = ("COVERAGE_", "LC_", "LD_", "PYTHON", "XDG_")
# What the service manager says to one process: the supervisor.
NOT_FOR_WORKERS: Final = frozenset({"NOTIFY_SOCKET"})
NOT_FOR_WORKERS_PREFIXES: Final = ("LISTEN_", "WATCHDOG_")


MAX_FINISHING: Final = 8  # earlier workers of one place that may still be at work


class PlacedWorker(Protocol):
    """A worker: `number` is given to no other one, `worker` is its place, `generation` that of its configuration."""

    number: int
    worker: int
    generation: int


W = TypeVar("W", bound=PlacedWorker)


class WorkerPlaces(Generic[W]):
    """Who serves which place, and which place gets a process now.

    `workers` and `generation` are those of the configuration in force. Each place below has one worker that serves; one
    of an earlier configuration serves until its successor does.
    """

    def __init__(self) -> None:
        self.workers = 0
        self.generation = 0
        self._serving: dict[int, W] = {}
        self._delays: dict[int, float] = {}
        self._filling: set[int] = set()

    @property
    def serving(self) -> list[W]:
        """The workers that serve, by place."""
        return [self._serving[place] for place in sorted(self._serving)]

    def label(self, number: int) -> str | None:
        """What a worker is called beside its counters: its place, if it serves."""
        return next((str(place) for place, worker in self._serving.items() if worker.number == number), None)

    def put_in_force(self, generation: int, workers: int) -> None:
        """Another configuration is in force."""
        self.generation, self.workers = generation, workers

    def begin(self, place: int) -> bool:
        """True if a process of the configuration in force is to be started there now; `begun` is due."""
        worker = self._serving.get(place)
        lacks = place < self.workers and (worker is None or worker.generation != self.generation)
        if not lacks or place in self._filling:
            return False
        self._filling.add(place)
        return True

    def begun(self, place: int) -> None:
        """What was started there serves, or will not."""
        self._filling.discard(place)

    def put_in_service(self, worker: W) -> W | None:
        """The worker can serve: who has to finish now, its predecessor, or itself if it has an older configuration."""
        if worker.generation != self.generation:
            return worker
        predecessor = self._serving.get(worker.worker)
        self._serving[worker.worker] = worker
        return predecessor

    def clear_surplus(self) -> list[W]:
        """The workers whose places are not there any more: they have to finish."""
        return [self._serving.pop(place) for place in sorted(self._serving) if place >= self.workers]

    def end(self, worker: W) -> bool:
        """The worker has ended; True if it served, so that another has to begin."""
        if self._serving.get(worker.worker) is not worker:
            return False
        del self._serving[worker.worker]
        return True

    def delay(self, place: int, lived: float) -> float | None:
        """Seconds until the next start there, after a worker that lived so long; None if the place is not there."""
        if place >= self.workers:
            return None
        delay = self._delays[place] = next_delay(self._delays.get(place, 0.0), lived)
        return delay


def too_many(finishing: Sequence[W], workers: int) -> Sequence[W]:
    """The workers that have to stop, since too many are finishing: the oldest of these."""
    return finishing[: -MAX_FINISHING * max(1, workers)]


def next_delay(earlier: float, lived: float) -> float:
    """Seconds until the next start; `earlier` was the delay before the last one, and it `lived` so many seconds."""
    return SHORTEST if lived >= LONGEST else min(LONGEST, max(SHORTEST, 2 * earlier))


def worker_environment(environment: Mapping[str, str], carried: Collection[str]) -> dict[str, str]:
    """Without what is meant for the supervisor, and without what the configuration took (`carried`): it may be a
    secret, and reaches workers another way."""
    return {
        name: value
        for name, value in environment.items()
        if name not in NOT_FOR_WORKERS
        and not name.startswith(NOT_FOR_WORKERS_PREFIXES)
        and (name not in carried or name in KEPT or name.startswith(KEPT_PREFIXES))
    }


class SilenceWatch:
    """Who has said nothing for `bound` seconds. Time in which nobody listened does not count."""

    def __init__(self, bound: float, now: float) -> None:
        self._bound = bound
        self._looked = now
        self._heard: dict[int, float] = {}

    def hear(self, number: int, now: float) -> None:
        """Worker `number` lives."""
        self._heard[number] = now

    def forget(self, number: int) -> None:
        """The worker has ended."""
        self._heard.pop(number, None)

    def look(self, now: float) -> list[int]:
        """The workers that are silent; to be called several times within the bound."""
        unheard = now - self._looked
        self._looked = now
        if unheard > self._bound / 2:
            # This process stood still: what the workers said meanwhile may not have been read yet.
            for number in self._heard:
                self._heard[number] = now
        return [number for number, heard in self._heard.items() if now - heard > self._bound]


def lowest_free(taken: Collection[int], most: int) -> int | None:
    """The first number below `most` that nobody has."""
    return next((number for number in range(most) if number not in taken), None)
