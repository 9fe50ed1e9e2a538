"""Postfix and mailrider look at the same domains, and see the same: DNSSEC and DANE, by Debian's `posttls-finger`.

The zones are signed by ldns, served by NSD, validated by unbound; the servers are Postfix, each with a certificate of
its own. What mailrider sees comes from `explain`, which is the code that delivers; then it delivers.
"""

from __future__ import annotations

import hashlib
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

import mailrider
from mailrider.app.assemble import open_engine, open_explainer
from mailrider.lab.ca import CA, Kind
from mailrider.model.domain import Domain
from mailrider.model.event import discard
from mailrider.x509.describe import describe_chain
from tests.peers.certificate import Certificate as Files
from tests.peers.finger import posttls_finger
from tests.peers.postfix import PostfixSettings, start_postfix
from tests.peers.resolver import ResolverSettings, start_resolver
from tests.peers.zone import Signing, Zone
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from mailrider.delivery.explain.plan import Explanation
    from mailrider.lab.ca import LabCertificate
    from tests.peers.resolver import Resolver

PORT = 2525
MESSAGE = b"From: a@client.test\r\nDate: Sat, 21 Nov 2026 10:00:00 +0000\r\nSubject: x\r\n\r\nIt travels.\r\n"
OTHER = "ab" * 32


def ee(certificate: LabCertificate, record: str = "3 1 1") -> str:
    """A TLSA record that the server's own certificate matches."""
    return _tlsa(record, certificate.chain_der[0])


def ta(certificate: LabCertificate, record: str = "2 0 1") -> str:
    """One that its issuer's matches: the intermediate, which is sent."""
    return _tlsa(record, certificate.chain_der[1])


def root(certificate: LabCertificate, record: str) -> str:
    """One that the root matches, which is not sent."""
    return _tlsa(record, certificate.root_der)


def _tlsa(record: str, der: bytes) -> str:
    _, selector, matching = record.split()
    key = x509.load_der_x509_certificate(der).public_key()
    octets = der if selector == "0" else key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    if matching == "0":
        return f"TLSA {record} {octets.hex()}"
    (summary,) = describe_chain([der])
    if matching == "1":
        return f"TLSA {record} {summary.sha256 if selector == '0' else summary.spki_sha256}"
    return f"TLSA {record} {hashlib.sha512(octets).hexdigest()}"


@dataclass(frozen=True)
class Case:
    """One domain, `<name>.signed.test`, with the MX `mx-<name>.signed.test`.

    `tlsa` makes its records from the certificate. `dane` is what both must see. `mx_signed` False: the domain is
    `<name>.plain.test` instead. `alias`: the MX is a CNAME, in the one zone, to a host in the other. `names` are the
    certificate's, if not the MX host's. `kind` None: no STARTTLS. `postfix`: what Postfix sees, where it is meant to
    see something else.
    """

    dane: str
    tlsa: Callable[[LabCertificate], list[str]] = lambda _: []
    kind: Kind | None = Kind.VALID
    mx_signed: bool = True
    alias: tuple[str, str] | None = None
    at: str = "mx"
    names: str = ""
    postfix: str = ""


EE = ("3 0 0", "3 0 1", "3 0 2", "3 1 0", "3 1 1", "3 1 2")
SENT = ("2 0 1", "2 0 2", "2 1 1", "2 1 2", "2 0 0", "2 1 0")

