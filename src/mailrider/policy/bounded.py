"""A mapping that cannot outgrow its bound: what was not used for longest goes first."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Hashable

K = TypeVar("K", bound="Hashable")
V = TypeVar("V")


class BoundedMap(Generic[K, V]):
    """A mapping of values with weights, whose sum never exceeds `capacity`; a value too heavy alone is not kept."""

    def __init__(self, capacity: int) -> None:
        self._capacity = capacity
        self._items: OrderedDict[K, tuple[V, int]] = OrderedDict()
        self._weight = 0

    def __len__(self) -> int:
        return len(self._items)

    @property
    def weight(self) -> int:
        """The sum of all weights."""
        return self._weight

    def keys(self) -> list[K]:
        """A copy of the keys, least recently used first."""
        return list(self._items)

    def values(self) -> list[V]:
        """A copy of the values, in the same order."""
        return [value for value, _ in self._items.values()]

    def get(self, key: K) -> V | None:
        """The value, which thereby counts as used."""
        item = self._items.get(key)
        if item is None:
            return None
        self._items.move_to_end(key)
        return item[0]

    def put(self, key: K, value: V, weight: int) -> None:
        """Keep the value in place of an older one; makes room where needed."""
        self.pop(key)
        self._items[key] = (value, weight)
        self._weight += weight
        while self._weight > self._capacity:
            _, (_, lightened) = self._items.popitem(last=False)
            self._weight -= lightened

    def pop(self, key: K) -> V | None:
        """Forget the key; returns what it had."""
        item = self._items.pop(key, None)
        if item is None:
            return None
        self._weight -= item[1]
        return item[0]
