"""Candidates and hosts."""

from __future__ import annotations

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from mailrider.model.domain import AddressLiteral, Domain
from mailrider.model.route import Candidate, Candidates, Host


def test_nothing_is_authentic_unless_it_says_so() -> None:
    candidates = Candidates(Domain("example.net"), (Candidate(Domain("mx.example.net"), 10),))
    assert not candidates.authentic
    assert not candidates.implicit
    host = Host(candidates.candidates[0], (ip_address("192.0.2.1"),))
    assert not host.signed
    assert not host.canonical_authentic


def test_an_address_literal_is_its_own_host() -> None:
    literal = AddressLiteral.parse("[192.0.2.1]")
    assert Candidates(literal, (Candidate(literal),)).candidates[0].host == literal


@given(st.lists(st.integers(0, 5), min_size=1, max_size=10).map(sorted))
def test_groups_are_the_candidates_cut_where_the_preference_changes(preferences: list[int]) -> None:
    every = tuple(Candidate(Domain(f"h{number}.test"), each) for number, each in enumerate(preferences))
    groups = Candidates(Domain("example.org"), every).groups
    assert tuple(each for group in groups for each in group) == every
    assert [{each.preference for each in group} for group in groups] == [{p} for p in sorted(set(preferences))]
