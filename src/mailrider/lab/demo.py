"""The demonstration: the daemon takes a message from a stock client, and brings it to domains of every kind.

What is shown: where each recipient's mail went and how safely, a retry of what was deferred, and the bounce of what
failed. It is the daemon, the queue and the engine as they are; only the internet around them is made up.
"""

from __future__ import annotations

import asyncio
import json
import smtplib
import tempfile
from email.message import EmailMessage
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from mailrider.app.reports import store_of
from mailrider.app.running import Process, open_configuration
from mailrider.clock import SystemClock, after
from mailrider.config import load
from mailrider.delivery.limits.shares import Shares
from mailrider.endpoint.logins import Logins
from mailrider.endpoint.sockets import Sockets
from mailrider.lab.internet import Internet
from mailrider.model.outcome import Status
from mailrider.model.queue_event import RecipientDone
from mailrider.observe.metrics import Metrics

if TYPE_CHECKING:
    from mailrider.config import Configuration
    from mailrider.lab.mx_connection import LabMessage
    from mailrider.lab.world import LabDomain
    from mailrider.model.event import Event
    from mailrider.model.outcome import Outcome

SENDER = "you@tls.test"  # a domain of the lab, so that a bounce can arrive
RETRIED, BOUNCED = "greylist.test", "nobody.test"
MAX_PORT = 65535
REPORTED = "ststesting.test"  # its certificate has expired, and its policy is in testing mode: only a report says so
SHOWN = (
    *("plain.test", "tls.test", "pkix.test", "backup.test", "dane.test", "danestrip.test"),
    *("sts.test", "ststesting.test", "stsstrip.test", BOUNCED, RETRIED),
)

WIDTH = 110  # columns, where there is room
PATIENCE = 60.0  # seconds for all of it; it takes about three

_COLOURS = {Status.DELIVERED: "green", Status.DEFERRED: "yellow", Status.FAILED: "red"}
_DAEMON = """
target.queue outgoing {{
    target &lab
    initial_retry_time 2s
    bounce {{
        deliver_to &lab
    }}
}}
tlsrpt {{
    organization "The lab"
    contact tls-reports@sender.test
    through &outgoing
}}
submission tcp://127.0.0.1:{port} {{
    deliver_to &outgoing
}}
"""


class _Watch:
    """What becomes of each recipient, from the queue's events."""

    def __init__(self) -> None:
        self.first: dict[str, Outcome] = {}
        self.later: dict[str, Outcome] = {}
        self._news = asyncio.Event()

    def __call__(self, event: Event) -> None:
        if isinstance(event, RecipientDone):
            domain = str(event.outcome.recipient.mailbox.domain)
            known = self.later if domain in self.first else self.first
            known[domain] = event.outcome
            self._news.set()

    async def until_told(self) -> None:
        """Until every domain was tried, and the one that asked for patience a second time."""
        while len(self.first) < len(SHOWN) or RETRIED not in self.later:
            self._news.clear()
            await self._news.wait()


async def run_demo(port: int, dns_port: int, https_port: int) -> bool:
    """Start the lab and the daemon, submit, show. True if everything ended as the stories say."""
    console = Console(width=min(Console().width, WIDTH) if Console().is_terminal else WIDTH, highlight=False)
    clock = SystemClock()
    watch = _Watch()
    with tempfile.TemporaryDirectory(prefix="mailrider-lab-") as folder:
        async with Internet(Path(folder), port=port, dns_port=dns_port, https_port=https_port) as internet:
            servers = f"{len(internet.servers)} mail servers on port {port}"
            console.print(f"A private internet: DNS at {internet.dns.server}, {servers}, policy hosts, an authority.")
            submission_port = _beside(port)
            configuration = load(_configure(internet, submission_port))
            sockets = Sockets()
            process = Process(sockets, watch, clock, Metrics(), Logins(clock))
            async with open_configuration(configuration, process, Shares(clock)) as running:
                console.print(
                    f"A daemon with a queue takes mail on 127.0.0.1:{submission_port}; smtplib submits to it."
                )
                console.print(f"One message goes to {len(SHOWN)} domains at once.\n")
                await asyncio.to_thread(_submit, submission_port)
                async with after(clock, PATIENCE):
                    await watch.until_told()
                    bounce = await _wait_bounce(internet)
                await running.write_tls_counts()
                report = await asyncio.to_thread(_report_of_today, configuration, clock)
            sockets.close()
            _show(console, internet, watch, bounce, report)
            arrived = sum(server.accepted for server in internet.servers.values())
    delivered = [*watch.first.values(), *watch.later.values()]
    return arrived == sum(outcome.status is Status.DELIVERED for outcome in delivered) and bool(bounce.content)


