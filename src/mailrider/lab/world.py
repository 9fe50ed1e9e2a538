"""The domains of the lab: each shows one thing that happens to mail in the world, and says in its story what.

    world = build_world(ca, port=2525, policy_host="127.0.2.99")

Everything is a value: `zones` for `LabDNS`, `hosts` for `LabMX`, `policies` for `LabSTS`. All names end in `.test`, all
addresses are loopback.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from mailrider.lab.ca import Kind
from mailrider.lab.mx_script import MXTLS, Close, MXScript, PortState, Stage, TLSFault
from mailrider.lab.sts import PolicyHost, policy
from mailrider.lab.zones import Fault, Name, Records, signed
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.x509.describe import describe_chain

if TYPE_CHECKING:
    from mailrider.lab.ca import CA, LabCertificate
    from mailrider.lab.zones import NameLike, ZoneTable


@dataclass(frozen=True, slots=True)
class LabHost:
    """An MX host: where it listens and what it does."""

    name: str
    address: str
    script: MXScript
    port_state: PortState = PortState.OPEN


@dataclass(frozen=True, slots=True)
class LabDomain:
    """A mail domain, and what it shows in a sentence."""

    name: str
    story: str


@dataclass(slots=True)
class World:
    """All of it. `domains` in the order in which people should see them."""

    port: int
    policy_host: str
    ca: CA
    domains: list[LabDomain] = field(default_factory=list)
    zones: ZoneTable = field(default_factory=dict)
    hosts: list[LabHost] = field(default_factory=list)
    policies: dict[str, PolicyHost] = field(default_factory=dict)

    def add(self, name: str, story: str, zone: NameLike) -> None:
        """A domain with its own records."""
        self.domains.append(LabDomain(name, story))
        self.zones[name] = zone

    def host(
        self, name: str, script: MXScript, *, port_state: PortState = PortState.OPEN, is_signed: bool = False
    ) -> None:
        """An MX host with an address of its own."""
        address = f"127.0.2.{len(self.hosts) + 1}"
        self.hosts.append(LabHost(name, address, replace(script, hostname=name), port_state))
        self.zones[name] = Name({"A": address}, signed=is_signed)

    def certificate(self, name: str, kind: Kind = Kind.VALID) -> LabCertificate:
        """A certificate for a host, with this to be right or wrong about it."""
        return self.ca.issue([name], kind)

    def tlsa(self, name: str, record: str) -> None:
        """A signed TLSA record for a host at the lab's port."""
        self.zones[f"_{self.port}._tcp.{name}"] = signed({"TLSA": record})

    def sts(self, domain: str, mode: str, *mx: str) -> None:
        """An MTA-STS policy for a domain."""
        self.zones[f"_mta-sts.{domain}"] = {"TXT": "v=STSv1; id=20261121;"}
        self.zones[f"mta-sts.{domain}"] = {"A": self.policy_host}
        self.policies[domain] = PolicyHost(policy(mode, *mx))


def _ask_for_reports(world: World) -> None:
    """TLS reports by mail (RFC 8460 3), for domains with something to tell."""
    for domain in ("tls.test", "dane.test", "ststesting.test"):
        world.zones[f"_smtp._tls.{domain}"] = {"TXT": f"v=TLSRPTv1; rua=mailto:tls-reports@{domain}"}


def build_world(ca: CA, port: int, policy_host: str) -> World:
    """The whole lab, for MX hosts that listen on `port`."""
    world = World(port, policy_host, ca)
    _add_plain(world)
    _add_dane(world)
    _add_sts(world)
    _add_refusals(world)
    _add_dns_troubles(world)
    _ask_for_reports(world)
    return world


def _mx(*hosts: str) -> dict[str, list[str]]:
    return {"MX": [f"{10 * number} {host}" for number, host in enumerate(hosts, 1)]}


