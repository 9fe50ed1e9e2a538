"""Brings reports to those who asked for them: POST to a URL, or mail through a queue of ours (RFC 8460 5.3, 5.4)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from mailrider.errors import InvalidValue
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.envelope import Envelope, Notify, Recipient
from mailrider.model.outcome import Deferred, Delivered
from mailrider.net.fetch import FetchFailed
from mailrider.reporting.mail import compose, signed
from mailrider.reporting.service import Sent
from mailrider.reporting.store import DeliveryState, EndpointKind

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.clock import Clock
    from mailrider.dkim.sign import Signer
    from mailrider.queue.work import Deliverer
    from mailrider.smtp.content import Content
    from mailrider.tlsrpt.report import Reporter, TLSReport

POST_TIMEOUT: Final = 60.0  # seconds
MEDIA_TYPE: Final = "application/tlsrpt+gzip"
_AGAIN: Final = frozenset({408, 425, 429})  # of the answers 4xx those that may be others later


class Poster(Protocol):
    """Posts octets; `net.https.HTTPSPoster` is one."""

    async def post(self, url: str, body: bytes, media_type: str, timeout: float) -> int:  # noqa: ASYNC109 # of the whole exchange
        """The status of the answer. Raises `FetchFailed`."""


class ReportCourier:
    """Brings reports to where they are asked for. `signers` sign for the domain of the reporter's address."""

    def __init__(
        self, reporter: Reporter, poster: Poster, queue: Deliverer, signers: Sequence[Signer], clock: Clock
    ) -> None:
        self._reporter = reporter
        self._poster = poster
        self._queue = queue
        self._signers = tuple(signers)
        self._clock = clock

    async def send(self, report: TLSReport, kind: EndpointKind, target: str) -> Sent:
        """See `service.Courier`."""
        if kind is EndpointKind.HTTPS:
            return await self._post(report, target)
        return await self._mail(report, target.split("\n"))

    async def _post(self, report: TLSReport, url: str) -> Sent:
        try:
            status = await self._poster.post(url, report.body, MEDIA_TYPE, POST_TIMEOUT)
        except FetchFailed as error:
            return Sent(DeliveryState.WAITING, str(error))
        note = f"status {status}"
        if 200 <= status < 300:
            return Sent(DeliveryState.DELIVERED, note)
        # Redirects are not followed: the record says where the report goes.
        return Sent(DeliveryState.WAITING if status >= 500 or status in _AGAIN else DeliveryState.FAILED, note)

    def _compose(self, report: TLSReport, addresses: Sequence[str], now: datetime) -> Content:
        return signed(compose(report, self._reporter, addresses, now), self._signers, now)

    async def _mail(self, report: TLSReport, addresses: Sequence[str]) -> Sent:
        if not self._signers:
            return Sent(DeliveryState.FAILED, f"nothing signs for {self._reporter.domain}: it was not sent")
        now = self._clock.now()
        try:
            recipients = tuple(Recipient(Mailbox.parse(each), Notify.NEVER) for each in addresses)
            # In a thread: a report may have megabytes, of which base64 and digests take their time.
            content = await asyncio.to_thread(self._compose, report, addresses, now)
        except InvalidValue as error:
            return Sent(DeliveryState.FAILED, str(error))
        envelope = Envelope(ReversePath.parse(self._reporter.contact), recipients, tls_report=True)
        outcomes = tuple(await self._queue.deliver(envelope, content))
        note = str(outcomes[0].reply)
        if all(isinstance(each, Delivered) for each in outcomes):
            return Sent(DeliveryState.DELIVERED, note)
        is_for_now = any(isinstance(each, Deferred) for each in outcomes)
        return Sent(DeliveryState.WAITING if is_for_now else DeliveryState.FAILED, note)
