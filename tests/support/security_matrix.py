"""The security matrix: every combination of what a domain, its DNS and its server may offer, and what must come of it.

`expected` is the oracle. It was written from RFC 7672, RFC 8461, RFC 8689 and our specification, and knows nothing of
the engine: a dozen lines of rules, in the order in which the specification evaluates them.
"""

from __future__ import annotations

import itertools
import random
from dataclasses import astuple, dataclass, fields
from typing import TYPE_CHECKING, Literal, TypeAlias, get_args

if TYPE_CHECKING:
    from collections.abc import Iterator

TLSA: TypeAlias = Literal["none", "EE match", "EE mismatch", "TA match", "TA mismatch", "unusable", "failure"]
STS: TypeAlias = Literal["none", "testing match", "testing mismatch", "enforce match", "enforce mismatch"]
Cert: TypeAlias = Literal["valid", "self-signed", "expired", "wrong-name"]
STARTTLS: TypeAlias = Literal["offered", "not offered", "broken"]
Message: TypeAlias = Literal["ordinary", "REQUIRETLS", "strict REQUIRETLS", "TLS-Required: No"]

MX_LEVELS = ("none", "mtasts", "dnssec")
TLS_LEVELS = ("none", "encrypted", "authenticated")


@dataclass(frozen=True, slots=True)
class Point:
    """One combination. `min_mx` and `min_tls` are the local minimum; the server never offers REQUIRETLS."""

    mx_signed: bool
    address_signed: bool
    tlsa: TLSA
    sts: STS
    cert: Cert
    starttls: STARTTLS
    min_mx: int
    min_tls: int
    message: Message = "ordinary"

    def __str__(self) -> str:
        return ", ".join(f"{field.name}={value}" for field, value in zip(fields(self), astuple(self), strict=True))


def product(message: Message = "ordinary", step: int = 1) -> Iterator[Point]:
    """The whole matrix for one kind of message, or every `step`th point of it."""
    shapes = itertools.product(
        (False, True), (False, True), *map(get_args, (TLSA, STS, Cert, STARTTLS)), range(3), range(3), (message,)
    )
    return (Point(*shape) for shape in itertools.islice(shapes, 0, None, step))


@dataclass(frozen=True, slots=True)
class Expected:
    """What must become of a message: delivered at these levels (`code` 250), or not, with this code."""

    code: int
    enhanced: str
    mx_level: str = ""
    tls_level: str = ""
    authenticated_by: str = ""


def expected(point: Point) -> Expected:
    """The oracle."""
    if point.message == "TLS-Required: No":  # RFC 8689 4.1: the policies do not bind it, and award nothing
        return delivered(0, tls_level(point, dane="none"), "pkix")
    demands = "REQUIRETLS" in point.message
    mx = 2 if point.mx_signed else 1 if point.sts.endswith(" match") else 0
    if demands and mx == 0:  # RFC 8689 4.2.1: the MX must be authenticated
        return Expected(550, "5.7.10")
    if point.sts == "enforce mismatch":  # RFC 8461 5
        return Expected(451, "4.7.0")
    dane = point.tlsa if point.address_signed else "none"  # RFC 7672 2.2.1: unsigned addresses, no TLSA
    if dane == "failure":  # RFC 7672 2.1.2
        return Expected(451, "4.7.0" if demands else "4.7.1")
    if mx < point.min_mx:
        return Expected(451, "4.7.0")
    by_dane = dane.startswith(("EE", "TA"))
    floor = 2 if by_dane or demands or point.sts == "enforce match" else 1 if dane == "unusable" else 0
    floor, tls = max(floor, point.min_tls), tls_level(point, dane)
    if point.starttls == "broken" and floor > 0:  # no fallback to clear text where something demands TLS
        return Expected(451, "4.7.0" if demands else "4.7.5")
    if tls < 2 and demands:
        return Expected(550, "5.7.10")
    if tls < floor:
        return Expected(451, "4.7.1")
    mechanism = "dane" if by_dane else "pkix"
    return Expected(550, "5.7.30") if point.message == "strict REQUIRETLS" else delivered(mx, tls, mechanism)


def tls_level(point: Point, dane: str) -> int:
    """RFC 7672 2.2, RFC 8461 2: where DANE speaks it alone decides; DANE-EE looks at nothing but the key."""
    proved = {
        "EE match": True,
        "TA match": point.cert == "valid",
        "EE mismatch": False,
        "TA mismatch": False,
    }.get(dane, point.cert == "valid")
    return 0 if point.starttls != "offered" else 2 if proved else 1


def delivered(mx: int, tls: int, mechanism: str) -> Expected:
    return Expected(250, "2.0.0", MX_LEVELS[mx], TLS_LEVELS[tls], mechanism if tls == 2 else "")


def sample(size: int, seed: int = 8461) -> list[Point]:
    """So many points of all messages' matrices, always the same ones, in which every pair of values occurs."""
    everything = [point for message in get_args(Message) for point in product(message)]
    random.Random(seed).shuffle(everything)
    values_of = map(get_args, (TLSA, STS, Cert, STARTTLS, Message))
    sizes = [2, 2, *map(len, values_of), 3, 3]
    all_pairs = sum(one * other for one, other in itertools.combinations(sizes, 2))
    chosen: list[Point] = []
    covered: set[tuple[int, object, int, object]] = set()
    for point in everything:
        if len(covered) == all_pairs:
            break
        values = astuple(point)
        pairs = {(i, values[i], j, values[j]) for j in range(len(values)) for i in range(j)}
        # Many new pairs at first, any at the end: few points then hold them all.
        if len(pairs - covered) > max(0, 24 - len(chosen)):
            chosen.append(point)
            covered |= pairs
    return list(dict.fromkeys(chosen + everything))[:size]
