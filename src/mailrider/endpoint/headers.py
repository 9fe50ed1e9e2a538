"""What an endpoint writes into a header, and what it takes out. Pure.

- Received is added to every message, at the top (RFC 5321 4.4; the words behind `with`: RFC 3848, RFC 6531 3.7.3);
- on submission Date and Message-ID are added if they are missing (RFC 6409 8), and Bcc and Resent-Bcc are taken out:
  the envelope has those recipients, and nobody else shall read them (RFC 5322 3.6.3); addresses without a domain get
  one (`endpoint.complete`);
- everything else stays, octet by octet, in its order: signatures cover it. Return-Path is for whoever delivers
  finally (RFC 5321 4.4), and not touched.

All functions take a mended header: lines that end in CRLF, without the empty line.
"""

from __future__ import annotations

import enum
import re
from datetime import datetime
from email.utils import format_datetime
from functools import lru_cache
from typing import TYPE_CHECKING

from mailrider.endpoint.complete import complete_addresses
from mailrider.header.fields import compose_field
from mailrider.model.value import value
from mailrider.smtp.header import header_fields, without_bcc

if TYPE_CHECKING:
    from datetime import tzinfo

    from mailrider.model.domain import Domain

MAX_MESSAGE_ID = 998  # octets: a line (RFC 5322 2.1.1)

_RECEIVED = re.compile(rb"\n(?i:received)[ \t]*:")  # it begins with an octet that is quickly found


class ReceivedDetail(enum.StrEnum):
    """What Received tells of the client."""

    FULL = "full"
    SHORT = "short"
    NONE = "none-of-client"


@value
class ReceivedInfo:
    """How a message came to us.

    `name` is what the client called itself, `client` its address literal or `local`; `recipient` is given only if
    there is no other (RFC 5321 7.6: others must not be disclosed). `tls` describes the channel, empty in clear.
    `detail` is how much of that is written down.
    """

    name: str
    client: str
    hostname: Domain
    protocol: str
    id: str
    at: datetime
    recipient: str = ""
    tls: str = ""
    detail: ReceivedDetail = ReceivedDetail.FULL


def received_field(info: ReceivedInfo) -> bytes:
    """The Received field, folded, with its line end."""
    date = _date(int(info.at.timestamp()), info.at.tzinfo)
    by = f"by {info.hostname.ascii} with {info.protocol} id {info.id}"
    if info.recipient:
        lines = (*_origin(info), by, f"for <{info.recipient}>;", date)
    else:
        lines = (*_origin(info), by + ";", date)
    return compose_field("Received", *lines, fold="\t").encode()


def _origin(info: ReceivedInfo) -> tuple[str, ...]:
    """The lines before `by`."""
    detail = info.detail
    if detail is ReceivedDetail.FULL:
        whole = f"from {info.name} ({info.client})"
        return (whole, f"({info.tls})") if info.tls else (whole,)
    if detail is ReceivedDetail.SHORT:
        return (f"from {info.client if info.client.startswith('[') else 'localhost'}",)
    # RFC 5321 4.4 asks for FROM; whoever hides his users does not want it (RFC 5322 3.6.7 does without).
    return ()


def submitted_header(header: bytes, info: ReceivedInfo, origin: Domain | None = None) -> bytes:
    """The header of a message that its author's program handed in, as it goes on; Received still to be added.

    `origin`: the domain of addresses that have none.
    """
    if origin is not None:
        header = complete_addresses(header, origin)
    added = b""
    if not header_fields(header, "Message-ID"):
        added += compose_field("Message-ID", f"<{info.id}@{info.hostname.ascii}>").encode()
    if not header_fields(header, "Date"):
        added += compose_field("Date", _date(int(info.at.timestamp()), info.at.tzinfo)).encode()
    return added + without_bcc(header)


def message_id_of(header: bytes) -> str:
    """What the header calls the message, for our log; empty if it says nothing."""
    found = header_fields(header, "Message-ID")
    return found[0][:MAX_MESSAGE_ID].decode("utf-8", "replace") if found else ""


@lru_cache(maxsize=16)  # many messages have one second
def _date(second: int, zone: tzinfo | None) -> str:
    return format_datetime(datetime.fromtimestamp(second, zone))


def count_received(header: bytes) -> int:
    """How many servers the message came through; too many mean a loop (RFC 5321 6.3)."""
    return len(_RECEIVED.findall(b"\n" + header))