def _beside(port: int) -> int:
    """The next port, or the one before where there is no next one."""
    return port + 1 if port < MAX_PORT else port - 1


def _configure(internet: Internet, port: int) -> Path:
    """The lab's configuration, with a daemon's part behind it."""
    path = internet.folder / "daemon.conf"
    path.write_text(internet.configuration + _DAEMON.format(port=port))
    return path


def _report_of_today(configuration: Configuration, clock: SystemClock) -> str:
    """The policies of the TLS report that a domain would get if the day ended now."""
    settings = configuration.globals.tlsrpt
    assert settings is not None  # noqa: S101 # it stands in `_DAEMON`
    (day,) = store_of(configuration, settings).days(REPORTED, clock.now().date())
    return json.dumps(day.counts.as_json(), indent=2)


def _submit(port: int) -> None:
    message = EmailMessage()
    message["From"] = SENDER
    message["To"] = "undisclosed-recipients:;"
    message["Subject"] = "Hello from the lab"
    message.set_content("It travels.\n")
    with smtplib.SMTP("127.0.0.1", port, "client.test") as client:
        client.send_message(message, SENDER, [f"friend@{domain}" for domain in SHOWN])


async def _wait_bounce(internet: Internet) -> LabMessage:
    """The notification that reaches the sender's own server, beside the message that is for a friend there."""
    server = internet.servers["mx.tls.test"]
    number = 1
    while True:
        message = await server.wait_message(number)
        if not message.sender:
            return message
        number += 1


def _show(console: Console, internet: Internet, watch: _Watch, bounce: LabMessage, report: str) -> None:
    domains = {domain.name: domain for domain in internet.world.domains}
    table = Table(show_lines=True, expand=True)
    table.add_column("domain", ratio=2)
    table.add_column("outcome", no_wrap=True)
    table.add_column("where it went, and how safely", ratio=3)
    for name in SHOWN:
        table.add_row(*_row(domains[name], watch.first[name]))
    console.print(table)
    again = watch.later[RETRIED]
    console.print(f"\nTwo seconds later the queue tried {RETRIED} again: {again.status}, {again.reply}", markup=False)
    console.print(f"\nThe sender has a notification about {BOUNCED}:", markup=False)
    text = bounce.content.decode("utf-8", "replace").partition("\r\n\r\n")[2]
    lines = [line for line in text.splitlines()[:30] if line and not line.startswith(("--", "Content-"))]
    for line in lines[:8]:
        console.print(f"    {line}", markup=False)
    console.print(
        f"\n{REPORTED} asks for TLS reports (RFC 8460), and will get this one after midnight, UTC:", markup=False
    )
    for line in report.splitlines():
        console.print(f"    {line}", markup=False)
    console.print("\nWhat is deferred for its security stays queued, and is tried again; nothing left this machine.")


def _row(domain: LabDomain, outcome: Outcome) -> list[Text]:
    security = outcome.security
    by = f" by {security.authenticated_by.upper()}" if security.authenticated_by else ""
    version = f" ({security.tls_version})" if security.tls_version else ""
    return [
        Text.assemble((domain.name, "bold"), f"\n{domain.story}"),
        Text(outcome.status.value, style=_COLOURS[outcome.status]),
        Text.assemble(
            (f"{outcome.mx} [{outcome.address}]", "bold"),
            f"\nTLS {security.tls_level}{by}{version}, MX {security.mx_level}",
            (f"\n{outcome.reply}", "dim"),
        ),
    ]
