"""Whether DNS works at all: where it does not, one line says so, and not only one for each message that waits.

A domain's own DNS may be broken, or two of them. When names of several domains could not be looked up and none could
meanwhile, it is the resolver, or the way to it. Domains that failed before while others did not say nothing of it: a
queue tries them for days, at night perhaps nothing else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.dns.answer import LookupFailure
from mailrider.model.bounded_map import BoundedMap
from mailrider.model.event import DNSAvailable, DNSUnavailable

if TYPE_CHECKING:
    from mailrider.dns.wire import FailedReply
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit

MANY: Final = 5  # domains in a row
MAX_BROKEN: Final = 10_000  # domains that are remembered
_ABOUT_SERVERS: Final = frozenset(
    {LookupFailure.SERVFAIL, LookupFailure.REFUSED, LookupFailure.TIMEOUT, LookupFailure.NO_RESOLVER}
)


class Outage:
    """Is told how lookups end, and tells when nothing can be looked up any more, and when it can again."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._failed: set[str] = set()
        self._broken: BoundedMap[str, None] = BoundedMap(MAX_BROKEN)  # by themselves: others could be looked up
        self._is_told = False

    def failed(self, name: Domain, reply: FailedReply) -> None:
        """A lookup told nothing."""
        domain = _domain(name)
        if self._is_told or reply.failure not in _ABOUT_SERVERS or domain in self._broken:
            return
        self._failed.add(domain)
        if len(self._failed) >= MANY:
            self._is_told = True
            detail = f" ({reply.detail})" if reply.detail else ""
            self._emit(DNSUnavailable(f"names of {MANY} domains in a row: {reply.failure}{detail}"))

    def answered(self, name: Domain) -> None:
        """A lookup told something."""
        if self._is_told:
            self._is_told = False
            self._emit(DNSAvailable())
        else:
            for domain in self._failed:
                self._broken[domain] = None
        self._failed.clear()
        self._broken.pop(_domain(name), None)


def _domain(name: Domain) -> str:
    """What stands for all names of one owner."""
    return ".".join(name.ascii.split(".")[-2:])
