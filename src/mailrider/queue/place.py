"""The place of a process among the workers of a daemon: which shard of each queue is its own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Place:
    """Worker `number` of so many `workers`; numbers begin with 0."""

    number: int = 0
    workers: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.number < self.workers:
            raise ValueError(f"there is no worker {self.number} of {self.workers}")


ALONE: Final = Place()  # a daemon that is one process