def _add_plain(world: World) -> None:
    world.add("plain.test", "a server without TLS", _mx("mx.plain.test"))
    world.host("mx.plain.test", MXScript())
    world.add("tls.test", "TLS with a certificate that nobody vouches for", _mx("mx.tls.test"))
    world.host("mx.tls.test", MXScript(tls=MXTLS(world.certificate("mx.tls.test", Kind.SELF_SIGNED))))
    world.add("pkix.test", "TLS with a certificate that an authority vouches for", _mx("mx.pkix.test"))
    world.host("mx.pkix.test", MXScript(tls=MXTLS(world.certificate("mx.pkix.test"))))
    world.add("backup.test", "the first MX is dead, the second takes it", _mx("dead.backup.test", "mx.backup.test"))
    world.host("dead.backup.test", MXScript(), port_state=PortState.CLOSED)
    world.host("mx.backup.test", MXScript(tls=MXTLS(world.certificate("mx.backup.test"))))
    world.add("brokentls.test", "offers TLS and breaks off the handshake", _mx("mx.brokentls.test"))
    world.host("mx.brokentls.test", MXScript(tls=MXTLS(fault=TLSFault.ALERT)))


def _add_dane(world: World) -> None:
    offer = replace(FULL_OFFER, requiretls=True)
    certificate = world.certificate("mx.dane.test", Kind.SELF_SIGNED)
    world.add("dane.test", "DNSSEC and DANE: the key stands in DNS; offers REQUIRETLS", signed(_mx("mx.dane.test")))
    world.host("mx.dane.test", MXScript(offer=offer, tls=MXTLS(certificate)), is_signed=True)
    world.tlsa("mx.dane.test", f"3 1 1 {describe_chain(certificate.chain_der)[0].spki_sha256}")
    world.add("danebad.test", "DANE, but another key than the one in DNS", signed(_mx("mx.danebad.test")))
    world.host("mx.danebad.test", MXScript(tls=MXTLS(world.certificate("mx.danebad.test"))), is_signed=True)
    world.tlsa("mx.danebad.test", f"3 1 1 {'ab' * 32}")
    world.add("danestrip.test", "DANE, and somebody strips STARTTLS", signed(_mx("mx.danestrip.test")))
    world.host("mx.danestrip.test", MXScript(), is_signed=True)
    world.tlsa("mx.danestrip.test", f"3 1 1 {'cd' * 32}")


def _add_sts(world: World) -> None:
    world.add("sts.test", "MTA-STS in enforce mode", _mx("mx.sts.test"))
    world.host("mx.sts.test", MXScript(tls=MXTLS(world.certificate("mx.sts.test"))))
    world.sts("sts.test", "enforce", "mx.sts.test")
    world.add("ststesting.test", "MTA-STS in testing mode, with a bad certificate", _mx("mx.ststesting.test"))
    certificate = world.certificate("mx.ststesting.test", Kind.EXPIRED)
    world.host("mx.ststesting.test", MXScript(tls=MXTLS(certificate)))
    world.sts("ststesting.test", "testing", "*.ststesting.test")
    world.add("stsstrip.test", "MTA-STS in enforce mode, and somebody strips STARTTLS", _mx("mx.stsstrip.test"))
    world.host("mx.stsstrip.test", MXScript())
    world.sts("stsstrip.test", "enforce", "mx.stsstrip.test")


def _add_refusals(world: World) -> None:
    world.add("greylist.test", "says 451 the first time, and takes it later", _mx("mx.greylist.test"))
    greylisting = MXScript(replies={Stage.RCPT: ["451 4.7.1 Greylisted, come back later"]})
    world.host("mx.greylist.test", greylisting)
    world.add("nobody.test", "knows nobody of that name", _mx("mx.nobody.test"))
    world.host("mx.nobody.test", MXScript(replies={Stage.RCPT: "550 5.1.1 No such user"}))
    world.add("doubt.test", "is lost after the final dot, so nobody knows", _mx("mx.doubt.test"))
    world.host("mx.doubt.test", MXScript(replies={Stage.END: Close()}))


def _add_dns_troubles(world: World) -> None:
    world.add("nullmx.test", "does not take mail (null MX)", {"MX": "0 ."})
    world.add("servfail.test", "its DNS is broken", Fault.SERVFAIL)
    world.add("noaddress.test", "its MX has no address", _mx("mx.noaddress.test"))
    world.zones["mx.noaddress.test"] = {"TXT": Records(["no address here"])}
