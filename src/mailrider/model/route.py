"""The hosts that take a next hop's mail, as DNS names them (RFC 5321 5.1).

`Candidates` is the answer to the MX question, with its authenticity; `Host` is one candidate whose addresses are known.
Both travel from routing to the policies, so they are values and stand here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ipaddress import IPv4Address, IPv6Address

    from mailrider.model.domain import Domain, NextHop


@dataclass(frozen=True, slots=True)
class Candidate:
    """One MX host of a next hop; for an address literal the host is the literal."""

    host: NextHop
    preference: int = 0


@dataclass(frozen=True, slots=True)
class Candidates:
    """The MX hosts of a next hop, best first.

    `authentic`: the whole answer that named them (CNAMEs, the MX set, or the proof that there is none) was
    authenticated by DNSSEC. `implicit`: there is no MX record, the domain itself is the only candidate.
    `canonical`: the name that the MX records stand at, after CNAMEs. `beyond` are those past the limit of an attempt:
    they are not tried, and have not said no. `groups`: the candidates by preference.
    """

    next_hop: NextHop
    candidates: tuple[Candidate, ...]
    authentic: bool = False
    implicit: bool = False
    canonical: Domain | None = None
    beyond: tuple[Candidate, ...] = ()
    groups: tuple[tuple[Candidate, ...], ...] = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        groups = tuple(tuple(group) for _, group in groupby(self.candidates, key=attrgetter("preference")))
        object.__setattr__(self, "groups", groups)


@dataclass(frozen=True, slots=True)
class Host:
    """A candidate with its addresses, in the order in which they are tried.

    `signed`: any of its address answers, or its CNAME, was authenticated (RFC 7672 2.2.2); `doubt` says why that could
    not be learnt. `canonical` is the fully expanded name, `canonical_authentic` says that the whole CNAME chain to it
    was authenticated. `is_ourselves`: what is sent there comes back to us.
    """

    candidate: Candidate
    addresses: tuple[IPv4Address | IPv6Address, ...]
    signed: bool = False
    canonical: Domain | None = None
    canonical_authentic: bool = False
    doubt: str = ""
    is_ourselves: bool = False
