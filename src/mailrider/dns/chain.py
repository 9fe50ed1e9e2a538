"""From replies to an answer: CNAMEs followed (RFC 1034 3.6.2), pure.

A `ChainLookup` starts at a name and is fed with replies to questions about `current`, until it is an `Answer` or a
`FailedReply`. A validating resolver hands over the whole chain at once; an authoritative server stops where its
zone ends, and then `current` has to be asked for.

What always holds: the answer is authentic only if every reply that it rests on was; it lives as long as its
shortest-lived part; a chain that turns back on itself or has more than `MAX_CNAMES` links is a failure, never
an absence.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, cast

from mailrider.dns.answer import MAX_CNAMES, Answer, LookupFailure, RecordType
from mailrider.dns.wire import FailedReply

if TYPE_CHECKING:
    from mailrider.dns.answer import Record
    from mailrider.dns.wire import ServerReply
    from mailrider.model.domain import Domain

MAX_TTL = 86400  # seconds: so that a typo in a zone is not believed for years (RFC 8767 4 caps at days too)
MAX_NEGATIVE_TTL = 3600  # seconds: RFC 2308 5 found one to three hours to work well


class ChainLookup:
    """One lookup under way; `current` is the name to ask for next."""

    def __init__(self, name: Domain, record_type: RecordType, *, trusted: bool) -> None:
        self._name = name
        self._type = record_type
        self._links: list[Domain] = []
        self._ttl = MAX_TTL
        self._authentic = trusted

    @property
    def current(self) -> Domain:
        """The last name of the chain so far."""
        return self._links[-1] if self._links else self._name

    def take(self, reply: ServerReply, now: float) -> Answer[Any] | FailedReply | None:
        """The outcome if this reply, which was about `current`, decides it; None if there is more to ask."""
        asked = self.current
        self._authentic = self._authentic and reply.authentic
        while not reply.has(self.current, self._type) and reply.has(self.current, RecordType.CNAME):
            failure = self._follow(reply)
            if failure is not None:
                return failure
        if reply.has(self.current, self._type):
            return self._found(reply, now)
        if reply.exists and self.current != asked and not self._denied(reply):
            return None
        return self._absent(reply, now)

    def _follow(self, reply: ServerReply) -> FailedReply | None:
        targets = reply.records(self.current, RecordType.CNAME)
        if isinstance(targets, FailedReply):
            return targets
        self._ttl = min(self._ttl, reply.ttl(self.current, RecordType.CNAME))
        target = cast("Domain", targets[0])
        if target == self._name or target in self._links:
            return FailedReply(LookupFailure.CNAME_LOOP, f"at {target}")
        if len(self._links) == MAX_CNAMES:
            return FailedReply(LookupFailure.CNAME_CHAIN, f"more than {MAX_CNAMES} links")
        self._links.append(target)
        return None

    def _found(self, reply: ServerReply, now: float) -> Answer[Any] | FailedReply:
        if not reply.exists:
            return FailedReply(LookupFailure.MALFORMED, "a name that does not exist has records")
        records = reply.records(self.current, self._type)
        if isinstance(records, FailedReply):
            return records
        return self._answer(records, now + min(self._ttl, reply.ttl(self.current, self._type)))

    def _denied(self, reply: ServerReply) -> bool:
        """True if the reply speaks for the zone of `current`, and so means that the record is not there."""
        return any(_is_below(self.current.ascii, owner) for owner in reply.denials)

    def _absent(self, reply: ServerReply, now: float) -> Answer[Any]:
        # RFC 2308 5: an absence without an SOA is not to be remembered.
        lifetimes = (ttl for owner, ttl in reply.denials.items() if _is_below(self.current.ascii, owner))
        ttl = min(self._ttl, MAX_NEGATIVE_TTL, min(lifetimes, default=0))
        return self._answer((), now + ttl, exists=reply.exists)

    def _answer(self, records: tuple[Record, ...], expires: float, *, exists: bool = True) -> Answer[Any]:
        return Answer(
            name=self._name,
            records=records,
            authentic=self._authentic,
            expires=expires,
            exists=exists,
            canonical=self._links[-1] if self._links else None,
            chain=tuple(self._links[:-1]),
        )


def _is_below(name: str, ancestor: str) -> bool:
    return ancestor == "." or name == ancestor or name.endswith(f".{ancestor}")
