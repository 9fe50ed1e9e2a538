"""A verdict, and how long it stays the same.

Nothing but the passing of a notBefore or notAfter changes what a chain proves to given anchors and names. So a
verdict holds between the two such moments that are nearest to the time of judgement, and may be kept that long.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from mailrider.model.security import Verdict
    from mailrider.x509.certificate import Certificate

_BEGINNING = datetime.min.replace(tzinfo=UTC)
_END = datetime.max.replace(tzinfo=UTC)
_SECOND = timedelta(seconds=1)


@dataclass(frozen=True, slots=True)
class TimedVerdict:
    """A verdict that is the same at every moment from `since` up to, but not including, `until`."""

    verdict: Verdict
    since: datetime = _BEGINNING
    until: datetime = _END


def timed(verdict: Verdict, certificates: Iterable[Certificate], now: datetime) -> TimedVerdict:
    """The verdict of `now` with its limits, if it rests on these certificates."""
    since, until = _BEGINNING, _END
    for certificate in certificates:
        # RFC 5280 4.1.2.5: valid through notAfter, inclusive; some count its last second in, some do not.
        after = certificate.not_after
        for moment in (certificate.not_before, after, after + _SECOND if after < _END - _SECOND else _END):
            if moment <= now:
                since = max(since, moment)
            else:
                until = min(until, moment)
    return TimedVerdict(verdict, since, until)
