"""What an attempt knows of each recipient, and what that adds up to. Pure.

A candidate that does not decide a recipient leaves a *failed try*. When no candidate is left, the failed tries decide:
deferred if one of them was temporary, else failed. The reply is that of the failed try with the most weight: a server's
own words count more than ours about the network.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mailrider.model.outcome import Deferred, Delivered, Outcome, Try, TryResult, outcome_for
from mailrider.model.reply import Reply
from mailrider.model.security import NO_REQUIREMENT, NO_SECURITY, Security

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from datetime import datetime

    from mailrider.model.envelope import Recipient
    from mailrider.model.security import Requirement
    from mailrider.model.transcript import Transcript

MAX_TRANSIENT_CANDIDATES = 2  # that see a 4xx in one attempt: a grey-listing farm must not see us ten times

NOTHING_WORKED = Reply.make(451, "4.4.1", "No mail server of the recipient's domain could be used")


class Weight(enum.IntEnum):
    """How much a failed try says about why mail does not flow; the highest is shown.

    `SERVER`: its words about us or itself (greeting, farewell). `MAIL`: about the message or the recipient.
    """

    LOOKUP = 0
    CONNECT = 1
    CLOSED = 2
    TLS = 3
    POLICY = 4
    SERVER = 5
    MAIL = 6


@dataclass(frozen=True, slots=True)
class FailedTry:
    """How a candidate's address, or the candidate, ended without deciding.

    `reply` is what the recipients get if it is shown; its class says whether the cause is temporary. `if_all` is what
    they get if every failed try is of that kind: a 521 greeting (RFC 7504) is permanent only if all say so.
    `requiretls`: the candidate is refused only because the message demands more than it has (RFC 8689).
    """

    weight: Weight
    stage: TryResult
    reply: Reply
    mx: str
    address: str | None = None
    security: Security = NO_SECURITY
    if_all: Reply | None = None
    requiretls: bool = False
    transcript: Transcript | None = field(default=None, compare=False, repr=False)


@dataclass(slots=True)
class _Entry:
    recipient: Recipient
    tries: list[Try] = field(default_factory=list)
    failed_tries: list[FailedTry] = field(default_factory=list)
    transient: int = 0
    outcome: Outcome | None = None


class Tally:
    """The recipients of one next hop during one attempt. `own` is what the message itself demands (REQUIRETLS)."""

    def __init__(self, recipients: Sequence[Recipient], own: Requirement = NO_REQUIREMENT) -> None:
        self._entries = [_Entry(recipient) for recipient in recipients]
        self._own = own
        self.pending = dict.fromkeys(range(len(recipients)))
        """The recipients without an outcome, in their order."""

    def recipients(self, indices: Iterable[int]) -> list[Recipient]:
        """The recipients of those entries."""
        return [self._entries[index].recipient for index in indices]

    def _settle(self, index: int, outcome: Outcome) -> None:
        self._entries[index].outcome = outcome
        self.pending.pop(index, None)

    def end(self, failed: FailedTry, only: Iterable[int] | None = None) -> None:
        """A candidate or address ended without deciding the pending recipients, or those in `only`."""
        attempt = Try(failed.mx, failed.address, failed.stage, failed.reply, failed.security, failed.transcript)
        for index in self.pending if only is None else only:
            self._entries[index].tries.append(attempt)
            self._entries[index].failed_tries.append(failed)

    def note(self, attempt: Try) -> None:
        """Something worth reporting that ended nothing, such as a fallback."""
        for index in self.pending:
            self._entries[index].tries.append(attempt)

    def defer_transient(self, index: int, failed: FailedTry) -> None:
        """A candidate answered 4xx for this recipient; the second one to do so decides."""
        self.end(failed, (index,))
        entry = self._entries[index]
        entry.transient += 1
        if entry.transient >= MAX_TRANSIENT_CANDIDATES:
            self._settle(index, self._conclude(entry))

    def decide(
        self,
        index: int,
        stage: TryResult,
        reply: Reply,
        mx: str,
        address: str | None,
        security: Security,
        dsn: bool = False,
        transcript: Transcript | None = None,
    ) -> None:
        """A server's reply decides this recipient. `dsn`: the server was told which notifications are wanted."""
        entry, is_delivered = self._entries[index], reply.is_positive
        result = TryResult.DELIVERED if is_delivered else stage
        entry.tries.append(Try(mx, address, result, reply, security, transcript))
        tries = tuple(entry.tries)
        if is_delivered:
            outcome: Outcome = Delivered(entry.recipient, reply, mx, address, security, tries, dsn)
        else:
            outcome = outcome_for(entry.recipient, reply, mx=mx, address=address, security=security, tries=tries)
        self._settle(index, outcome)

    def doubt(self, index: int, failed: FailedTry) -> None:
        """The connection was lost behind the final dot: the server may have the message."""
        self.end(failed, (index,))
        entry = self._entries[index]
        outcome = Deferred(
            entry.recipient, failed.reply, failed.mx, failed.address, failed.security, tuple(entry.tries), in_doubt=True
        )
        self._settle(index, outcome)

    @property
    def has_decided(self) -> bool:
        """True if any recipient has an outcome."""
        return len(self.pending) < len(self._entries)

    def defer_pending(self, reply: Reply, again_at: datetime | None = None) -> None:
        """Everything undecided is deferred with one reply: the attempt itself could not go on.

        `again_at`: it is no failed attempt, and may be tried again from then on.
        """
        for index in list(self.pending):
            entry = self._entries[index]
            self._settle(index, Deferred(entry.recipient, reply, tries=tuple(entry.tries), eligible_at=again_at))

    def refuse_pending(self, reply: Reply) -> None:
        """Everything undecided gets the outcome that the reply means."""
        for index in list(self.pending):
            entry = self._entries[index]
            self._settle(index, outcome_for(entry.recipient, reply, tries=tuple(entry.tries)))

    def conclude(self) -> tuple[Outcome, ...]:
        """The outcomes; what is still undecided follows from its failed tries."""
        return tuple([entry.outcome or self._conclude(entry) for entry in self._entries])

    def _conclude(self, entry: _Entry) -> Outcome:
        shown = decisive_try(entry.failed_tries, self._own)
        if shown is None:
            return Deferred(entry.recipient, NOTHING_WORKED, tries=tuple(entry.tries))
        return outcome_for(
            entry.recipient,
            shown.reply,
            mx=shown.mx,
            address=shown.address,
            security=shown.security,
            tries=tuple(entry.tries),
        )


