"""A resolver that answers from a table: for tests, ours and our users'.

    resolver = FakeResolver(
        {
            ("example.org", "MX"): [mx(10, "mx.example.org"), mx(20, "backup.example.net")],
            ("mx.example.org", "A"): IPv4Address("192.0.2.1"),
            ("www.example.org", "CNAME"): Domain("example.org"),
            ("broken.example", "MX"): LookupFailure.SERVFAIL,
            ("slow.example", "MX"): Given([mx(10, "mx.example.org")], delay=30),
        },
        signed=["example.org"],
    )

Names are lower case without a trailing dot. What stands in no row is NXDOMAIN, or NODATA if the name, or one below
it, has another row. Names at and below those in `signed` are answered authentically, denials included; a `TableRow`
can say otherwise. CNAMEs are followed, and an answer is authentic if all its links are. The table may be changed
at any time. `lookups` lists what was asked for, in order; nothing is cached unless `caching` is set.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mailrider.clock import SystemClock
from mailrider.dns.answer import MAX_CNAMES, Answer, LookupFailed, LookupFailure, MXRecord, Record, RecordType
from mailrider.dns.cache import AnswerCache
from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from typing import Self

    from mailrider.clock import Clock

CACHE_SIZE = 1000  # answers; a test has a handful


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table, with all that can be said of it.

    `records` empty is NODATA. `authentic` None: as `signed` says of the name. `ttl` and `delay` are in seconds;
    the delay comes before the answer or failure.
    """

    records: Sequence[Record] = ()
    authentic: bool | None = None
    failure: LookupFailure | None = None
    ttl: float = 300.0
    delay: float = 0.0


Row = TableRow | LookupFailure | Record | Sequence[Record]


def mx(preference: int, target: str) -> MXRecord:
    """An MX record as it comes from DNS: `.` and targets that are no host names have no `host`."""
    try:
        return MXRecord(preference, Domain.parse(target), target)
    except InvalidValue:
        return MXRecord(preference, None, target)


class FakeResolver:
    """A `Resolver` over a table."""

    def __init__(
        self,
        answers: Mapping[tuple[str, str], Row] | None = None,
        *,
        signed: Iterable[str] = (),
        validates: bool = True,
        caching: bool = False,
        clock: Clock | None = None,
    ) -> None:
        self.answers: dict[tuple[str, str], Row] = dict(answers or {})
        self.signed = set(signed)
        self.validates = validates
        self.changes = 0
        self.lookups: list[tuple[Domain, RecordType]] = []
        self._clock = clock or SystemClock()
        self._cache = AnswerCache(CACHE_SIZE if caching else 0, self._clock)

    @property
    def dnssec_off(self) -> str:
        """Why DNSSEC and DANE are off; empty if they are on."""
        return "" if self.validates else "DNSSEC and DANE are off: the resolver is not on loopback"

    @property
    def validated_by(self) -> str:
        """Who validates; empty if nobody does."""
        return "validated by 127.0.0.1:53" if self.validates else ""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        return None

    def cached(self, name: Domain, record_type: RecordType) -> Answer[Any] | None:
        """What was looked up before, if `caching` and still fresh."""
        return self._cache.get(name, record_type)

    def asked(self, name: str, record_type: str) -> int:
        """How often that was looked up."""
        return self.lookups.count((Domain.parse(name), RecordType(record_type)))

    async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
        """What the table says; raises `LookupFailed` where it says so, and for CNAMEs that do not end."""
        kept = None if fresh else self.cached(name, record_type)
        if kept is not None:
            return kept
        self.lookups.append((name, record_type))
        links = [name]
        rows: list[TableRow] = []
        while True:
            cname = self._row(links[-1], RecordType.CNAME)
            row = self._row(links[-1], record_type)
            follow = row is None and cname is not None
            given = (cname if follow else row) or TableRow(ttl=0.0)
            await self._take(given, name, record_type)
            rows.append(given)
            if not follow:
                return self._answer(links, rows, record_type)
            links.append(self._next_link(links, given, record_type))

    async def _take(self, given: TableRow, name: Domain, record_type: RecordType) -> None:
        if given.delay:
            await self._clock.sleep(given.delay)
        if given.failure is not None:
            raise LookupFailed(name, record_type, given.failure)

    def _next_link(self, links: list[Domain], given: TableRow, record_type: RecordType) -> Domain:
        (target,) = given.records
        if not isinstance(target, Domain):
            raise InvalidValue(f"a CNAME row is one Domain: {target!r}")
        if target in links:
            raise LookupFailed(links[0], record_type, LookupFailure.CNAME_LOOP)
        if len(links) > MAX_CNAMES:
            raise LookupFailed(links[0], record_type, LookupFailure.CNAME_CHAIN)
        return target

    def _answer(self, links: list[Domain], rows: list[TableRow], record_type: RecordType) -> Answer[Any]:
        authentic = (self._is_authentic(name, given) for name, given in zip(links, rows, strict=True))
        last = links[-1].ascii
        answer: Answer[Any] = Answer(
            name=links[0],
            records=tuple(rows[-1].records),
            authentic=self.validates and all(authentic),
            expires=self._clock.monotonic() + min(given.ttl for given in rows),
            exists=any(row == last or row.endswith(f".{last}") for row, _ in self.answers),
            canonical=links[-1] if len(links) > 1 else None,
            chain=tuple(links[1:-1]),
        )
        self._cache.put(record_type, answer)
        return answer

    def _row(self, name: Domain, record_type: RecordType) -> TableRow | None:
        row = self.answers.get((name.ascii, record_type.value))
        match row:
            case None | TableRow():
                return row
            case LookupFailure():
                return TableRow(failure=row)
            case list() | tuple():
                return TableRow(row)
            case _:
                return TableRow([row])  # type: ignore[list-item] # a record

    def _is_authentic(self, name: Domain, given: TableRow) -> bool:
        if given.authentic is not None:
            return given.authentic
        labels = name.ascii.split(".")
        return any(".".join(labels[start:]) in self.signed for start in range(len(labels)))
