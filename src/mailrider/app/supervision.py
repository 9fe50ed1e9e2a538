"""Rules of the supervisor: when a worker is started again, and when one that says nothing is ended. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

SHORTEST: Final = 1.0  # seconds until a worker that has died is started again
LONGEST: Final = 60.0  # the same after several deaths; one that lived so long begins anew

# Variables that a worker has although the configuration uses them: the interpreter and its libraries need them.
KEPT: Final = frozenset({"HOME", "LANG", "LOGNAME", "PATH", "TMPDIR", "TZ", "USER"})
KEPT_PREFIXES: Final = ("COVERAGE_", "LC_", "LD_", "PYTHON", "XDG_")
# What the service manager says to one process: the supervisor.
NOT_FOR_WORKERS: Final = frozenset({"NOTIFY_SOCKET"})
NOT_FOR_WORKERS_PREFIXES: Final = ("LISTEN_", "WATCHDOG_")


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
        """It has ended."""
        self._heard.pop(number, None)

    def look(self, now: float) -> list[int]:
        """Those who are silent; to be called several times within the bound."""
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
