"""Who runs, and in which place: attempts that last make room for the others. Pure: time is an argument.

A queue has *fast places*, as many as it is configured to have, and *slow places*. Each attempt begins in a fast place.
One that lasts longer than `SLOW_AFTER` moves to a slow place, so that the fast one is free for other mail; nothing else
changes for it. What always holds:

- attempts are counted by the address of the mail server as well (for IPv6 by its /64, which is one site): a server that
  has many names is one place. One address has at most three quarters of the fast places, and `UNPROVEN` of them until
  an attempt there has ended soon; further attempts there move to slow places at once, as far as these reach;
- an address has a quarter of the slow places. One where attempts last is *slow*: attempts move to slow places when they
  arrive there, and who arrives when all of its own are taken is told when to come again. Each attempt that ends soon
  speaks for the address again;
- attempts at destinations that have not proved that they end soon take fast places only while there are slow places for
  them to move to. When there are none they have an eighth of the fast places, and one is kept free of them always.

An attempt that lasts while no slow place is free keeps its fast place until there is one.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.model.bounded_map import BoundedMap

if TYPE_CHECKING:
    from collections.abc import Hashable
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.queue.message import LeasedJob

SLOW_AFTER: Final = 1.0  # seconds that an attempt may keep a fast place; most take a tenth of it
SLOW_FOR_EACH_FAST: Final = 8  # a server that delays its greeting for 10 seconds is nothing unusual
MOST_SLOW: Final = 256  # slow places in all: each may have a connection, and a process has some 1,000 descriptors
SHARE: Final = 4  # one address has one slow place of so many
UNPROVEN: Final = 2  # attempts in fast places at an address of which nothing is known
MAX_ADDRESSES: Final = 10_000  # that are remembered without an attempt there; 300 bytes each

# What an address has earned: an attempt that ended soon adds one, one that lasts costs five. Below zero it is slow. So
# a server where one message of six is large is not slow, and one that hangs is from the first attempt on.
MOST_CREDIT: Final = 50
LEAST_CREDIT: Final = -10
PRICE: Final = 5

COME_AGAIN: Final = 10.0  # seconds until an attempt that was turned away may come again, at least
TOGETHER: Final = (
    20  # that come again at one moment, a second before the next so many: they cost others next to nothing
)
LATEST: Final = 900.0  # seconds until it may come again, at most


@dataclass(slots=True, eq=False)
class RunningAttempt:
    """One attempt under way. `octets`: of its content that count as being in memory."""

    job: LeasedJob
    since: float
    is_newcomer: bool
    octets: int = 0
    is_slow: bool = False
    has_lasted: bool = False
    at: dict[Hashable, float] = field(default_factory=dict)  # the addresses where it is, and since when


@dataclass(slots=True, eq=False)
class _Address:
    fast: int = 0
    slow: int = 0
    lasting: int = 0
    credit: int = 0
    share: int = 1  # of the slow places

    def charge(self) -> None:
        """An attempt lasts, or lasted, because of it."""
        self.credit = max(self.credit - PRICE, LEAST_CREDIT)

    @property
    def is_slow(self) -> bool:
        """True if attempts there last; so it is while they take up half of its share, whatever others do."""
        return self.credit < 0 or self.lasting > self.share // 2

    @property
    def is_plain(self) -> bool:
        """True if forgetting it would change nothing."""
        return not self.fast and not self.slow and not self.credit


class AttemptPlaces:
    """The attempts that run. `fast`: how many places there are for those that do not last."""

    def __init__(self, fast: int) -> None:
        self.resize(fast)
        self.running = 0
        self.running_slow = 0
        self._newcomers = 0
        self._watched: OrderedDict[RunningAttempt, None] = OrderedDict()  # in fast places, the oldest first
        self._lasting: OrderedDict[RunningAttempt, None] = OrderedDict()  # in fast places for want of slow ones
        self._addresses: OrderedDict[Hashable, _Address] = OrderedDict()
        self._promised = 0.0  # the last moment at which somebody comes again, and how many do
        self._promises = 0
        self.crowded: BoundedMap[str, Hashable] = BoundedMap(MAX_ADDRESSES)
        """Destinations whose attempts were turned away, and the address where that happened."""

    def resize(self, fast: int) -> None:
        """So many fast places from now on; attempts that hold others keep them."""
        self.fast = fast
        self.slow = max(fast, min(SLOW_FOR_EACH_FAST * fast, MOST_SLOW))
        self._most_at_one = max(1, fast * 3 // 4)
        self._most_unproven = min(UNPROVEN, self._most_at_one)

    @property
    def has_slow(self) -> bool:
        """True if a slow place is free."""
        return self.running_slow < self.slow

    @property
    def has_fast(self) -> bool:
        """True if a fast place is free."""
        return self.running < self.fast

    def takes_newcomers(self, *, others_wait: bool) -> bool:
        """True if an attempt may begin at a destination that has not proved that attempts there end soon."""
        kept_free = 1 if self.fast >= 8 else 0
        most = self.fast // 2 if others_wait else self.fast - kept_free
        room = min(most, self.slow - self.running_slow)
        return self._newcomers < max(room, self.fast // 8, 1)

    def begin(self, job: LeasedJob, now: float, *, is_newcomer: bool) -> RunningAttempt:
        """An attempt begins, in a fast place."""
        attempt = RunningAttempt(job, now, is_newcomer, job.info.size if job.content is not None else 0)
        self.running += 1
        self._newcomers += is_newcomer
        self._watched[attempt] = None
        return attempt

    def end(self, attempt: RunningAttempt, now: float) -> list[RunningAttempt]:
        """It has ended. Those that move to a slow place now."""
        if attempt.at:
            for where in list(attempt.at):
                self._leave(attempt, where, now)
        self._watched.pop(attempt, None)
        if attempt.has_lasted:
            self._lasting.pop(attempt, None)
        if not attempt.is_slow:
            self.running -= 1
            self._newcomers -= attempt.is_newcomer
            return []
        self.running_slow -= 1
        return self._make_room()

    # Time ------------------------------------------------------------------------------------------------------------

    @property
    def next_due(self) -> float | None:
        """When `move_lasting` has something to do."""
        return next(iter(self._watched)).since + SLOW_AFTER if self._watched else None

    def move_lasting(self, now: float) -> list[RunningAttempt]:
        """Attempts that have lasted too long for a fast place; those that moved."""
        while self._watched:
            attempt = next(iter(self._watched))
            if now < attempt.since + SLOW_AFTER:
                break
            del self._watched[attempt]
            self._mark_lasting(attempt)
            if not attempt.is_slow:
                self._lasting[attempt] = None
        return self._make_room()

    def _mark_lasting(self, attempt: RunningAttempt) -> None:
        attempt.has_lasted = True
        for where, since in attempt.at.items():
            address = self._addresses[where]
            address.lasting += 1
            if _is_to_blame(attempt, since):
                address.charge()

    def _make_room(self) -> list[RunningAttempt]:
        moved: list[RunningAttempt] = []
        while self._lasting and self.has_slow:
            attempt, _ = self._lasting.popitem(last=False)
            self._move(attempt)
            moved.append(attempt)
        return moved

    def _move(self, attempt: RunningAttempt) -> None:
        attempt.is_slow = True
        self.running -= 1
        self.running_slow += 1
        self._newcomers -= attempt.is_newcomer
        for where in attempt.at:
            address = self._addresses[where]
            address.fast -= 1
            address.slow += 1

    # Addresses -------------------------------------------------------------------------------------------------------

    def arrive(
        self, attempt: RunningAttempt, ip: IPv4Address | IPv6Address, now: float, slots: int | None = None
    ) -> float | None:
        """An attempt is about to use an address. None: it may (it may have moved); else in how many seconds it may.

        `slots`: how many messages may be under way in all; an address where attempts last has a quarter of these too.
        """
        where = site_of(ip)
        address = self._addresses.get(where)
        if address is None:
            address = self._addresses[where] = _Address()
            self._forget_some()
        else:
            self._addresses.move_to_end(where)
        address.share = max(1, (self.slow if slots is None else min(self.slow, slots)) // SHARE)
        if address.is_slow:
            if self._is_full(address, attempt):
                self._remember_turned_away(attempt.job.destination, where)
                return self._come_again(now)
            self._move_at_once(attempt)
        elif not attempt.is_slow and address.fast >= (self._most_at_one if address.credit else self._most_unproven):
            if address.slow < address.share:
                self._move_at_once(attempt)
            elif not address.credit:
                return SLOW_AFTER  # by then it is known what kind of place this is
        self.crowded.pop(attempt.job.destination, None)
        attempt.at[where] = now
        if attempt.is_slow:
            address.slow += 1
        else:
            address.fast += 1
        address.lasting += attempt.has_lasted
        return None

    def _move_at_once(self, attempt: RunningAttempt) -> None:
        """To a slow place, if one is free. It is watched on: whether it lasts says something about the address."""
        if not attempt.is_slow and self.has_slow:
            self._lasting.pop(attempt, None)
            self._move(attempt)

    def _is_full(self, address: _Address, attempt: RunningAttempt) -> bool:
        """True if a slow address has no slow place for an attempt that is in a fast one, or moved already."""
        return address.slow >= address.share or not (attempt.is_slow or self.has_slow)

    def turned_away(self, attempt: RunningAttempt, now: float) -> float | None:
        """In how many seconds an attempt is to come again, if it is known that it will be turned away now."""
        where = self.crowded.get(attempt.job.destination)
        address = None if where is None else self._addresses.get(where)
        if address is None or not address.is_slow or not self._is_full(address, attempt):
            return None
        return self._come_again(now)

    def _remember_turned_away(self, destination: str, where: Hashable) -> None:
        self.crowded[destination] = where

    def _come_again(self, now: float) -> float:
        if self._promised < now + COME_AGAIN:
            self._promised, self._promises = now + COME_AGAIN, 0
        elif self._promises >= TOGETHER and self._promised < now + LATEST:
            self._promised, self._promises = min(self._promised + 1, now + LATEST), 0
        self._promises += 1
        return self._promised - now

    def leave(self, attempt: RunningAttempt, ip: IPv4Address | IPv6Address, now: float) -> None:
        """An attempt is done with an address."""
        self._leave(attempt, site_of(ip), now)

    def _leave(self, attempt: RunningAttempt, where: Hashable, now: float) -> None:
        since = attempt.at.pop(where, None)
        if since is None:
            return
        address = self._addresses[where]
        if attempt.is_slow:
            address.slow -= 1
        else:
            address.fast -= 1
        address.lasting -= attempt.has_lasted
        if now - since < SLOW_AFTER:
            address.credit = min(address.credit + 1, MOST_CREDIT)
        elif not _is_to_blame(attempt, since):
            address.charge()  # it was not yet, when the attempt had lasted too long
        if address.is_plain:
            del self._addresses[where]

    def _forget_some(self) -> None:
        """Keep the number of addresses bounded: those used longest ago go first, but none where an attempt is."""
        for _ in range(len(self._addresses) - MAX_ADDRESSES):
            where, address = next(iter(self._addresses.items()))
            self._addresses.move_to_end(where)
            if not address.fast and not address.slow:
                del self._addresses[where]


def _is_to_blame(attempt: RunningAttempt, since: float) -> bool:
    """Whether an attempt that has lasted `SLOW_AFTER` has lost its time at an address where it is since then."""
    return since <= attempt.since + SLOW_AFTER / 2


def site_of(ip: IPv4Address | IPv6Address) -> Hashable:
    """What counts as one place: an IPv4 address, or a /64 of IPv6, of which each customer has one at least."""
    return ip if ip.version == 4 else int(ip) >> 64
