"""The MTA-STS cache: what is kept of a fetched policy, how long it holds, and where it is kept (RFC 8461 3.3, 5.1).

A `CachedPolicy` holds for its max_age from the last successful HTTPS fetch. Its stamps are wall-clock time, because
they outlive the process; wall clocks can be wrong, so `age_at` never takes a stamp from the future at its word: such an
entry ages from the moment when somebody first noticed it, until the clock has passed the stamp.

An entry as a file is the policy in its plain form, and behind it the lines that were fetched, as JSON strings in fields
`line:` of their own. A reader that does not know them passes over them as over any field (RFC 8461 3.2), so versions
before and after read each other's files.

A `PolicyStore` keeps entries in memory, an `FSStore` (`policy.sts.files`) in files. No store ever raises for what it
holds or cannot hold; it drops, keeps in memory, and emits a `CacheFault`.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MAX_LINES, MAX_POLICY_SIZE, MalformedPolicy, STSMode, STSPolicy, parse_policy
from mailrider.mtasts.record import STSRecord
from mailrider.policy.holding_map import NOT_HELD, HoldingMap

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.clock import Clock

SKEW = timedelta(minutes=5)  # stamps this far ahead are what clocks that are set now and then give
# Octets of an encoded entry: a header of at most 600, the policy, whose U-labels are up to 2.7 times as long now, and
# the lines, of which each octet is at most three in JSON.
MAX_ENTRY = 3 * MAX_POLICY_SIZE + 1024 + MAX_LINES * 800
MAX_MEMORY = 64 * 1024 * 1024  # octets of policies kept in memory: 80,000 of the usual size, 60 of the largest

_NEVER = datetime(9000, 1, 1, tzinfo=UTC)  # no stamp is that late, and sums with it do not overflow
_ENTRY = re.compile(
    r"mailrider mta-sts 1\nsha256: (?P<sha256>[0-9a-f]{64})\n"
    r"(?P<rest>domain: (?P<domain>\S+)\nid: (?P<id>\S+)\nfetched: (?P<fetched>\S+)\n"
    r"(?:noticed: (?P<noticed>\S+)\n)?\n(?P<policy>.*))",
    re.DOTALL,
)
_LINE = re.compile(r'^line: (".*")$', re.MULTILINE)  # a JSON string


@dataclass(frozen=True, slots=True)
class CachedPolicy:
    """A policy as it was fetched. `id` is the one that announced it.

    `fetched`: when it came over HTTPS. `noticed`: when `fetched` was first seen to lie in the future, if it was.
    Both aware, UTC.
    """

    domain: Domain
    policy: STSPolicy
    id: str
    fetched: datetime
    noticed: datetime | None = None

    def __post_init__(self) -> None:
        STSRecord(self.id)
        for stamp in (self.fetched, self.noticed):
            if stamp is not None and (stamp.utcoffset() != timedelta(0) or stamp >= _NEVER):
                raise InvalidValue(f"not a time in UTC that a clock could show: {stamp}")

    @property
    def weight(self) -> int:
        """About how many octets it takes in memory."""
        return 512 + 256 * len(self.policy.mx) + sum(64 + len(line) for line in self.policy.lines)


def is_from_future(entry: CachedPolicy, now: datetime) -> bool:
    """True if the entry claims to have been fetched later than now."""
    return entry.fetched - now > SKEW


def age_at(entry: CachedPolicy, now: datetime) -> timedelta:
    """How old the entry is, by the wall clock; never negative."""
    since = entry.fetched
    if is_from_future(entry, now):
        since = entry.noticed or now
    return max(now - since, timedelta(0))


def encode_entry(entry: CachedPolicy) -> bytes:
    """The entry as a file; `decode_entry` gives the same value back."""
    noticed = f"noticed: {entry.noticed.isoformat()}\n" if entry.noticed else ""
    rest = f"domain: {entry.domain}\nid: {entry.id}\nfetched: {entry.fetched.isoformat()}\n{noticed}\n".encode("ascii")
    rest += entry.policy.encode()
    rest += "".join(f"line: {json.dumps(line)}\n" for line in entry.policy.lines).encode("ascii")
    return f"mailrider mta-sts 1\nsha256: {hashlib.sha256(rest).hexdigest()}\n".encode("ascii") + rest


def decode_entry(data: bytes) -> CachedPolicy:
    """The entry in a file. Raises `InvalidValue` if it is damaged; the checksum finds accidents, not forgeries."""
    if len(data) > MAX_ENTRY:
        raise InvalidValue(f"larger than {MAX_ENTRY} octets")
    match = _ENTRY.fullmatch(data.decode("ascii", "replace"))
    if not match:
        raise InvalidValue("not a cached policy")
    if hashlib.sha256(match["rest"].encode()).hexdigest() != match["sha256"]:
        raise InvalidValue("the checksum is wrong")
    try:
        stamps = [datetime.fromisoformat(match[name]) for name in ("fetched", "noticed") if match[name]]
        policy = parse_policy(match["policy"].encode("ascii"), max_size=MAX_ENTRY)
        policy = replace(policy, lines=_lines_of(match["policy"]))
        return CachedPolicy(Domain.parse(match["domain"]), policy, match["id"], *stamps)
    except (ValueError, MalformedPolicy) as error:
        raise InvalidValue(str(error)) from error


def _lines_of(text: str) -> tuple[str, ...]:
    """The lines as they were fetched; none in a file of a version that did not keep them. Raises `ValueError`."""
    lines = [json.loads(found) for found in _LINE.findall(text)]
    return tuple(lines[:MAX_LINES])


class PolicyStore:
    """Keeps entries by domain, expired ones too: whether an entry holds is for the engine to say. This one does so in
    memory, and they end with the process."""

    def __init__(self, clock: Clock, capacity: int = MAX_MEMORY) -> None:
        # No newcomer takes the place of a policy in force.
        self._entries: HoldingMap[CachedPolicy] = HoldingMap(capacity, lambda: clock.now().timestamp())

    async def load(self, domain: Domain) -> CachedPolicy | None:
        """The latest entry of the domain."""
        return self._entries.get(domain)

    async def save(self, entry: CachedPolicy) -> None:
        """Keep the entry in place of the domain's last one."""
        demands = entry.policy.mode is not STSMode.NONE
        until = (entry.fetched + entry.policy.max_age).timestamp() if demands else NOT_HELD
        self._entries.put(entry.domain, entry, entry.weight, until)

    async def discard(self, entry: CachedPolicy) -> None:
        """Forget exactly this entry; one that has taken its place stays."""
        if self._entries.get(entry.domain) == entry:
            self._entries.pop(entry.domain)

    async def domains(self) -> Sequence[Domain]:
        """All domains that have an entry."""
        return self._entries.keys()
