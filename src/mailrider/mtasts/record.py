"""The TXT record that announces an MTA-STS policy (RFC 8461 3.1).

`v=STSv1; id=20260131T120000;` at `_mta-sts.<domain>` says that a policy exists and which instance of it. The record is
not authenticated, so it only ever tells us *when to fetch*: it never holds a policy, renews one, or takes one away.

Exactly one record that begins with `v=STSv1;` must be there; whatever else stands at the name is somebody else's
business. `find_record` returns the record, or a `NoRecord` that says why there is none; it never raises for what the
zone's owner wrote.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain

if TYPE_CHECKING:
    from collections.abc import Sequence

MAX_RECORD = 1024  # octets; RFC 8461 names no bound, version and id need 43, the rest is room for extensions

_PREFIX = b"v=STSv1;"
_ID = re.compile(r"[A-Za-z0-9]{1,32}")
_DELIMITER = re.compile(r"[ \t]*;[ \t]*")
# sts-ext-name "=" sts-ext-value; an id is one of these too, until its value is looked at.
_FIELD = re.compile(r"([A-Za-z0-9][A-Za-z0-9_.-]{0,31})=([!-:<>-~]*)")


@dataclass(frozen=True, slots=True)
class STSRecord:
    """The announcement. `id` names one instance of the policy; two ids are only ever compared for equality."""

    id: str

    def __post_init__(self) -> None:
        if not _ID.fullmatch(self.id):
            raise InvalidValue(f"an MTA-STS id is 1 to 32 letters and digits, not {self.id[:100]!r}")

    def __str__(self) -> str:
        return f"v=STSv1; id={self.id};"


@dataclass(frozen=True, slots=True)
class NoRecord:
    """The domain announces no policy. `malformed`: somebody tried to, and got it wrong."""

    reason: str
    malformed: bool = False


@lru_cache(maxsize=16384)
def record_name(domain: Domain) -> Domain:
    """Where the record stands; `InvalidValue` if that name would be too long to exist."""
    return Domain(f"_mta-sts.{domain.ascii}")


def find_record(texts: Sequence[bytes]) -> STSRecord | NoRecord:
    """The announcement among the TXT records at `record_name`, the strings of each joined without spaces."""
    # RFC 8461 3.1: records that do not begin with "v=STSv1;" are discarded; then exactly one must be left.
    announcements = [text for text in texts if text.startswith(_PREFIX)]
    if not announcements:
        return NoRecord("no TXT record begins with v=STSv1;")
    if len(announcements) > 1:
        return NoRecord(f"{len(announcements)} TXT records begin with v=STSv1;, one is allowed", malformed=True)
    return _parse_record(announcements[0])


def _parse_record(text: bytes) -> STSRecord | NoRecord:
    if len(text) > MAX_RECORD:
        return NoRecord(f"the record is longer than {MAX_RECORD} octets", malformed=True)
    if not text.isascii():
        return NoRecord("the record is not ASCII", malformed=True)
    fields = _DELIMITER.split(text.decode("ascii"))[1:]
    if fields[-1] == "":  # a delimiter may end the record
        fields.pop()
    ids: list[str] = []
    for field in fields:
        match = _FIELD.fullmatch(field)
        if not match:
            return NoRecord(f"not a name=value field: {field[:100]!r}", malformed=True)
        if match[1] == "id":
            ids.append(match[2])
        elif not match[2]:
            return NoRecord(f"the field {match[1]} is empty", malformed=True)
    if not ids:
        return NoRecord("the record has no id", malformed=True)
    # RFC 8461 3.2: of a field that stands twice, all but the first are ignored.
    if not _ID.fullmatch(ids[0]):
        return NoRecord(f"the id is not 1 to 32 letters and digits: {ids[0][:100]!r}", malformed=True)
    return STSRecord(ids[0])
