"""A mapping that cannot outgrow its bound, and in which no stranger's value takes the place of one that is held.

Whoever can make us remember much must not make us forget what protects others: a policy that is pushed out is a
downgrade. So a value may be *held* until a moment, and until then it gives way to nothing. A value that is not held, or
not any more, goes when room is needed, the one that was not used for longest first.

What always holds:

- the sum of all weights never exceeds `capacity`;
- a value is held only if it is not heavier than `MAX_HELD`, its owner holds no more than its share with it, and there
  is room for all that is held. If not, it is kept as one that is not held, while there is room;
- an owner's values share: what somebody with a thousand names keeps here takes nothing from anybody else.
"""

from __future__ import annotations

import heapq
from collections import Counter, OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Generic, TypeVar

from mailrider.model.domain import Domain, owner_of

if TYPE_CHECKING:
    from collections.abc import Callable


V = TypeVar("V")

SHARES = 64  # an owner may hold one of so many parts: who wants to fill it all must own as many domains
MAX_HELD = 64 * 1024  # of a value, in octets: a policy of 250 mx lines; the usual one has 1 to 5

NOT_HELD = float("-inf")


@dataclass(slots=True)
class _Item(Generic[V]):
    value: V
    weight: int
    until: float  # held until then; `NOT_HELD`


class HoldingMap(Generic[V]):
    """A mapping from domains to values with weights. `now` reads the clock that `until` is meant by."""

    def __init__(self, capacity: int, now: Callable[[], float]) -> None:
        self._capacity = capacity
        self._now = now
        self._items: dict[Domain, _Item[V]] = {}
        self._loose: OrderedDict[Domain, None] = OrderedDict()  # those that are not held, least recently used first
        self._ends: list[tuple[float, Domain]] = []  # a heap of when holding ends; entries of replaced items too
        self._held: Counter[str] = Counter()  # weight by owner
        self._held_weight = 0
        self._weight = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def weight(self) -> int:
        """The sum of all weights."""
        return self._weight

    def keys(self) -> list[Domain]:
        """A copy of the keys."""
        return list(self._items)

    def values(self) -> list[V]:
        """A copy of the values, in the same order."""
        return [item.value for item in self._items.values()]

    def get(self, key: Domain) -> V | None:
        """The value, which thereby counts as used."""
        item = self._items.get(key)
        if item is None:
            return None
        if item.until == NOT_HELD:
            self._loose.move_to_end(key)
        return item.value

    def put(self, key: Domain, value: V, weight: int, until: float = NOT_HELD) -> None:
        """Keep the value in place of an older one, held `until` then if it may be; makes room where needed."""
        self.pop(key)
        self._release_ended()
        may_hold = until > self._now() and self._may_hold(owner_of(key), weight)
        item = self._items[key] = _Item(value, weight, until if may_hold else NOT_HELD)
        self._weight += weight
        if may_hold:
            self._hold(key, item)
        else:
            self._loose[key] = None
        while self._weight > self._capacity:  # ends: what is held alone is never too much
            self.pop(next(iter(self._loose)))

    def pop(self, key: Domain) -> V | None:
        """Forget the key; returns what it had."""
        item = self._items.pop(key, None)
        if item is None:
            return None
        self._weight -= item.weight
        if item.until == NOT_HELD:
            del self._loose[key]
        else:
            self._let_go(key, item)
        return item.value

    def _may_hold(self, owner: str, weight: int) -> bool:
        return (
            weight <= MAX_HELD
            and self._held[owner] + weight <= self._capacity // SHARES
            and self._held_weight + weight <= self._capacity
        )

    def _hold(self, key: Domain, item: _Item[V]) -> None:
        self._held[owner_of(key)] += item.weight
        self._held_weight += item.weight
        heapq.heappush(self._ends, (item.until, key))
        if len(self._ends) > 2 * len(self._items) + 64:
            self._ends = [(item.until, key) for key, item in self._items.items() if item.until != NOT_HELD]
            heapq.heapify(self._ends)

    def _let_go(self, key: Domain, item: _Item[V]) -> None:
        owner = owner_of(key)
        self._held[owner] -= item.weight
        if not self._held[owner]:
            del self._held[owner]
        self._held_weight -= item.weight

    def _release_ended(self) -> None:
        """What is not held any more may go, before anything that was used later."""
        now = self._now()
        while self._ends and self._ends[0][0] <= now:
            until, key = heapq.heappop(self._ends)
            item = self._items.get(key)
            if item is not None and item.until == until:
                self._let_go(key, item)
                item.until = NOT_HELD
                self._loose[key] = None
                self._loose.move_to_end(key, last=False)
