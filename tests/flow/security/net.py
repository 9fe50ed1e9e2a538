"""Domains with DNSSEC, TLSA, MTA-STS and certificates to order, and senders that meet them: real DNS, HTTPS, SMTP, TLS.

    async with SecureNet() as net:
        await net.add("good.test", mx_signed=True, host_signed=True, tlsa=ee)
        async with net.remote(mx_auth=[mailrider.Dane()]) as remote:
            result = await send(remote, "x@good.test")
        assert_refused(net.mx["good.test"])

Each domain has one MX host, `mx.<domain>`, at a loopback address of its own. Everything may be changed while it runs.
"""

from __future__ import annotations

import tempfile
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import mailrider
from mailrider.app import assemble
from mailrider.lab.ca import CA, Kind
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXTLS, MXScript
from mailrider.lab.sts import LabSTS, PolicyHost, policy
from mailrider.lab.zones import Name, NameLike, Records, ZoneTable, signed
from mailrider.smtp.commands import Connect, Ehlo, Helo, Quit, StartTLS
from mailrider.x509.describe import describe_chain
from tests.support.loopback import free_port, new_address
from tests.support.patient_clock import PatientClock

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mailrider.lab.ca import LabCertificate
    from mailrider.lab.zones import RecordsLike
    from mailrider.model.event import Event

MESSAGE = b"From: a@client.test\r\nSubject: hello\r\n\r\nIt travels.\r\n"
WAIVED = b"TLS-Required: No\r\n" + MESSAGE

BEFORE_MAIL = (Connect, Ehlo, Helo, StartTLS, Quit)


def ee(certificate: LabCertificate) -> str:
    """The TLSA record that the certificate's key matches."""
    return f"3 1 1 {describe_chain(certificate.chain_der)[0].spki_sha256}"


def ta(certificate: LabCertificate) -> str:
    """The TLSA record of the authority that issued it, which the server sends."""
    return f"2 0 1 {describe_chain(certificate.chain_der)[1].sha256}"


def told_nothing(mx: LabMX) -> bool:
    """True if the server never heard a word of a message: nothing but EHLO, STARTTLS and QUIT, by what it was sent."""
    sent = [command for connection in mx.connections for command in connection.commands]
    octets = b"".join(connection.said() for connection in mx.connections).upper()
    return all(isinstance(command, BEFORE_MAIL) for command in sent) and not any(
        word in octets for word in (b"MAIL FROM", b"RCPT TO", b"DATA", b"BDAT", b"SUBJECT", b"TRAVELS", b"CLIENT.TEST>")
    )


def fate(result: mailrider.Result) -> tuple[str, int, str]:
    """Status, code, enhanced code."""
    return result.status.value, result.reply.code, str(result.reply.status)


def levels(result: mailrider.Result) -> tuple[str, str, str | None]:
    """MX level, TLS level, and by what it was authenticated."""
    security = result.security
    return security.mx_level.word, security.tls_level.word, security.authenticated_by


