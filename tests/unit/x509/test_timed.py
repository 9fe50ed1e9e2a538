"""For how long a verdict holds: until the nearest date of a certificate that it rests on."""

from __future__ import annotations

from datetime import datetime, timedelta
from itertools import pairwise

import pytest

from mailrider.model.domain import Domain
from mailrider.x509.anchors import Anchors
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.verify import judge_chain
from tests.support.certificates import NOW, authority, issue

MX = Domain("mx.example.net")
MINUTE = timedelta(minutes=1)
SECOND = timedelta(seconds=1)
EDGES = (NOW, NOW + 7 * MINUTE, NOW + 20 * MINUTE, NOW + 40 * MINUTE)
ROOT = authority(not_before=EDGES[0], not_after=EDGES[3])
LEAF = issue(ROOT, not_before=EDGES[1], not_after=EDGES[2])
TRUSTED = Anchors([parse_certificate(ROOT.der)])


@pytest.mark.parametrize(("since", "until"), list(pairwise(EDGES)))
def test_the_limits_are_the_nearest_dates(since: datetime, until: datetime) -> None:
    timed = judge_chain([LEAF.der], TRUSTED, [MX], since + MINUTE)
    assert (timed.since, timed.until) in {(since, until), (since + SECOND, until)}


def test_a_certificate_without_end_has_no_limit() -> None:
    forever = datetime(9999, 12, 31, 23, 59, 59, tzinfo=NOW.tzinfo)
    root = authority(not_after=forever)
    timed = judge_chain([issue(root, not_after=forever).der], Anchors([parse_certificate(root.der)]), [MX], NOW)
    assert timed.verdict.ok
    assert timed.until == forever
