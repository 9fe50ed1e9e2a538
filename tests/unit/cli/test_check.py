"""What `check` finds weak in settings, and what it makes of a resolver."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

import mailrider
from mailrider.app.check import resolver as check_dns
from mailrider.app.check.finding import Finding, error, warning
from mailrider.app.check.resolver import about_library, about_resolver, about_servers, about_validation, check_resolver
from mailrider.app.check.weaknesses import endpoint_weaknesses, weaknesses
from mailrider.cli import check as check_command
from mailrider.cli.main import cli
from mailrider.dns.anchors import parse_anchors
from mailrider.dns.answer import LookupFailure
from mailrider.dns.servers import choose_servers, parse_servers
from mailrider.dns.unbound import LibraryMissing
from mailrider.endpoint.settings import EndpointSettings
from mailrider.model.domain import Domain
from mailrider.model.event import AnswerValidated, DNSServerUnfit, Event, RootKeysMissing, SecurityUnavailable, Validity
from mailrider.model.text import UNSAFE
from mailrider.net.settings import ServerTLS, ServerTLSOptions
from mailrider.policy.settings import UNSTATED
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, TableRow, mx
from tests.unit.dns.world import BOGUS, NAME, ONE, ROOT_KEY, UNSIGNED, Server, World, validating

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
        "prohibited_addresses does not cover 127.0.0.0/8, 0.0.0.0/8",
    ),
    "one network of ours instead of all": (
        {"prohibited_addresses": ["10.0.0.0/8", "127.0.0.0/8", "::/0"]},
        "prohibited_addresses does not cover 0.0.0.0/8, 169.254.0.0/16, 224.0.0.0/4: other",
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


def test_more_prohibited_addresses_than_ours_are_no_weakness() -> None:
    ours = ["127.0.0.0/8", "0.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3", "::/127", "fe80::/10", "ff00::/8"]
    assert found(prohibited_addresses=[*ours, "10.0.0.0/8"]) == []


def test_an_endpoint_that_leads_nowhere_is_told() -> None:
    (finding,) = endpoint_weaknesses("submission", EndpointSettings())
    assert finding == warning(
        "submission", "all mail is refused: nothing says where it goes", "deliver_to &TARGET, or reject"
    )


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
        ("10.0.0.53 trust", [("note", "10.0.0.53:53 is believed because of trust")]),
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
            {
                ("good.test", "MX"): TableRow([mx(1, "mx.test")], authentic=True),
                ("bad.test", "A"): LookupFailure.SERVFAIL,
            }
        ),
        ("ok", "it validates"),
    ),
    "not on loopback": (FakeResolver(validates=False), ("warning", "not on loopback")),
    "no AD": (FakeResolver({("good.test", "MX"): [mx(1, "mx.test")]}), ("warning", "came without AD")),
    "dead": (FakeResolver({("good.test", "MX"): LookupFailure.TIMEOUT}), ("error", "mail is deferred")),
    "believes everything": (
        FakeResolver({("good.test", "MX"): TableRow([mx(1, "mx.test")], authentic=True)}),
        ("warning", "it does not validate all zones"),
    ),
    "dead half-way": (
        FakeResolver(
            {
                ("good.test", "MX"): TableRow([mx(1, "mx.test")], authentic=True),
                ("bad.test", "A"): LookupFailure.TIMEOUT,
            }
        ),
        ("warning", "is not known"),
    ),
}


@pytest.mark.parametrize(("resolver", "expected"), RESOLVERS.values(), ids=RESOLVERS)
async def test_a_resolver_is_tried_out(resolver: FakeResolver, expected: tuple[str, str]) -> None:
    finding = await check_resolver(resolver, Domain("good.test"), Domain("bad.test"))
    assert (finding.level, finding.subject) == (expected[0], "resolver")
    assert expected[1] in finding.text


async def test_our_own_validation_is_tried_out_and_named() -> None:
    here, clock = World(), FakeClock()
    here.servers = {ONE: Server.FIT}
    async with validating(here, clock, [], anchors=parse_anchors(f". IN DNSKEY {ROOT_KEY}")) as resolver:
        finding = await check_resolver(resolver, NAME, BOGUS)
        assert finding.level == "ok"
        assert finding.text.endswith("; validated here by libunbound 0, from what 192.0.2.1:53 says")
        finding = await check_resolver(resolver, UNSIGNED, BOGUS)
        assert (finding.level, finding.cure) == ("warning", "")
        assert "unsigned.test is taken for unsigned: look for a domain above it in `insecure`" in finding.text


async def test_validation_that_is_off_is_found_though_the_probe_takes_a_moment() -> None:
    here, events = World(), list[Event]()
    here.servers = {ONE: Server.STRIPS}
    async with validating(here, FakeClock(), events, auto=True) as resolver:
        finding = await check_resolver(resolver, NAME, BOGUS)
        assert finding.level == "warning"
        assert "no DNS server is fit for validation" in finding.text
        (unfit,) = about_validation(resolver, events)
        assert unfit.text.startswith("192.0.2.1:53 is not asked for validation: the root's keys come without")


def test_each_cause_is_told_once() -> None:
    off = FakeResolver(validates=False)
    found = warning("resolver", "DNSSEC and DANE are off: no DNS server is known to validate", "validate auto")
    missing = [SecurityUnavailable("validate auto: libunbound cannot be loaded")]
    (told,) = about_resolver(found, off, missing, needs=True)
    assert told.text == "DNSSEC and DANE are off: validate auto: libunbound cannot be loaded"
    first, second = about_resolver(found, off, [DNSServerUnfit("192.0.2.1:53", "it strips")], needs=True)
    assert (first.text, first.cure) == (found.text, "")
    assert second.text.startswith("192.0.2.1:53 is not asked for validation: it strips")
    assert about_resolver(found, off, [], needs=True) == [found]


def test_what_nothing_needs_is_a_note() -> None:
    found = warning("resolver", "DNSSEC and DANE are off", "validate auto")
    (told,) = about_resolver(found, FakeResolver(validates=False), [], needs=False)
    assert (told.level, told.cure) == ("note", "")
    dead = error("resolver", "no resolver answers")
    assert about_resolver(dead, FakeResolver(), [], needs=False) == [dead]


def test_what_strangers_wrote_into_dns_moves_no_cursor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    async def examine(*_: object) -> list[Finding]:
        return [error("DKIM", "of another kind: \x1b]0;a title\x07\x9b2J\u202e", "\x1b[31mdo this")]

    monkeypatch.setattr(check_command, "examine_machine", examine)
    path = tmp_path / "mailrider.conf"
    path.write_text("hostname mx.example.org\ntarget.remote out { }\n")
    for options in ([], ["--plugin"], ["--json"]):
        shown = CliRunner().invoke(cli, ["-c", str(path), "check", *options]).stdout
        assert "of another kind" in shown
        assert not any(map(UNSAFE.search, shown.split("\n")))


def test_what_happened_while_the_resolver_was_tried() -> None:
    events = [
        RootKeysMissing((7, 8)),
        SecurityUnavailable("validate auto: no library"),
        SecurityUnavailable("else"),
        AnswerValidated(Validity.SECURE),
    ]
    texts = [finding.text for finding in about_validation(FakeResolver(), events)]
    assert texts == ["the root has keys that no trust anchor stands for: 7, 8", "validate auto: no library"]


def test_known_faults_of_the_library_are_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_dns, "load_library", lambda: SimpleNamespace(version="1.24.1"))
    monkeypatch.setattr(check_dns, "debian_version", lambda: None)
    note, *later = about_library()
    assert {each.level for each in (note, *later)} == {"note"}
    assert note.text.startswith("libunbound 1.24.1 has a known fault, CVE-2025-11411")
    assert "mended in 1.24.2" in note.cure


def test_a_library_that_has_gone_meanwhile_has_no_faults(monkeypatch: pytest.MonkeyPatch) -> None:
    def gone() -> None:
        raise LibraryMissing("gone")

    monkeypatch.setattr(check_dns, "load_library", gone)
    assert list(about_library()) == []
