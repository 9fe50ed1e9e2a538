"""Values that are made for every message: frozen for the type checker, cheap at run time.

A frozen dataclass pays five times for being made, since each of its fields is set in spite of the lock; with twenty
values a message that was a sixth of all that a message cost. `@value` makes the same dataclass, with slots, equality
and hash, without the lock: who assigns to a field is stopped by mypy, and by nothing else. Everything that is made
seldom, or shared and kept, stays `@dataclass(frozen=True, slots=True)`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TypeVar, dataclass_transform

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, field_specifiers=(field,))
def value(cls: type[_T]) -> type[_T]:
    """A dataclass that is to be treated as frozen."""
    return dataclass(slots=True, unsafe_hash=True)(cls)
