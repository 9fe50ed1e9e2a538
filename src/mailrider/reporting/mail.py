"""A TLS report as a mail message (RFC 8460 3, 5.3), signed. Pure, but for the key.

multipart/report with a text for people and the gzipped report in base64; 7-bit throughout. `signed` covers the fields
that a receiver looks at, and is always there: a receiver must not believe a report without it.
"""

from __future__ import annotations

import base64
from email.utils import format_datetime
from typing import TYPE_CHECKING, Final

from mailrider.dkim.sign import Header, body_hash
from mailrider.header.fields import compose_field
from mailrider.smtp.content import Content

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from mailrider.dkim.sign import Signer
    from mailrider.tlsrpt.report import Reporter, TLSReport

# Each as often as it is there and once more, so that none can be added (RFC 8460 3; RFC 6376 8.15).
SIGNED_FIELDS: Final = (
    "From",
    "To",
    "Subject",
    "Date",
    "Message-ID",
    "MIME-Version",
    "Content-Type",
    "Content-Transfer-Encoding",
    "TLS-Report-Domain",
    "TLS-Report-Submitter",
)
_WIDTH: Final = 76  # characters of a line of base64: RFC 2045 6.8


def compose(report: TLSReport, reporter: Reporter, addresses: Sequence[str], now: datetime) -> bytes:
    """The message, not signed yet."""
    hash, _, _ = report.report_id.partition("@")
    boundary = f"=_{hash}"
    header = (
        compose_field("From", f"<{reporter.contact}>")
        + compose_field("To", *[f"<{each}>{',' if each != addresses[-1] else ''}" for each in addresses])
        + compose_field("Date", format_datetime(now))
        + compose_field("Subject", *report.subject.split(" Report-ID: ")[:1], f"Report-ID: <{report.report_id}>")
        + compose_field("Message-ID", f"<{hash}.{now:%H%M%S}@{reporter.domain}>")
        + compose_field("TLS-Report-Domain", report.domain)
        + compose_field("TLS-Report-Submitter", reporter.domain)
        + compose_field("TLS-Required", "No")  # RFC 8460 3: delivered in spite of any failure of TLS; RFC 8689 3
        + compose_field("Auto-Submitted", "auto-generated")
        + compose_field("MIME-Version", "1.0")
        + compose_field("Content-Type", 'multipart/report; report-type="tlsrpt";', f'boundary="{boundary}"')
        + compose_field("Content-Transfer-Encoding", "7bit")
    )
    encoded = base64.b64encode(report.body).decode()
    lines = [
        "",
        f"--{boundary}",
        "Content-Type: text/plain; charset=us-ascii",
        "Content-Transfer-Encoding: 7bit",
        "",
        f"This is a report about TLS with the mail servers of {report.domain}",
        f"on {report.day.isoformat()} (UTC), as {reporter.domain} saw them when it sent mail there.",
        "Its format is that of RFC 8460. You get it since the record",
        f"_smtp._tls.{report.domain} asks for it.",
        f"Questions are welcome: {reporter.contact}",
        "",
        f"--{boundary}",
        "Content-Type: application/tlsrpt+gzip",
        "Content-Transfer-Encoding: base64",
        "Content-Disposition: attachment;",
        f' filename="{report.file_name}"',
        "",
        *[encoded[start : start + _WIDTH] for start in range(0, len(encoded), _WIDTH)],
        f"--{boundary}--",
        "",
    ]
    return (header + "\r\n".join(lines)).encode("ascii")


def signed(message: bytes, signers: Sequence[Signer], now: datetime) -> Content:
    """The message with a signature of each."""
    content = Content.inspect(message)
    header, digest = Header.of(content), body_hash(content)
    return Content.inspect(b"".join(each.field(header, digest, now) for each in signers) + message)
