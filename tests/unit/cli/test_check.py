"""What `check` finds weak in settings, and what it makes of a resolver (spec sections 6, 7, 12)."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import mailrider
from mailrider.cli.check import _check_resolver, about_servers, endpoint_weaknesses, weaknesses
from mailrider.dns.answer import LookupFailure
from mailrider.dns.servers import choose_servers, parse_servers
from mailrider.endpoint.settings import EndpointSettings
from mailrider.model.domain import Domain
from mailrider.net.settings import ServerTLS, ServerTLSOptions
from mailrider.policy.settings import UNSTATED
from mailrider.testing.resolver import FakeResolver, Given, mx

STRONG = mailrider.RemoteSettings(
    hostname="client.test",
    mx_auth=[mailrider.MTASTS(), mailrider.Dane(), mailrider.DNSSEC(), mailrider.LocalPolicy()],
    requiretls_override=False,
)


def found(validates: bool = True, **changes: Any) -> list[str]:
    return [finding.text for finding in weaknesses("target", replace(STRONG, **changes), validates)]


def test_strong_settings_have_no_weakness() -> None:
    assert found() == []


WEAK = {
    "no mx_auth": ({"mx_auth": UNSTATED}, "without mx_auth nothing is enforced"),
    "mx_auth off": ({"mx_auth": None}, "mx_auth is off, and says so"),
    "no local_policy": ({"mx_auth": [mailrider.Dane()]}, "may get mail in clear"),
    "a local_policy that is off": (
        {"mx_auth": [mailrider.Dane(), mailrider.LocalPolicy(min_tls_level="none")]},
        "may get mail in clear",
    ),
    "an MX level that nobody awards": (
        {"mx_auth": [mailrider.MTASTS(), mailrider.LocalPolicy(min_mx_level="dnssec")]},
        "local_policy demands MX level dnssec, which no listed policy awards",
    ),
    "an MX level, and nothing that awards any": (
        {"mx_auth": [mailrider.Dane(), mailrider.LocalPolicy(min_mx_level="mtasts")]},
        "local_policy demands MX level mtasts, which no listed policy awards",
    ),
    "the override beside a local_policy": ({"requiretls_override": True}, "waive local_policy with `TLS-Required: No`"),
    "other addresses than ours prohibited": (
        {"prohibited_addresses": "none"},
        "prohibited_addresses is not the default",
    ),
    "a port of a lab": ({"port": 2525}, "port 2525 is for labs"),
    "old TLS": ({"tls_client": mailrider.TLSClientSettings(protocols=["tls1.0"])}, "tls1.0 is insecure"),
}


@pytest.mark.parametrize(("changes", "words"), WEAK.values(), ids=WEAK)
def test_a_weakness_is_told(changes: dict[str, Any], words: str) -> None:
    (text,) = found(**changes)
    assert words in text


@pytest.mark.parametrize(
    ("protocols", "words"),
    [("tls1.0", ["tls1.0 is insecure"]), ("tls1.1 tls1.2", ["tls1.1 is insecure"]), ("tls1.2", [])],
)
def test_old_tls_of_an_endpoint_is_told(protocols: str, words: list[str]) -> None:
    versions = ServerTLSOptions(protocols=protocols.split()).protocols
    settings = EndpointSettings(tls=ServerTLS(Path("c"), Path("k"), versions), reject="")
    assert [finding.text[: len("tls1.0 is insecure")] for finding in endpoint_weaknesses("smtp", settings)] == words
    assert not list(endpoint_weaknesses("smtp", EndpointSettings(reject="")))


def test_all_weaknesses_are_told_with_or_without_mx_auth() -> None:
    assert len(found(mx_auth=None, port=2525, prohibited_addresses="none")) == 3
    assert len(found(validates=False, port=2525, requiretls_override=True)) == 3


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("127.0.0.1", []),
        ("192.0.2.1", []),
        ("127.0.0.1 192.0.2.1", [("ok", "only 127.0.0.1:53 is asked; 192.0.2.1:53 is not")]),
        ("127.0.0.53", [("warning", "systemd-resolved")]),
        ("10.0.0.53 trust", [("warning", "10.0.0.53:53 is believed because of trust")]),
        ("127.0.0.2 trust", []),
    ],
)
def test_what_is_to_know_of_the_servers_that_are_configured(words: str, expected: list[tuple[str, str]]) -> None:
    findings = list(about_servers(choose_servers(parse_servers(words.split()))))
    assert [finding.level for finding in findings] == [level for level, _ in expected]
    assert all(text in finding.text for finding, (_, text) in zip(findings, expected, strict=True))


RESOLVERS = {
    "validates": (
        FakeResolver(
            {("good.test", "MX"): Given([mx(1, "mx.test")], authentic=True), ("bad.test", "A"): LookupFailure.SERVFAIL}
        ),
        ("ok", "it validates"),
    ),
    "not on loopback": (FakeResolver(validates=False), ("warning", "not on loopback")),
    "no AD": (FakeResolver({("good.test", "MX"): [mx(1, "mx.test")]}), ("warning", "came without AD")),
    "dead": (FakeResolver({("good.test", "MX"): LookupFailure.TIMEOUT}), ("warning", "mail is deferred")),
    "believes everything": (
        FakeResolver({("good.test", "MX"): Given([mx(1, "mx.test")], authentic=True)}),
        ("warning", "it does not validate all zones"),
    ),
    "dead half-way": (
        FakeResolver(
            {("good.test", "MX"): Given([mx(1, "mx.test")], authentic=True), ("bad.test", "A"): LookupFailure.TIMEOUT}
        ),
        ("warning", "is not known"),
    ),
}


@pytest.mark.parametrize(("resolver", "expected"), RESOLVERS.values(), ids=RESOLVERS)
async def test_a_resolver_is_tried_out(resolver: FakeResolver, expected: tuple[str, str]) -> None:
    finding = await _check_resolver(resolver, Domain("good.test"), Domain("bad.test"))
    assert (finding.level, finding.subject) == (expected[0], "resolver")
    assert expected[1] in finding.text