class SecureNet:
    """See the module."""

    def __init__(self, *, dns_timeout: float = 30) -> None:
        """`dns_timeout`: a busy machine takes its time; where DNS is silent give less."""
        self.dns_timeout = dns_timeout
        self.ca = CA()
        self.zones: ZoneTable = {}
        self.mx: dict[str, LabMX] = {}
        self.events: list[Event] = []
        self.port = free_port()
        self.dns = LabDNS(self.zones, new_address())
        self.sts = LabSTS(self.ca, address=new_address())
        self._stack = AsyncExitStack()
        self._policy_ids = 0

    async def __aenter__(self) -> Self:
        self.folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory()))
        self.root = self.ca.write_root(self.folder)
        self._stack.enter_context(mock.patch.object(assemble, "SystemClock", PatientClock))
        await self._stack.enter_async_context(self.dns)
        await self._stack.enter_async_context(self.sts)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    # Domains ----------------------------------------------------------------------------------------------------------

    async def add(
        self,
        domain: str,
        certificate: LabCertificate | Kind | None = Kind.VALID,
        *,
        mx_signed: bool = False,
        host_signed: bool = False,
        tlsa: RecordsLike | None = None,
        script: MXScript | None = None,
    ) -> LabMX:
        """A domain and its MX host, with STARTTLS unless `certificate` is None; `tlsa` is signed."""
        name = f"mx.{domain}"
        if isinstance(certificate, Kind):
            certificate = self.ca.issue([name], certificate)
        script = script or MXScript(tls=None if certificate is None else MXTLS(certificate))
        server = await self._stack.enter_async_context(LabMX(script, new_address(), self.port))
        self.mx[domain] = server
        self.zones[domain] = Name({"MX": Records([f"10 {name}"], ttl=0)}, signed=mx_signed)
        self.zones[name] = Name({"A": Records([server.address], ttl=0)}, signed=host_signed)
        if tlsa is not None:
            self.tlsa(name, tlsa)
        return server

    def tlsa(self, host: str, records: RecordsLike) -> None:
        """The TLSA records of a host, signed."""
        self.zones[f"_{self.port}._tcp.{host}"] = signed({"TLSA": records})

    def publish(self, domain: str, mode: str, *mx: str, host: PolicyHost | None = None) -> None:
        """An MTA-STS policy that names these hosts, or whatever `host` serves; announced with a new id."""
        self._policy_ids += 1
        self.zones[f"_mta-sts.{domain}"] = {"TXT": Records([f"v=STSv1; id={self._policy_ids};"], ttl=0)}
        self.zones[f"mta-sts.{domain}"] = {"A": Records([self.sts.address], ttl=0)}
        self.sts[domain] = host or PolicyHost(policy(mode, *mx))

    def set(self, name: str, zone: NameLike) -> None:
        """Whatever stands at a name."""
        self.zones[name] = zone

    # Senders ----------------------------------------------------------------------------------------------------------

    def mtasts(self, **directives: Any) -> mailrider.MTASTS:
        """The policy `mtasts`, as it works in this net."""
        given = {"cache": "ram", "https_port": self.sts.port, "root_ca": [self.root], **directives}
        return mailrider.MTASTS(**given)

    def everything(self, **minimum: Any) -> list[Any]:
        """`mx_auth` with all four policies."""
        return [self.mtasts(), mailrider.Dane(), mailrider.DNSSEC(), mailrider.LocalPolicy(**minimum)]

    def settings(self, **directives: Any) -> mailrider.RemoteSettings:
        """Settings of a `target.remote` that works in this net; without anything else nothing is enforced."""
        return mailrider.RemoteSettings(
            **{
                "hostname": "client.test",
                "port": self.port,
                "prohibited_addresses": "none",
                "mx_auth": None,
                "dns": mailrider.DNSSettings(server=[self.dns.server], timeout=self.dns_timeout, attempts=1),
                "tls_client": mailrider.TLSClientSettings(root_ca=[self.root]),
                **directives,
            }
        )

    def remote(self, **directives: Any) -> mailrider.Remote:
        """A sender."""
        return mailrider.Remote(self.settings(**directives), on_event=self.events.append)

    def happened(self, kind: type[Event]) -> list[Any]:
        """The events of that kind."""
        return [event for event in self.events if isinstance(event, kind)]


async def send(
    remote: mailrider.Remote, recipient: str, *, message: bytes = MESSAGE, sender: str = "a@client.test", **more: Any
) -> mailrider.Result:
    """One message to one recipient."""
    (result,) = await remote.send(message, sender, [recipient], **more)
    return result


async def send_to_all(remote: mailrider.Remote, recipients: Sequence[str], **more: Any) -> mailrider.Report:
    """One message to all of them."""
    return await remote.send(more.pop("message", MESSAGE), "a@client.test", list(recipients), **more)
