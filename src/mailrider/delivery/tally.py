"""What an attempt knows of each recipient, and what that adds up to. Pure.

Candidates that never decided a recipient leave *endings*. When none is left, the endings decide: deferred if any was
temporary, else failed; the reply is the most telling one, a server's own words before ours about the network.
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

MAX_TRANSIENT_CANDIDATES = 2  # that see a 4xx in one attempt: a grey-listing farm must not see us ten times

NOTHING_WORKED = Reply.make(451, "4.4.1", "No mail server of the recipient's domain could be used")


class Telling(enum.IntEnum):
    """How much an ending says about why mail does not flow; the highest is shown.

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
class Ending:
    """How a candidate's address, or the candidate, ended without deciding.

    `reply` is what the recipients get if it is shown; its class says whether the cause is temporary. `if_all` is what
    they get if every ending is of that kind: a 521 greeting (RFC 7504) is permanent only if all say so. `requiretls`:
    the candidate is refused only because the message demands more than it has (RFC 8689).
    """

    telling: Telling
    stage: TryResult
    reply: Reply
    mx: str
    address: str | None = None
    security: Security = NO_SECURITY
    if_all: Reply | None = None
    requiretls: bool = False


@dataclass(slots=True)
class _Line:
    recipient: Recipient
    tries: list[Try] = field(default_factory=list)
    endings: list[Ending] = field(default_factory=list)
    transient: int = 0
    outcome: Outcome | None = None


class Ledger:
    """The recipients of one next hop during one attempt. `own` is what the message itself demands (REQUIRETLS)."""

    def __init__(self, recipients: Sequence[Recipient], own: Requirement = NO_REQUIREMENT) -> None:
        self._lines = [_Line(recipient) for recipient in recipients]
        self._own = own

    @property
    def pending(self) -> list[int]:
        """The recipients without an outcome."""
        return [index for index, line in enumerate(self._lines) if line.outcome is None]

    def recipient(self, index: int) -> Recipient:
        """The recipient of that line."""
        return self._lines[index].recipient

    def end(self, ending: Ending, only: Iterable[int] | None = None) -> None:
        """A candidate or address ended without deciding the pending recipients, or those in `only`."""
        attempt = Try(ending.mx, ending.address, ending.stage, ending.reply, ending.security)
        for index in self.pending if only is None else only:
            self._lines[index].tries.append(attempt)
            self._lines[index].endings.append(ending)

    def note(self, attempt: Try) -> None:
        """Something worth reporting that ended nothing, such as a fallback."""
        for index in self.pending:
            self._lines[index].tries.append(attempt)

    def defer_transient(self, index: int, ending: Ending) -> None:
        """A candidate answered 4xx for this recipient; the second one to do so decides."""
        self.end(ending, (index,))
        line = self._lines[index]
        line.transient += 1
        if line.transient >= MAX_TRANSIENT_CANDIDATES:
            line.outcome = self._conclude(line)

    def decide(
        self,
        index: int,
        stage: TryResult,
        reply: Reply,
        mx: str,
        address: str | None,
        security: Security,
        dsn: bool = False,
    ) -> None:
        """A server's reply decides this recipient. `dsn`: the server was told which notifications are wanted."""
        line, is_delivered = self._lines[index], reply.is_positive
        result = TryResult.DELIVERED if is_delivered else stage
        line.tries.append(Try(mx, address, result, reply, security))
        tries = tuple(line.tries)
        if is_delivered:
            line.outcome = Delivered(line.recipient, reply, mx, address, security, tries, dsn)
        else:
            line.outcome = outcome_for(line.recipient, reply, mx=mx, address=address, security=security, tries=tries)

    def doubt(self, index: int, ending: Ending) -> None:
        """The connection was lost behind the final dot: the server may have the message."""
        self.end(ending, (index,))
        line = self._lines[index]
        line.outcome = Deferred(
            line.recipient, ending.reply, ending.mx, ending.address, ending.security, tuple(line.tries), in_doubt=True
        )

    @property
    def has_decided(self) -> bool:
        """True if any recipient has an outcome."""
        return any(line.outcome is not None for line in self._lines)

    def defer_pending(self, reply: Reply, again_at: datetime | None = None) -> None:
        """Everything undecided is deferred with one reply: the attempt itself could not go on.

        `again_at`: it counts as no try, and may be tried again from then on.
        """
        for index in self.pending:
            line = self._lines[index]
            line.outcome = Deferred(line.recipient, reply, tries=tuple(line.tries), eligible_at=again_at)

    def hold_back_pending(self, reply: Reply, until: datetime) -> None:
        """Everything undecided has to come again, and it is no failed attempt."""
        for index in self.pending:
            line = self._lines[index]
            line.outcome = Deferred(line.recipient, reply, tries=tuple(line.tries), eligible_at=until)

    def refuse_pending(self, reply: Reply) -> None:
        """Everything undecided gets the outcome that the reply means."""
        for index in self.pending:
            line = self._lines[index]
            line.outcome = outcome_for(line.recipient, reply, tries=tuple(line.tries))

    def conclude(self) -> tuple[Outcome, ...]:
        """The outcomes; what is still undecided follows from its endings."""
        return tuple(line.outcome or self._conclude(line) for line in self._lines)

    def _conclude(self, line: _Line) -> Outcome:
        shown = decisive_ending(line.endings, self._own)
        if shown is None:
            return Deferred(line.recipient, NOTHING_WORKED, tries=tuple(line.tries))
        return outcome_for(
            line.recipient,
            shown.reply,
            mx=shown.mx,
            address=shown.address,
            security=shown.security,
            tries=tuple(line.tries),
        )


def decisive_ending(endings: Sequence[Ending], own: Requirement = NO_REQUIREMENT) -> Ending | None:
    """The ending that decides a recipient which no candidate decided; None if there are none.

    Temporary ones outrank permanent ones; among equals the most telling, and of these the last. A message that demands
    levels of its `own` hears of them (451 4.7.0), unless a server that reached them had its say.
    """
    if not endings:
        return None
    if endings[-1].if_all is not None and all(ending.if_all is not None for ending in endings):
        return replace(endings[-1], reply=endings[-1].if_all)
    temporary = [ending for ending in endings if ending.reply.is_transient]
    unqualified = [ending for ending in endings if ending.requiretls]
    if unqualified and not temporary:
        # RFC 8689 5: "REQUIRETLS support required" only where nothing else was missing.
        return min(unqualified, key=lambda ending: str(ending.reply.enhanced))
    shown = max(reversed(temporary or endings), key=lambda ending: ending.telling)
    has_levels = own.demands_tls and shown.security.satisfies(own)
    # Where all that can be said is a server's own temporary words, they are said; beside a refusal they are not enough.
    is_about_levels = bool(unqualified) or (own.demands_tls and shown.telling < Telling.SERVER)
    if is_about_levels and not has_levels and shown.reply.is_transient:
        text = f"REQUIRETLS cannot be satisfied at the moment: {shown.reply.text}"
        return replace(shown, reply=Reply.make(451, "4.7.0", text))
    return shown
