"""Candidates and hosts."""

from __future__ import annotations

from ipaddress import ip_address

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
