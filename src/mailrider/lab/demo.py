"""The demonstration: one message to domains of every kind, and what became of it."""

from __future__ import annotations

import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailrider.lab.internet import HOSTNAME, Internet
from mailrider.library import load
from mailrider.model.outcome import Status

if TYPE_CHECKING:
    from mailrider.lab.world import LabDomain
    from mailrider.library import Report, Result

SHOWN = (
    *("plain.test", "tls.test", "pkix.test", "backup.test", "dane.test", "danestrip.test"),
    *("sts.test", "ststesting.test", "stsstrip.test", "nobody.test", "greylist.test"),
)

WIDTH = 110  # columns, where there is room

_COLOURS = {Status.DELIVERED: "green", Status.DEFERRED: "yellow", Status.FAILED: "red"}


async def run_demo(port: int, dns_port: int, https_port: int) -> bool:
    """Start the lab, send, show. True if everything ended as the stories say."""
    console = Console(width=min(Console().width, WIDTH) if Console().is_terminal else WIDTH, highlight=False)
    with tempfile.TemporaryDirectory(prefix="mailrider-lab-") as folder:
        async with Internet(Path(folder), port=port, dns_port=dns_port, https_port=https_port) as internet:
            servers = f"{len(internet.servers)} mail servers on port {port}"
            console.print(f"A private internet: DNS at {internet.dns.server}, {servers}, policy hosts, an authority.")
            console.print(f"One message goes to {len(SHOWN)} domains at once.\n")
            async with load(internet.configuration_file).target("lab") as remote:
                report = await remote.send(_message(), f"you@{HOSTNAME}", [f"friend@{name}" for name in SHOWN])
            domains = {domain.name: domain for domain in internet.world.domains}
            console.print(_table(report, [domains[name] for name in SHOWN]))
            arrived = sum(server.accepted for server in internet.servers.values())
    delivered = sum(result.status is Status.DELIVERED for result in report)
    console.print(f"{delivered} delivered, {arrived} arrived at the servers; nothing left this machine.")
    return delivered == arrived


def _message() -> EmailMessage:
    message = EmailMessage()
    message["From"] = f"you@{HOSTNAME}"
    message["To"] = "undisclosed-recipients:;"
    message["Subject"] = "Hello from the lab"
    message.set_content("It travels.\n")
    return message


def _table(report: Report, domains: list[LabDomain]) -> Table:
    table = Table(show_lines=True, expand=True)
    table.add_column("domain", ratio=2)
    table.add_column("outcome", no_wrap=True)
    table.add_column("where it went, and how safely", ratio=3)
    for domain, result in zip(domains, report, strict=True):
        table.add_row(*_row(domain, result))
    return table


def _row(domain: LabDomain, result: Result) -> list[Text]:
    security = result.security
    by = f" by {security.authenticated_by.upper()}" if security.authenticated_by else ""
    version = f" ({security.tls_version})" if security.tls_version else ""
    return [
        Text.assemble((domain.name, "bold"), f"\n{domain.story}"),
        Text(result.status.value, style=_COLOURS[result.status]),
        Text.assemble(
            (f"{result.mx} [{result.address}]", "bold"),
            f"\nTLS {security.tls_level}{by}{version}, MX {security.mx_level}",
            (f"\n{result.reply}", "dim"),
        ),
    ]
