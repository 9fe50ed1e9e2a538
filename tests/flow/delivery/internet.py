"""A small internet for one test: domains with scripted MX hosts, a resolver, and a `Remote` that uses them.

    async with internet({"a.test": [MXScript(...), MXScript(...)]}) as net:
        result = await net.send("x@a.test")
        assert outcome(result) == ("deferred", 451, "4.4.1")
        assert net.mx("a.test", 1).accepted == 1

Each host has a name (`mx0.a.test`, ...) and a loopback address of its own; the first has the best preference.
"""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Self
from unittest import mock

import pytest

import mailrider
from mailrider.app import assemble, submission
from mailrider.lab.dns import LabDNS
from mailrider.lab.mx import LabMX
from mailrider.lab.mx_script import MXScript, PortState, Stage
from mailrider.smtp.capabilities import FULL_OFFER
from mailrider.smtp.commands import Rcpt
from tests.support.loopback import free_port, new_address
from tests.support.patient_clock import PatientClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from mailrider.lab.zones import ZoneTable
    from mailrider.model.event import Event
    from mailrider.smtp.commands import Command
    from mailrider.smtp.content import Content

MESSAGE = b"Subject: hello\r\n\r\nIt travels.\r\n"


def _has_ipv6() -> bool:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            return False
        return True


IPV6 = pytest.mark.skipif(not _has_ipv6(), reason="no ::1 here")


@dataclass(frozen=True, slots=True)
class Shut:
    """A host that nobody answers at, in one of two ways."""

    port_state: PortState


REFUSING = Shut(PortState.CLOSED)
UNANSWERING = Shut(PortState.UNANSWERED)

Hosts = "Mapping[str, Sequence[MXScript | Shut]]"


def _as_it_is(content: Content, *_: object) -> Content:
    return content


@dataclass
class internet:
    """See the module. `zones` are added to, and win over, what the hosts need; `directives` are those of `Remote`,
    which enforces nothing unless they say so. Unless `originates`, messages go as they are: no Date is added."""

    hosts: Mapping[str, Sequence[MXScript | Shut]]
    zones: ZoneTable = field(default_factory=dict)
    directives: Mapping[str, Any] = field(default_factory=dict)
    dns_timeout: float = 50  # a busy machine takes its time; with a silent DNS server give less
    originates: bool = False

    def __post_init__(self) -> None:
        self.events: list[Event] = []
        self._stack = AsyncExitStack()
        self._servers: dict[str, list[LabMX]] = {}
        self.port = free_port()

    async def __aenter__(self) -> Self:
        self._stack.enter_context(mock.patch.object(assemble, "SystemClock", PatientClock))
        if not self.originates:
            self._stack.enter_context(mock.patch.object(submission, "originate", _as_it_is))
        zones: ZoneTable = {}
        for domain, scripts in self.hosts.items():
            servers = self._servers[domain] = []
            names = [f"mx{number}.{domain}" for number in range(len(scripts))]
            zones[domain] = {"MX": [f"{number} {name}" for number, name in enumerate(names)]}
            for name, script in zip(names, scripts, strict=True):
                server = _server(script, self.port)
                zones[name] = {"A": server.address}
                servers.append(await self._stack.enter_async_context(server))
        self.dns = await self._stack.enter_async_context(LabDNS(zones | self.zones, new_address()))
        self.remote = mailrider.Remote(
            **{
                "hostname": "client.test",
                "port": self.port,
                "prohibited_addresses": "none",
                "mx_auth": None,
                "dns": mailrider.DNSSettings(server=[self.dns.server], timeout=self.dns_timeout, attempts=1),
                **self.directives,
            },
            on_event=self.events.append,
        )
        self._tasks = asyncio.all_tasks()
        await self._stack.enter_async_context(self.remote)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    async def enter(self, server: LabMX) -> LabMX:
        """One more host, which runs as long as the others."""
        return await self._stack.enter_async_context(server)

    @property
    def servers(self) -> list[LabMX]:
        """All hosts."""
        return [server for servers in self._servers.values() for server in servers]

    def mx(self, domain: str, number: int = 0) -> LabMX:
        """The host of that rank."""
        return self._servers[domain][number]

    async def send(self, *recipients: str, message: bytes = MESSAGE, **arguments: Any) -> mailrider.Report:
        """One attempt, for all of them."""
        return await self.remote.send(message, "sender@client.test", list(recipients), **arguments)

    async def send_one(self, recipient: str, message: bytes = MESSAGE, **arguments: Any) -> mailrider.Result:
        """One attempt, for one of them."""
        (result,) = await self.send(recipient, message=message, **arguments)
        return result


class FewDomains:
    """A host that takes recipients of so many domains on a connection, and says so (RFC 9422 4.3)."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._domains = set[object]()
        self.script = MXScript(
            offer=replace(FULL_OFFER, max_domains=most), replies={Stage.EHLO: self._begin, Stage.RCPT: self._answer}
        )

    def _begin(self, _: Command) -> None:
        self._domains.clear()

    def _answer(self, command: Command) -> str | None:
        assert isinstance(command, Rcpt)
        self._domains.add(command.mailbox.domain)
        return None if len(self._domains) <= self._most else "452 4.5.3 Too many domains for a connection"


def _server(script: MXScript | Shut, port: int) -> LabMX:
    if isinstance(script, Shut):
        return LabMX(MXScript(), new_address(), port, port_state=script.port_state)
    return LabMX(script, new_address(), port)


def outcome(result: mailrider.Result) -> tuple[str, int, str]:
    """What a table of outcomes has: status, code, enhanced code."""
    return result.status.value, result.reply.code, str(result.reply.status)


def stages(result: mailrider.Result) -> list[str]:
    """How each try ended."""
    return [attempt.result.value for attempt in result.attempts]
