"""Whatever a server sends, the answer is a verdict: never an exception, never a crash, never a yes by accident."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from mailrider.dane.match import judge_dane
from mailrider.model.domain import Domain
from mailrider.model.security import DANETrust
from mailrider.x509.anchors import Anchors
from mailrider.x509.certificate import parse_certificate
from mailrider.x509.describe import describe_chain
from mailrider.x509.verify import judge_chain
from tests.support.certificates import NOW, authority, issue, rsa_key

MX = Domain("mx.example.net")
ROOT = authority("Test Root")
MIDDLE = authority("Middle", ROOT, key=rsa_key(2048))
LEAF = issue(MIDDLE)
TRUSTED = Anchors([parse_certificate(ROOT.der)])
RECORDS = tuple(one.tlsa(2, s, m) for one in (ROOT, MIDDLE) for s in (0, 1) for m in (0, 1, 2))
TRUST = DANETrust(RECORDS, MX, (MX,))


@st.composite
def damaged(draw: st.DrawFn, octets: bytes) -> bytes:
    """The octets with a few of them changed, taken out or put in."""
    data = bytearray(octets)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, len(data) - 1))
        match draw(st.sampled_from(["change", "take", "put"])):
            case "change":
                data[at] = draw(st.integers(0, 255))
            case "take":
                del data[at : at + draw(st.integers(1, 8))]
            case _:
                data[at:at] = draw(st.binary(min_size=1, max_size=8))
        if not data:
            break
    return bytes(data)


def assert_not_fooled(chain: list[bytes]) -> None:
    intact = chain[0] == LEAF.der
    assert describe_chain(chain)
    assert intact or not judge_chain(chain, TRUSTED, [MX], NOW).verdict.ok
    assert intact or not judge_dane(chain, TRUST, NOW).verdict.ok


@given(damaged(LEAF.der))
def test_a_damaged_leaf_proves_nothing(leaf: bytes) -> None:
    assert_not_fooled([leaf, MIDDLE.der, ROOT.der])


@given(damaged(MIDDLE.der))
def test_a_damaged_intermediate_is_not_relied_on(middle: bytes) -> None:
    chain = [LEAF.der, middle, ROOT.der]
    assert describe_chain(chain)
    assert judge_chain(chain, TRUSTED, [MX], NOW).verdict.ok is (middle == MIDDLE.der)
    only_root = DANETrust((ROOT.tlsa(2, 0, 1),), MX, (MX,))
    assert judge_dane(chain, only_root, NOW).verdict.ok is (middle == MIDDLE.der)


@given(damaged(ROOT.der))
def test_a_damaged_stranger_in_the_chain_changes_nothing(stranger: bytes) -> None:
    assert judge_chain([LEAF.der, MIDDLE.der, stranger], TRUSTED, [MX], NOW).verdict.ok


@given(st.lists(st.binary(max_size=60), max_size=12))
def test_junk_proves_nothing(chain: list[bytes]) -> None:
    assert not judge_chain(chain, TRUSTED, [MX], NOW).verdict.ok
    assert not judge_dane(chain, TRUST, NOW).verdict.ok
    assert len(describe_chain(chain)) == min(len(chain), 10)
