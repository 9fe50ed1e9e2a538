"""A resolver that asks servers and validates nothing, as `validate no` makes one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mailrider.dns.caching import CachingResolver
from mailrider.dns.stub import NameServers

if TYPE_CHECKING:
    from mailrider.clock import Clock
    from mailrider.dns.servers import ServerChoice


def asking(choice: ServerChoice, *, clock: Clock, cache_size: int = 10_000, **how: Any) -> CachingResolver:
    """`how` are further arguments of `NameServers`."""
    return CachingResolver(NameServers(choice, clock=clock, **how), clock, cache_size=cache_size)
