"""Whether DNS works at all: where it does not, one line says so, and not only one for each message that waits.

A domain's own DNS may be broken, or two of them. When names of several domains could not be looked up and none could
meanwhile, it is the resolver, or the way to it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mailrider.dns.answer import LookupFailure
from mailrider.model.event import DNSAvailable, DNSUnavailable

if TYPE_CHECKING:
    from mailrider.dns.wire import FailedReply
    from mailrider.model.domain import Domain
    from mailrider.model.event import Emit

MANY: Final = 5  # domains in a row
_ABOUT_SERVERS: Final = frozenset(
    {LookupFailure.SERVFAIL, LookupFailure.REFUSED, LookupFailure.TIMEOUT, LookupFailure.NO_RESOLVER}
)


class Outage:
    """Is told how lookups end, and tells when nothing can be looked up any more, and when it can again."""

    def __init__(self, emit: Emit) -> None:
        self._emit = emit
        self._failed: set[str] = set()
        self._is_told = False

    def failed(self, name: Domain, reply: FailedReply) -> None:
        """A lookup told nothing."""
        if self._is_told or reply.failure not in _ABOUT_SERVERS:
            return
        self._failed.add(".".join(name.ascii.split(".")[-2:]))
        if len(self._failed) >= MANY:
            self._is_told = True
            detail = f" ({reply.detail})" if reply.detail else ""
            self._emit(DNSUnavailable(f"names of {MANY} domains in a row: {reply.failure}{detail}"))

    def answered(self) -> None:
        """A lookup told something."""
        self._failed.clear()
        if self._is_told:
            self._is_told = False
            self._emit(DNSAvailable())
