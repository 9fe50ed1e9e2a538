"""The resolver fixture keeps its promises: AD for what validates, SERVFAIL for what does not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import dns.flags
import dns.message
import dns.query
import dns.rcode
import dns.rdatatype
import pytest

from tests.peers.resolver import Resolver, ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone

if TYPE_CHECKING:
    from collections.abc import Iterator

RECORDS = {
    "@": ["MX 10 mx"],
    "mx": ["A 127.9.9.9", "AAAA ::1"],
    "_25._tcp.mx": [f"TLSA 3 1 1 {'ab' * 32}"],
    "alias": ["CNAME mx"],
    "many": [f"MX 10 a-host-with-a-long-name-{n}.somewhere.example.org." for n in range(100)],
}
ZONES = (
    Zone("signed.test", RECORDS, Signing.VALID),
    Zone("bogus.test", RECORDS, Signing.EXPIRED),
    Zone("unsigned.test", RECORDS),
)


@pytest.fixture(scope="module")
def resolver() -> Iterator[Resolver]:
    with start_resolver(ResolverSettings(ZONES)) as server:
        yield server


def ask(resolver: Resolver, name: str, kind: str) -> dns.message.Message:
    query = dns.message.make_query(name, kind, want_dnssec=True, payload=1232)
    query.flags |= dns.flags.AD
    return dns.query.udp(query, resolver.address, port=resolver.port, timeout=30)


@pytest.mark.parametrize(
    ("name", "kind", "rcode", "authentic"),
    [
        ("signed.test", "MX", "NOERROR", True),
        ("mx.signed.test", "AAAA", "NOERROR", True),
        ("_25._tcp.mx.signed.test", "TLSA", "NOERROR", True),
        ("alias.signed.test", "A", "NOERROR", True),
        ("nobody.signed.test", "MX", "NXDOMAIN", True),
        ("mx.signed.test", "MX", "NOERROR", True),
        ("unsigned.test", "MX", "NOERROR", False),
        ("nobody.unsigned.test", "MX", "NXDOMAIN", False),
        ("bogus.test", "MX", "SERVFAIL", False),
        ("nobody.bogus.test", "MX", "SERVFAIL", False),
        ("elsewhere.example", "MX", "NXDOMAIN", False),
    ],
)
def test_answers(resolver: Resolver, name: str, kind: str, rcode: str, authentic: bool) -> None:
    answer = ask(resolver, name, kind)
    assert dns.rcode.to_text(answer.rcode()) == rcode
    assert bool(answer.flags & dns.flags.AD) is authentic


def test_a_large_answer_is_truncated_and_whole_over_tcp(resolver: Resolver) -> None:
    assert ask(resolver, "many.signed.test", "MX").flags & dns.flags.TC
    query = dns.message.make_query("many.signed.test", "MX")
    answer = dns.query.tcp(query, resolver.address, port=resolver.port, timeout=30)
    (records,) = [rrset for rrset in answer.answer if rrset.rdtype == dns.rdatatype.MX]
    assert len(records) == 100
