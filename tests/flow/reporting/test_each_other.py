"""Two mailriders that report to each other: the mail of one day makes one report each way, and reports make none."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from mailrider.app.assemble import open_engine, open_remote
from mailrider.dkim.sign import Signer
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.envelope import Envelope, Recipient
from mailrider.reporting.courier import ReportCourier
from mailrider.reporting.event import TLSReportSettled
from mailrider.reporting.mail import SIGNED_FIELDS
from mailrider.reporting.recorder import Recorder
from mailrider.reporting.service import ReportingRules, TLSReporting
from mailrider.reporting.store import ReportStore
from mailrider.smtp.content import Content
from mailrider.testing.clock import FakeClock
from mailrider.tlsrpt.report import Reporter
from mailrider.x509.key_kind import KeyKind
from mailrider.x509.signing import SigningKey
from tests.flow.security.net import SecureNet
from tests.unit.reporting.world import DAY, HOUR, NOON, days_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.delivery.remote import RemoteDelivery
    from mailrider.model.event import Event

KEY = SigningKey.make(KeyKind.ED25519)
TICK = 300.0  # seconds; the usual ten would make 90,000 turns of three days


class Mailrider:
    """One that sends for `domain`, and reports what it sees."""

    def __init__(self, domain: str, folder: Path, remote: RemoteDelivery, service: TLSReporting) -> None:
        self.domain, self.folder, self.service = domain, folder, service
        self._remote = remote
        self.settled = asyncio.Event()

    async def send(self, to: str) -> None:
        recipients = (Recipient(Mailbox.parse(f"you@{to}")),)
        envelope = Envelope(ReversePath.parse(f"me@{self.domain}"), recipients)
        await self._remote.deliver(envelope, Content.inspect(b"Subject: hello\r\n\r\nhello\r\n"))


async def _at_once(work: Any, *arguments: Any) -> Any:
    return work(*arguments)


async def _no_post(*_: object) -> int:
    raise AssertionError("nothing is posted here")


class _NoPoster:
    post = staticmethod(_no_post)


@asynccontextmanager
async def mailrider(domain: str, net: SecureNet, clock: FakeClock, folder: Path) -> AsyncIterator[Mailrider]:
    recorder = Recorder(clock, f"tls@{domain}")
    settings = net.settings(mx_auth=net.everything(), hostname=f"mx.{domain}")
    reporter = Reporter(domain, f"tls@{domain}", domain)
    signers = [Signer(Domain(domain), "s1", KEY, SIGNED_FIELDS, ())]

    def emit(event: Event) -> None:
        heard = recorder.listener_for(type(event))
        if heard is not None:
            heard(event)
        if isinstance(event, TLSReportSettled):
            made.settled.set()

    async with AsyncExitStack() as stack:
        assert settings.dns is not None
        engine = await stack.enter_async_context(open_engine(settings.dns, emit, clock, reports_tls=True))
        remote = await stack.enter_async_context(open_remote(settings, engine))
        store = ReportStore(folder, timedelta(minutes=5))
        courier = ReportCourier(reporter, _NoPoster(), remote, signers, clock)
        rules = ReportingRules(reporter)
        service = TLSReporting(rules, recorder, store, courier, engine.resolver, clock, emit, _at_once, TICK)
        made = Mailrider(domain, folder, remote, service)
        await stack.enter_async_context(service)
        yield made


async def test_three_days_of_two_that_report_to_each_other_end_after_one_report_each(tmp_path: Path) -> None:
    clock = FakeClock(NOON)
    async with SecureNet() as net:
        for domain in ("a.test", "b.test"):
            await net.add(domain)
            net.set(f"_smtp._tls.{domain}", {"TXT": f"v=TLSRPTv1; rua=mailto:reports@{domain}"})
        async with (
            mailrider("a.test", net, clock, tmp_path / "a") as one,
            mailrider("b.test", net, clock, tmp_path / "b") as other,
        ):
            await one.send("b.test")
            await other.send("a.test")
            await clock.advance(13 * HOUR)  # a kept connection is closed by now: a report opens one of its own
            await asyncio.gather(one.settled.wait(), other.settled.wait())
            reports = {domain: [each.content for each in net.mx[domain].messages] for domain in net.mx}
            await one.service.write()
            await other.service.write()
            for _ in range(3):
                await clock.advance(DAY)
        for domain, contents in reports.items():
            assert [b"TLS-Report-Submitter" in each for each in contents] == [False, True], domain
            assert net.mx[domain].opened == 2
            assert len(net.mx[domain].messages) == 2
    # Neither that day nor a later one has anything of the reports.
    for folder in (tmp_path / "a", tmp_path / "b"):
        (day,) = days_in(folder)
        assert (str(day.day), [each.successful for each in day.counts.policies.values()]) == ("2026-11-30", [1])
