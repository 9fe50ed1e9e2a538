"""Sessions as they happen, added up in memory: an `Emit` that waits for nothing.

`take` hands over what was counted since the last time. A day is the UTC day in which the handshake ended.
"""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Final, TypeAlias

from mailrider.model.ip import is_global
from mailrider.model.outcome import Failed
from mailrider.model.queue_event import RecipientDone
from mailrider.model.tls_session import TLSHostRefused, TLSSessionSeen
from mailrider.policy.sts.events import PolicyFetchFailed
from mailrider.tlsrpt.findings import fetch_findings, refusal_findings, session_findings
from mailrider.tlsrpt.report import DayCounts

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import date

    from mailrider.clock import Clock
    from mailrider.model.event import Emit, Event
    from mailrider.tlsrpt.report import SessionFinding

MAX_DOMAINS: Final = 50_000  # of one day; sessions of further ones are in no report
_HEARD: Final = (TLSSessionSeen, TLSHostRefused, PolicyFetchFailed, RecipientDone)

Counts: TypeAlias = "dict[tuple[date, str], DayCounts]"


class Recorder:
    """Adds up what sessions showed, in memory."""

    def __init__(
        self, clock: Clock, contact: str = "", own_addresses: Sequence[IPv4Address | IPv6Address] = ()
    ) -> None:
        """`contact`: the sender of our reports. `own_addresses`: those that others see us at, behind a NAT."""
        self._clock = clock
        self._contact = contact
        self._refused: set[str] = set()
        self._public = _PublicAddress(own_addresses)
        self._counts: Counts = {}

    def listener_for(self, kind: type[Event]) -> Emit | None:
        """See `observe.metrics.fan_out`."""
        return self if issubclass(kind, _HEARD) else None

    def __call__(self, event: Event) -> None:
        match event:
            case TLSSessionSeen():
                local = self._public.of(event.local_address)
                seen = event if local == event.local_address else replace(event, local_address=local)
                self._add(event.policies.domain, session_findings(seen))
            case TLSHostRefused():
                self._add(event.policies.domain, refusal_findings(event))
            case PolicyFetchFailed():
                domain = event.domain.ascii
                self._add(domain, fetch_findings(domain, event.held, event.reason))
            case RecipientDone(sender=self._contact, given_up=False, operator="", outcome=Failed() as outcome):
                if self._contact and len(self._refused) < MAX_DOMAINS:
                    self._refused.add(str(outcome.recipient.mailbox))
            case _:
                pass

    def _add(self, domain: str, findings: tuple[SessionFinding, ...]) -> None:
        if not findings:
            return
        key = (self._clock.now().date(), domain)
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= MAX_DOMAINS:
                return
            counts = self._counts[key] = DayCounts()
        counts.add(findings)

    def take(self) -> Counts:
        """What was counted since the last call."""
        counts, self._counts = self._counts, {}
        return counts

    def take_refused(self) -> set[str]:
        """The addresses that refused one of our reports since the last call."""
        refused, self._refused = self._refused, set()
        return refused

    def give_back(self, counts: Counts) -> None:
        """What was taken, and could not be kept elsewhere."""
        for key, each in counts.items():
            mine = self._counts.get(key)
            if mine is not None:
                mine.merge(each)
            elif len(self._counts) < MAX_DOMAINS:
                self._counts[key] = each


class _PublicAddress:
    """The address that others see behind one of ours; empty where nobody told us."""

    def __init__(self, own_addresses: Sequence[IPv4Address | IPv6Address]) -> None:
        self._told = {each.version: str(each) for each in reversed(own_addresses)}
        self._known: dict[str, str] = {}

    def of(self, local: str) -> str:
        known = self._known.get(local)
        if known is None:
            known = self._known[local] = self._find(local)
        return known

    def _find(self, local: str) -> str:
        try:
            address = ip_address(local.partition("%")[0])
        except ValueError:
            return ""
        return str(address) if is_global(address) else self._told.get(address.version, "")
