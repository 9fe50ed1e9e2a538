"""What the workers of a daemon know together of a queue, and how many attempts they make at once.

`WorkerQueueShares` is `queue.shares.QueueShares` for a worker: places for attempts are leased from the supervisor. A
worker keeps its part of them. Beyond that it asks for more when all of its places are taken, and gives them back when
they were not used for `UNUSED`. What it does not use of its part it gives to others that have none free and want them,
but for one place: mail that comes does not wait for others.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final

from mailrider.clock import Alarm
from mailrider.delivery.limits.findings import WHOLE_TOPIC, SharedFinding
from mailrider.delivery.limits.leases import UNUSED, Return
from mailrider.delivery.limits.lines import AskLater, Line
from mailrider.delivery.limits.shares import WAITS_FOR_EVER
from mailrider.delivery.limits.windows import UNKNOWN
from mailrider.queue.shares import ALONE, QueueShares

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from mailrider.clock import Clock
    from mailrider.delivery.limits.lines import Need
    from mailrider.delivery.limits.share_client import Answer, ShareClient
    from mailrider.delivery.limits.shares import Shares
    from mailrider.model.reply import Reply
    from mailrider.queue.shares import DeliveringProcess

LOOK: Final = 0.05  # seconds between two looks whether attempts have ended whose places others want
FRESH: Final = 0.1  # seconds that it may take until an attempt has begun in a place that was just granted


def queue_shares(shares: Shares, clock: Clock, name: str, parallelism: int, members: int = 1) -> QueueShares:
    """What the schedulers of one queue share; so many `members` of them are in this process."""
    if shares.client is None:
        return ALONE if members == 1 else WorkerQueueShares(SingleProcessShares(), clock, name, parallelism)
    return WorkerQueueShares(shares.client, clock, name, parallelism)


class SingleProcessShares:
    """What `ShareClient` is where there are no other workers: what is asked for is there."""

    workers = 1

    def declare(self, line: Line, recalled: Callable[[str, int, int], None]) -> None:
        """Nobody wants anything back."""

    def ask(self, needs: Sequence[Need], answered: Callable[[Answer], None], patience: float, most: int) -> int:
        """Nothing waits, so this ask has no number."""
        del needs, patience
        answered(most)
        return 0

    def withdraw(self, ask: int) -> None:
        """Nothing waits."""

    def give_back(self, returns: Iterable[Return]) -> None:
        """Whoever asks again has them again."""

    def hear(self, topic: str, hearer: Callable[[SharedFinding], None]) -> None:
        """Nobody tells."""

    def known(self, topic: str) -> Sequence[SharedFinding]:
        """Nobody has told."""
        del topic
        return ()

    def tell(self, told: SharedFinding) -> None:
        """Nobody hears."""


class WorkerQueueShares(QueueShares):
    """See `QueueShares`. There may be several members: a worker delivers from shards that were left behind, too."""

    def __init__(self, client: ShareClient | SingleProcessShares, clock: Clock, name: str, parallelism: int) -> None:
        self._client = client
        self._clock = clock
        self._need = (f"attempts {name}", "")
        self._topic = f"queue {name}"
        self._parallelism = parallelism
        self._part = parallelism // client.workers
        self._spare = 1 if self._part > 1 else 0
        self._members: dict[DeliveringProcess, int] = {}  # with their places
        self._poor: dict[DeliveringProcess, None] = {}  # have less than their part, and want it
        self._leaving: list[DeliveringProcess] = []  # begin nothing more, and have attempts that run
        self._places = 0
        self._ask = 0
        self._owed = 0
        self._is_wanting = False  # somebody waits for a place
        self._granted_at = -UNKNOWN
        self._unused_since: float | None = None
        self._alarm = Alarm(clock, self._tick)
        client.declare(Line(self._need[0], parallelism, spares=False), self._recalled)
        client.hear(self._topic, self._hear)

    # Members ----------------------------------------------------------------------------------------------------------

    def join(self, member: DeliveringProcess) -> None:
        """See `QueueShares`."""
        self._members[member] = 0
        member.set_parallelism(0)
        for told in self._client.known(self._topic):
            self._learn(member, told.key, told.until)
        self._ask_for(max(1, self._part) - self._places)
        self._share_out()

    def leave(self, member: DeliveringProcess) -> None:
        """See `QueueShares`. What it runs goes on, so its places are given back when that has ended."""
        if self._members.pop(member, None) is None:
            return
        self._poor.pop(member, None)
        self._leaving.append(member)
        if not self._members:
            self._client.withdraw(self._ask)
            self._ask = 0
            self._owed = self._places
        self._look()

    def wants(self, member: DeliveringProcess) -> None:
        """See `QueueShares`."""
        if member not in self._members:
            return
        if self._places - self._owed <= self._busy:
            self._unused_since, self._is_wanting = None, True
            self._ask_for(max(1, self._part - self._places, self._places))
        else:
            self._share_out(member)
        has_its_part = member.attempts >= (self._places - self._owed) / len(self._members)
        if self._members[member] <= member.attempts and not has_its_part:
            self._poor[member] = None  # others of this worker have its part
            self._look_by(LOOK)
            self._share_out(member)

    @property
    def _busy(self) -> int:
        return sum(member.attempts for member in (*self._members, *self._leaving))

    def _share_out(self, wants: DeliveringProcess | None = None) -> None:
        """Places to members: those that run attempts keep what these need, and the free ones go round.

        Where there are too few, whoever runs most has less than it uses: what ends there leaves a place.
        """
        free = self._places - self._owed - self._busy
        members = sorted(self._members, key=lambda member: (member not in self._poor, member is not wants))
        parts = [max(0, free + number) // len(members) for number in reversed(range(len(members)))]
        for member, part in zip(members, parts, strict=True):
            if part:
                self._poor.pop(member, None)
        lacking = max(0, -free) + len(self._poor)
        for member, part in zip(members, parts, strict=True):
            less = min(lacking, member.attempts) if member not in self._poor else 0
            lacking -= less
            places = member.attempts + part - less
            if places != self._members[member]:
                self._members[member] = places
                member.set_parallelism(places)

    # Places -----------------------------------------------------------------------------------------------------------

    def _ask_for(self, places: int) -> None:
        most = min(places, self._parallelism - self._places)
        if not self._ask and most > 0 and self._members:
            self._ask = self._client.ask([self._need], self._answered, WAITS_FOR_EVER, most)

    def _answered(self, answer: Answer) -> None:
        self._ask = 0
        if isinstance(answer, AskLater):
            self._look_by(answer.seconds)
            return
        self._places += answer
        self._granted_at, self._is_wanting = self._clock.monotonic(), False
        self._share_out()
        self._look()

    def _recalled(self, key: str, keep: int, wanted: int) -> None:
        """Others want so many."""
        fresh_until = self._granted_at + FRESH
        if self._clock.monotonic() < fresh_until:
            self._clock.call_at(fresh_until, partial(self._recalled, key, keep, wanted))
            return
        if not self._members:
            return  # all is owed already
        unused = min(max(0, self._places - max(self._busy, self._spare)), wanted)
        self._owed = max(0, min(wanted - unused, self._places - unused - keep))
        self._give_back(unused)
        self._share_out()
        self._look()

    def _give_back(self, places: int) -> None:
        if places > 0:
            self._places -= places
            self._client.give_back([Return(self._need, places)])
            self._share_out()

    # Time -------------------------------------------------------------------------------------------------------------

    def _look(self) -> None:
        """Give back what others want, or nobody uses; and look again while there is something to wait for."""
        now = self._clock.monotonic()
        self._leaving = [member for member in self._leaving if member.attempts]
        free = self._places - self._busy
        owed = min(self._owed, max(0, free))
        if owed:
            self._owed -= owed
            self._give_back(owed)
            free -= owed
        keep = self._part if self._members else 0
        spare = min(free, self._places - keep)
        if spare <= 0:
            self._unused_since = None
        elif self._unused_since is None:
            self._unused_since = now
        elif now - self._unused_since >= UNUSED:
            self._unused_since = None
            self._give_back(spare)
        if self._is_wanting and free <= 0:
            self._ask_for(max(1, self._part - self._places))
        if self._owed or self._poor:
            self._look_by(LOOK)
        elif self._places > keep:
            self._look_by(UNUSED / 2)

    def _look_by(self, seconds: float) -> None:
        """Look within so many seconds; an earlier wish stays."""
        self._alarm.set(self._clock.monotonic() + seconds)

    def _tick(self) -> None:
        self._share_out()
        self._look()

    # What is known of destinations ------------------------------------------------------------------------------------

    def went_down(self, member: DeliveringProcess, destination: str, seconds: float, reply: Reply) -> None:
        """See `QueueShares`."""
        del reply
        self._tell(member, destination, self._clock.monotonic() + seconds)

    def came_back(self, member: DeliveringProcess, destination: str) -> None:
        """See `QueueShares`."""
        self._tell(member, destination, None)

    def reopened(self, member: DeliveringProcess) -> None:
        """See `QueueShares`. Of the workers that are told so, only those tell others that know of any that is down."""
        if self._client.known(self._topic):
            self._tell(member, WHOLE_TOPIC, None)

    def _tell(self, member: DeliveringProcess, destination: str, until: float | None) -> None:
        self._client.tell(SharedFinding(self._topic, destination, None, until))
        for other in list(self._members):
            if other is not member:
                self._learn(other, destination, until)

    def _hear(self, told: SharedFinding) -> None:
        for member in list(self._members):
            self._learn(member, told.key, told.until)

    def _learn(self, member: DeliveringProcess, destination: str, until: float | None) -> None:
        if destination == WHOLE_TOPIC:
            member.resume_all()
        elif until is None:
            member.resume(destination)
        else:
            member.rest(destination, max(0.0, until - self._clock.monotonic()))
