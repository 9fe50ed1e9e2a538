"""The whole security matrix against an independent oracle (`tests.support.security_matrix`), in memory.

What runs is the attempt that delivers, with the destination, the policies and the judge that deliver; only DNS, the
source of MTA-STS policies and the servers are tables.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations
from typing import TYPE_CHECKING, get_args

import pytest

from tests.support.long_runs import LONG
from tests.support.security_matrix import Message, Point, expected, product
from tests.unit.policy.matrix_world import ALL, Worlds

if TYPE_CHECKING:
    from collections.abc import Iterable

MESSAGES: tuple[Message, ...] = get_args(Message)
SUBSETS = [listed for size in range(len(ALL)) for listed in combinations(ALL, size)]


async def disagreements(worlds: Worlds, points: Iterable[Point]) -> list[str]:
    found = []
    for point in points:
        is_, should = await worlds.outcome(point), expected(point)
        if is_ != should:
            found.append(f"{point}: {is_}, should be {should}")
    return found


def test_the_matrix_is_the_whole_product() -> None:
    points = list(product())
    assert len(points) == len(set(points)) == 2 * 2 * 7 * 5 * 4 * 3 * 9


# 29 divides the size of no axis: each value meets each other one. A long run takes every point.
@pytest.mark.parametrize("step", [29, pytest.param(1, marks=pytest.mark.long)])
@pytest.mark.parametrize("message", MESSAGES)
async def test_engine_and_oracle_agree(message: Message, step: int) -> None:
    found = await disagreements(Worlds(), product(message, step))
    assert not found, "\n".join([f"{len(found)} disagreements", *found[:10]])


@pytest.mark.parametrize("listed", SUBSETS, ids=lambda listed: " ".join(listed) or "nothing")
async def test_what_mx_auth_does_not_list_is_as_if_it_were_not_there(listed: tuple[str, ...]) -> None:
    worlds = Worlds(listed)
    for point in product(step=37 if LONG else 101):
        assert await worlds.outcome(point) == expected(without(point, listed)), point


def without(point: Point, listed: Iterable[str]) -> Point:
    """The point as those see it who have only these policies."""
    return Point(
        mx_signed=point.mx_signed and "dnssec" in listed,
        address_signed=point.address_signed,
        tlsa=point.tlsa if "dane" in listed else "none",
        sts=point.sts if "mtasts" in listed else "none",
        cert=point.cert,
        starttls=point.starttls,
        min_mx=point.min_mx if "local_policy" in listed else 0,
        min_tls=point.min_tls if "local_policy" in listed else 0,
        message=point.message,
    )


# Sentences that the matrix implies, said for those who read -----------------------------------------------------------

GOOD = Point(True, True, "EE match", "enforce match", "valid", "offered", 0, 0)
PLAIN = Point(False, False, "none", "none", "self-signed", "offered", 0, 0)
SAYINGS = {
    "dane outranks a certificate that nobody vouches for": (replace(GOOD, cert="self-signed"), 250),
    "dane outranks a good certificate": (replace(GOOD, tlsa="EE mismatch"), 451),
    "dane does not excuse a host that mtasts does not name": (replace(GOOD, sts="enforce mismatch"), 451),
    "dane counts though the MX is not signed": (replace(GOOD, mx_signed=False, sts="none"), 250),
    "unusable records demand TLS": (replace(PLAIN, address_signed=True, tlsa="unusable", starttls="not offered"), 451),
    "unusable records demand no certificate": (replace(PLAIN, address_signed=True, tlsa="unusable"), 250),
    "tlsa records of an unsigned host are nothing": (replace(PLAIN, tlsa="EE mismatch"), 250),
    "a testing policy refuses nobody": (replace(PLAIN, sts="testing mismatch", starttls="not offered"), 250),
    "an enforced policy refuses clear text": (replace(PLAIN, sts="enforce match", starttls="not offered"), 451),
    "an enforced policy refuses a broken handshake": (replace(PLAIN, sts="enforce match", starttls="broken"), 451),
    "where nothing is demanded clear text will do": (replace(PLAIN, starttls="broken"), 250),
    "a sender may waive it all": (replace(GOOD, tlsa="failure", message="TLS-Required: No"), 250),
    "a sender may demand it all": (replace(PLAIN, cert="valid", message="REQUIRETLS"), 550),
}


@pytest.mark.parametrize(("point", "code"), SAYINGS.values(), ids=SAYINGS)
async def test_in_words(point: Point, code: int) -> None:
    assert expected(point).code == code
    assert await Worlds().outcome(point) == expected(point)