def decisive_try(failed_tries: Sequence[FailedTry], own: Requirement = NO_REQUIREMENT) -> FailedTry | None:
    """The failed try that decides a recipient which no candidate decided; None if there are none.

    Temporary ones outrank permanent ones; among equals the one with the most weight, and of these the last. A
    message that demands levels of its `own` hears of them (451 4.7.0), unless a server that reached them had its say.
    """
    if not failed_tries:
        return None
    if failed_tries[-1].if_all is not None and all(failed.if_all is not None for failed in failed_tries):
        return replace(failed_tries[-1], reply=failed_tries[-1].if_all)
    temporary = [failed for failed in failed_tries if failed.reply.is_transient]
    unqualified = [failed for failed in failed_tries if failed.requiretls]
    if unqualified and not temporary:
        # RFC 8689 5: "REQUIRETLS support required" only where nothing else was missing.
        return min(unqualified, key=lambda failed: str(failed.reply.enhanced))
    shown = max(reversed(temporary or failed_tries), key=lambda failed: failed.weight)
    has_levels = own.demands_tls and shown.security.satisfies(own)
    # Where all that can be said is a server's own temporary words, they are said; beside a refusal they are not enough.
    is_about_levels = bool(unqualified) or (own.demands_tls and shown.weight < Weight.SERVER)
    if is_about_levels and not has_levels and shown.reply.is_transient:
        text = f"REQUIRETLS cannot be satisfied at the moment: {shown.reply.text}"
        return replace(shown, reply=Reply.make(451, "4.7.0", text))
    return shown
