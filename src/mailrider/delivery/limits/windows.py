"""The arithmetic of rates: may a message of that key pass now, and if not, when? Pure.

A `RateWindow` is one rate of a `limits` block, over all keys of its scope. `opens_at` is asked first, then `take` says
that the message passed. `now` is a reading of the monotonic clock.

It keeps a log of the times at which messages passed, since nothing less is exact: a token bucket of BURST
that refills within PERIOD lets up to twice as many pass within one PERIOD. Above `RESOLUTION` the log is of groups of
messages, each with the time of its last one; so it may hold back one per cent too early, never too late.

Where several processes share a rate, one of them is given a block of messages, which it may let pass until a moment
that is to come: the whole block is logged with that moment. What was not used until then is put back.

Memory is bounded, and never at the expense of a limit. Two generations of keys take turns after each period; a key
moves to the younger one when a message passes, so what is left in the older one has not been used for a whole period,
and is nothing to remember. Beyond `MAX_KEYS` further keys share `SHARDS` logs, by their hash: they may be held back
because of each other, and never pass for it.
"""

from __future__ import annotations

from array import array
from hashlib import blake2b

RESOLUTION = 100
"""Entries of a log: one message each up to this burst, then as many groups."""
MAX_KEYS = 250_000
"""Keys of a rate with a log of their own within two periods; with one message each they take some 60 MB."""
SHARDS = 16_384
"""Logs for all keys beyond."""
UNKNOWN = float("inf")
"""When there is one that depends on others alone."""


class _Log:
    """When messages passed: for each group the time of its last one, and how many they are, one after the other."""

    __slots__ = ("entries", "total")

    def __init__(self) -> None:
        self.entries = array("d")
        self.total = 0


class RateWindow:
    """At most `burst` messages of a key in any `period` (seconds)."""

    def __init__(
        self, burst: int, period: float, *, ahead: float = 0.0, max_keys: int = MAX_KEYS, shards: int = SHARDS
    ) -> None:
        """`ahead`: by so many seconds the times that messages are logged with may be to come."""
        self._burst = burst
        self._kept = period + ahead
        self._period = period
        self._group = -(-burst // RESOLUTION)
        self._max_keys = max_keys
        self._shards = shards
        self._younger: dict[str | int, _Log] = {}
        self._older: dict[str | int, _Log] = {}
        self._turned = 0.0
        self._turns_with_shards = 0  # until there is none left

    def __len__(self) -> int:
        """How many logs there are."""
        return len(self._younger) + len(self._older)

    def opens_at(self, key: str, now: float) -> float:
        """`now` if a message may pass; else when one may, at the earliest."""
        log = self._log_at(key, now)
        return now if log is None or log.total < self._burst else log.entries[0] + self._period

    def free(self, key: str, now: float) -> int:
        """How many messages may pass now."""
        log = self._log_at(key, now)
        return self._burst if log is None else self._burst - log.total

    def latest(self, key: str) -> float:
        """The latest time that a message of the key was logged with; 0 if there is none."""
        log = self._log(self._owner(key))
        return log.entries[-2] if log is not None and log.entries else 0.0

    def _log_at(self, key: str, now: float) -> _Log | None:
        """The log that counts for a key, without what is a period ago."""
        self._turn(now)
        log = self._log(self._owner(key))
        if log is not None:
            entries = log.entries
            while entries and entries[0] + self._period <= now:
                log.total -= int(entries[1])
                del entries[:2]
        return log

    def take(self, key: str, now: float, count: int = 1) -> None:
        """So many messages pass; only when `opens_at` or `free` has just said that they may."""
        owner = self._owner(key)
        log = self._log(owner)
        if log is None:
            owner, log = self._new_owner(key), _Log()
        self._older.pop(owner, None)
        self._younger[owner] = log
        if isinstance(owner, int):
            self._turns_with_shards = 2
        entries = log.entries
        log.total += count
        if entries and entries[-1] < self._group:
            entries[-2] = now
            entries[-1] += count
        else:
            entries.append(now)
            entries.append(count)

    def put_back(self, key: str, at: float, count: int, now: float) -> None:
        """Take out of the log so many of the messages with the time `at`: they have not passed, and will not."""
        log = self._log(self._owner(key))
        if log is None or at + self._period <= now:
            return
        entries, index = log.entries, 0
        while index < len(entries) and entries[index] < at:
            index += 2
        # From there on: a group that was not full has the time of the one that filled it, which is later.
        while count and index < len(entries):
            less = min(count, int(entries[index + 1]))
            log.total -= less
            count -= less
            entries[index + 1] -= less
            if entries[index + 1]:
                index += 2
            else:
                del entries[index : index + 2]

    def _turn(self, now: float) -> None:
        if now < self._turned + self._kept:
            return
        # Whatever is in the older generation passed before the last turn, and that is a period ago.
        long_ago = now >= self._turned + 2 * self._kept
        self._older = {} if long_ago else self._younger
        self._turns_with_shards = 0 if long_ago else max(0, self._turns_with_shards - 1)
        self._younger = {}
        self._turned = now

    def _log(self, owner: str | int) -> _Log | None:
        return self._younger.get(owner) or self._older.get(owner)

    def _owner(self, key: str) -> str | int:
        """Whose log counts for the key: its own; or a shard's, as long as that one remembers anything."""
        if self._turns_with_shards and self._log(key) is None:
            shard = self._shard(key)
            if self._log(shard) is not None:
                return shard
        return key

    def _new_owner(self, key: str) -> str | int:
        """Who is to remember for a key that nobody remembers."""
        return key if len(self) < self._max_keys else self._shard(key)

    def _shard(self, key: str) -> int:
        return stable_hash(key) % self._shards


def stable_hash(key: str) -> int:
    """A hash that is the same in each process; keys with the same one can be found only by trying."""
    return int.from_bytes(blake2b(key.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "big")