CASES: Mapping[str, Case] = {
    **{f"ee-{each.replace(' ', '')}": Case("match", lambda c, r=each: [ee(c, r)], Kind.SELF_SIGNED) for each in EE},  # type: ignore[misc]
    **{f"ta-{each.replace(' ', '')}": Case("match", lambda c, r=each: [ta(c, r)]) for each in SENT},  # type: ignore[misc]
    "ee-mismatch": Case("mismatch", lambda _: [f"TLSA 3 1 1 {OTHER}"]),
    "ee-expired": Case("match", lambda c: [ee(c)], Kind.EXPIRED),
    "ee-wrong-name": Case("match", lambda c: [ee(c)], Kind.WRONG_NAME),
    "ee-of-the-issuer": Case("mismatch", lambda c: [ta(c, "3 1 1")]),
    "ta-of-the-leaf": Case("mismatch", lambda c: [ee(c, "2 0 1")]),
    "ta-mismatch": Case("mismatch", lambda _: [f"TLSA 2 0 1 {OTHER}"]),
    "ta-expired": Case("mismatch", lambda c: [ta(c)], Kind.EXPIRED),
    "ta-wrong-name": Case("mismatch", lambda c: [ta(c)], Kind.WRONG_NAME),
    "ta-root-in-dns": Case("match", lambda c: [root(c, "2 0 0")]),
    "ta-root-key-in-dns": Case("match", lambda c: [root(c, "2 1 0")]),
    "ta-root-not-sent": Case("mismatch", lambda c: [root(c, "2 0 1")]),
    "stronger-digest": Case("mismatch", lambda c: [ee(c), f"TLSA 3 1 2 {OTHER * 2}"]),
    "rollover": Case("match", lambda c: [ee(c), f"TLSA 3 1 1 {OTHER}"]),
    "ee-beside-ta": Case("match", lambda c: [f"TLSA 2 0 1 {OTHER}", ee(c)]),
    "unusable-usage": Case("unusable", lambda c: ["TLSA 1 1 1" + ee(c)[10:], "TLSA 0 0 1" + ta(c)[10:]]),
    "unusable-digest": Case("unusable", lambda _: ["TYPE52 \\# 4 03010100"]),
    "unusable-beside-usable": Case("mismatch", lambda c: ["TLSA 1 1 1" + ee(c)[10:], f"TLSA 3 1 1 {OTHER}"]),
    "none": Case("silent"),
    "in-clear": Case("in clear", lambda _: [f"TLSA 3 1 1 {OTHER}"], None),
    "lookup-fails": Case("TLSA failed", lambda _: ["CNAME tlsa.bogus.test."]),
    "tlsa-is-an-alias": Case("match", lambda _: ["CNAME records"], Kind.SELF_SIGNED),
    # CNAMEs
    "alias-and-target": Case("match", lambda c: [ee(c)], alias=("signed", "signed"), at="target"),
    "alias-before-target": Case("match", lambda c: [ee(c)], alias=("signed", "signed"), at="mx"),
    "into-unsigned": Case("match", lambda c: [ee(c)], alias=("signed", "plain"), at="mx"),
    "into-unsigned-mismatch": Case("mismatch", lambda _: [f"TLSA 3 1 1 {OTHER}"], alias=("signed", "plain"), at="mx"),
    "from-unsigned": Case("silent", lambda _: [f"TLSA 3 1 1 {OTHER}"], alias=("plain", "signed"), at="target"),
    # Names: those of the domain count if its MX record is signed.
    "name-of-the-domain": Case("match", lambda c: [ta(c)], names="name-of-the-domain.signed.test"),
    "unsigned-mx": Case("match", lambda c: [ee(c)], mx_signed=False),
    # RFC 7672 3.2.2: of an unsigned MX only the TLSA base domain counts. Postfix takes the domain's name too, and says
    # "trusted" rather than "verified".
    "unsigned-mx-name": Case(
        "mismatch", lambda c: [ta(c)], mx_signed=False, names="unsigned-mx-name.plain.test", postfix="match"
    ),
}


