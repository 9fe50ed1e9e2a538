"""What an object holds on to: so a test sees that nothing is left over, without a name of where it would be."""

from __future__ import annotations

import gc
from collections import OrderedDict, deque
from typing import Any

CONTAINERS = (list, tuple, dict, set, frozenset, OrderedDict, deque)


def kept(thing: object, kind: type | None = None) -> int:
    """How many containers, texts, and objects of ours and of the tests it leads to; `kind`: only those of that kind."""
    seen: dict[int, Any] = {}
    unseen: list[Any] = [thing]
    while unseen:
        each = unseen.pop()
        if id(each) not in seen and _counts(each):
            seen[id(each)] = each
            unseen += gc.get_referents(each)
    return len(seen) if kind is None else sum(isinstance(each, kind) for each in seen.values())


def _counts(thing: object) -> bool:
    return isinstance(thing, (*CONTAINERS, str)) or type(thing).__module__.startswith(("mailrider.", "tests."))
