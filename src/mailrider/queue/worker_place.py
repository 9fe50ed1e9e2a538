"""The place of a process among the workers of a daemon: which shard of each queue is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True, slots=True)
class WorkerNumber:
    """Worker `number` of so many `workers`; numbers begin with 0."""

    number: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.workers:
            raise ValueError(f"there is no worker {self.number} of {self.workers}")


ALONE: Final = WorkerNumber()  # a daemon that is one process


def shards_to_drain(place: WorkerNumber | None, there: Sequence[int]) -> list[int]:
    """Which of the shards that are there a process delivers from beside its own: those that no worker has, left behind
    by more workers than there are now. They are shared out, each to one worker. None, a process beside the daemon, adds
    to shard 0 and helps with all of them."""
    if place is None:
        return [each for each in there if each]
    return [each for each in there if each >= place.workers and each % place.workers == place.number]