class World:
    """All domains, served; and what is needed to look at them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ca = CA()
        self.root = self.ca.write_root(folder)
        self.zones: dict[str, dict[str, list[str]]] = {"signed": {}, "plain": {}, "bogus": {}}
        self.listeners: dict[str, Files | None] = {}
        self.resolver: Resolver
        for name, case in CASES.items():
            self._add(name, case)
        self.zones["bogus"] = {"@": ["MX 10 mx"], "mx": ["A 127.0.0.2"], "tlsa": [f"TLSA 3 1 1 {OTHER}"]}

    @staticmethod
    def domain(name: str) -> str:
        return f"{name}.{'signed' if CASES[name].mx_signed else 'plain'}.test"

    def _add(self, name: str, case: Case) -> None:
        here, there = case.alias or ("signed", "signed")
        mx, target = f"mx-{name}", f"real-{name}" if case.alias else f"mx-{name}"
        address = new_address()
        self.zones["signed" if case.mx_signed else "plain"][name] = [f"MX 10 {mx}.{here}.test."]
        if case.alias:
            self.zones[here][mx] = [f"CNAME {target}.{there}.test."]
        self.zones[there][target] = [f"A {address}"]
        certificate = self.ca.issue([case.names or f"{mx}.{here}.test"], case.kind or Kind.VALID)
        files = certificate.write(self.folder, name)
        self.listeners[address] = Files(*files) if case.kind else None
        zone, owner = (there, target) if case.at == "target" else (here, mx)
        records = case.tlsa(certificate)
        if records == ["CNAME records"]:
            self.zones[zone]["records"] = [ee(certificate)]
        if records:
            self.zones[zone][f"_{PORT}._tcp.{owner}"] = records

    def settings(self, **directives: Any) -> mailrider.RemoteSettings:
        return mailrider.RemoteSettings(
            hostname="client.test",
            port=PORT,
            prohibited_addresses="none",
            mx_auth=[mailrider.Dane(), mailrider.DNSSEC()],
            dns=mailrider.DNSSettings(server=[f"{self.resolver.address}:{self.resolver.port}"]),
            tls_client=mailrider.TLSClientSettings(root_ca=[self.root]),
            **directives,
        )

    async def explain(self, domain: str) -> Explanation:
        settings = self.settings()
        assert settings.dns is not None
        async with open_engine(settings.dns, discard) as engine, open_explainer(settings, engine) as explainer:
            return await explainer.explain(Domain.parse(domain), connect=True)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    with tempfile.TemporaryDirectory(prefix="mailrider-peers-") as folder:
        Path(folder).chmod(0o755)
        made = World(Path(folder))
        zones = tuple(
            Zone(f"{name}.test", records, signing)
            for (name, records), signing in zip(
                made.zones.items(), (Signing.VALID, Signing.NONE, Signing.EXPIRED), strict=True
            )
        )
        domains = tuple(map(made.domain, CASES))
        settings = PostfixSettings(domains=domains, listeners=made.listeners)
        with start_postfix(settings), start_resolver(ResolverSettings(zones)) as made.resolver:
            yield made


def seen(explanation: Explanation) -> str:
    """What mailrider sees, in the words of `tests.peers.finger`."""
    if explanation.unroutable is not None:
        return "lookup failed"
    (plan,) = explanation.plans
    demand = plan.demands["ordinary"]
    if demand.refusal is not None:
        assert demand.refusal.policy == "dane"
        return "TLSA failed"
    assert demand.requirement is not None
    if demand.requirement.dane is None:
        return "unusable" if demand.requirement.tls_reason == "dane" else "silent"
    (contact,) = plan.contacts
    assert contact.evidence is not None
    if contact.evidence.tls is None:
        return "in clear"
    return "match" if contact.judgements["ordinary"].refusal is None else "mismatch"


@pytest.mark.parametrize("name", CASES)
async def test_postfix_and_mailrider_see_the_same(name: str, world: World) -> None:
    finger = posttls_finger(world.domain(name), PORT, world.resolver, world.folder)
    explanation = await world.explain(world.domain(name))
    case = CASES[name]
    assert (seen(explanation), finger.dane) == (case.dane, case.postfix or case.dane), finger.output
    assert explanation.candidates is not None
    if finger.dane == "match":
        assert explanation.candidates.authentic is finger.mx_signed


async def test_and_mailrider_delivers_accordingly(world: World) -> None:
    async with mailrider.Remote(world.settings()) as remote:
        report = await remote.send(MESSAGE, "a@client.test", [f"x@{world.domain(name)}" for name in CASES])
    for (name, case), result in zip(CASES.items(), report, strict=True):
        is_refused = case.dane in ("mismatch", "TLSA failed", "in clear")
        assert result.status == ("deferred" if is_refused else "delivered"), (name, result.reply)
        assert not is_refused or (result.reply.code, str(result.reply.status)) == (451, "4.7.1")
        if not is_refused:
            assert (result.security.authenticated_by == "dane") is (case.dane == "match")
            assert result.security.mx_level.word == ("dnssec" if case.mx_signed else "none")


async def test_a_wrong_signature_defers(world: World) -> None:
    """RFC 4035 5.5: what does not validate is not there, and not absent either."""
    finger = posttls_finger("bogus.test", PORT, world.resolver, world.folder)
    assert finger.dane == seen(await world.explain("bogus.test")) == "lookup failed"
    async with mailrider.Remote(world.settings()) as remote:
        (result,) = await remote.send(MESSAGE, "a@client.test", ["x@bogus.test"])
    assert (result.status, result.reply.code, str(result.reply.status)) == ("deferred", 451, "4.4.3")
