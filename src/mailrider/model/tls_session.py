"""What one connection showed of a domain's TLS, as values: TLS reports (RFC 8460) are counted from these.

`PoliciesSeen` is what was known of the policies when the connection was made; `TLSSessionSeen` is what came of it. Both
hold plain text and `TLSProblem`s, and no judgement: what counts as a success is decided where reports are made.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from mailrider.model.event import DEBUG, Event, EventLevel
from mailrider.model.value import value

if TYPE_CHECKING:
    from mailrider.model.tls_problem import TLSProblem


@value
class STSSeen:
    """The MTA-STS policy of a domain: its `lines` as they were fetched, and `mx` patterns.

    `problem`: why it could not be had; then there are only the lines of what was fetched and is no policy, if any.
    `names_host`: it names the MX host in question.
    """

    lines: tuple[str, ...] = ()
    mx: tuple[str, ...] = ()
    names_host: bool = True
    problem: TLSProblem | None = None


@value
class DANESeen:
    """An authenticated, non-empty TLSA set: where it stands, its records as text, and whether one can be used."""

    base_domain: str
    records: tuple[str, ...]
    is_usable: bool = True


@value
class PoliciesSeen:
    """The policies of a domain and an MX host. `all_asked`: DNS answered for both MTA-STS and DANE."""

    domain: str
    sts: STSSeen | None = None
    dane: DANESeen | None = None
    all_asked: bool = False

    def __str__(self) -> str:
        found = ["sts" if self.sts is not None else "", "tlsa" if self.dane is not None else ""]
        return f"{self.domain}: {' '.join(filter(None, found)) or 'none'}"


@value
class TLSSessionSeen(Event):
    """A new connection came as far as TLS, or to where TLS should have been (RFC 8460 4.1).

    `problem`: why there is no TLS. `pkix`, `dane`: what is wrong with the certificate by each of them.
    """

    level: ClassVar[EventLevel] = DEBUG
    policies: PoliciesSeen
    mx: str
    helo: str
    address: str
    local_address: str
    problem: TLSProblem | None = None
    pkix: tuple[TLSProblem, ...] = ()
    dane: tuple[TLSProblem, ...] = ()


@value
class TLSHostRefused(Event):
    """A policy refused an MX host before anything was connected to, because of `problem`."""

    level: ClassVar[EventLevel] = DEBUG
    policies: PoliciesSeen
    mx: str
    problem: TLSProblem
