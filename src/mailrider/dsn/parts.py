"""The MIME parts of a notification (RFC 2045, 2046), and what of the message is returned in one (RFC 6522)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from typing import TYPE_CHECKING, Final

from mailrider.dsn.notification import NotifiedAction
from mailrider.header.fields import MAX_LINE, compose_field
from mailrider.model.envelope import Ret

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from mailrider.dsn.notification import Notification

MAX_RETURNED: Final = 128 * 1024  # octets: what is returned shall be no burden of its own, nor be spam's vehicle


def returned_part(notification: Notification, *, utf8: bool) -> bytes | None:
    """The message, or its header; None if it cannot be read any more."""
    content = notification.content
    if content is None:
        return None
    # RFC 3461 4.3: RET is for failures; other notifications return the header only. RFC 8689 5: so does REQUIRETLS.
    is_full = (
        notification.envelope.ret is Ret.FULL
        and notification.action is NotifiedAction.FAILED
        and not notification.envelope.requiretls
        and content.size <= MAX_RETURNED
    )
    if not is_full:
        return header_part(content.header, utf8=utf8)
    message = b"".join(content.chunks())
    # RFC 2046 5.2.1: message/rfc822 can't be encoded, and message/global can (RFC 6532 3.7).
    is_plain = not content.header_is_utf8 and _encoding(message, utf8=utf8) in ("7bit", "8bit")
    form = "message/rfc822" if is_plain else "message/global"
    return part(form, "Undelivered message", message, utf8=utf8)


def header_part(header: bytes, *, utf8: bool) -> bytes:
    """A part with the header, as far as `MAX_RETURNED` allows."""
    if len(header) > MAX_RETURNED:
        header = header[: header.rfind(b"\n", 0, MAX_RETURNED) + 1]
    if header.isascii():
        return part("text/rfc822-headers", "Header of the message", header, utf8=utf8)
    text = header.decode("utf-8", "replace").encode()
    if utf8:
        return part("message/global-headers", "Header of the message", text, utf8=True)
    # RFC 6522 4: what is not 7-bit in it is encoded.
    return part("text/rfc822-headers; charset=utf-8", "Header of the message", text, utf8=False)


def part(content_type: str, description: str, body: bytes, *, utf8: bool) -> bytes:
    """A part, encoded as it needs to be."""
    encoding = _encoding(body, utf8=utf8)
    if encoding == "encoded":
        is_text = content_type.startswith("text/")
        encoding = "quoted-printable" if is_text else "base64"
        octets = binascii.b2a_qp(body.replace(b"\r\n", b"\n")) if is_text else base64.encodebytes(body)
        body = octets.replace(b"\n", b"\r\n")
    head = "".join(
        (
            compose_field("Content-Type", content_type),
            compose_field("Content-Description", description),
            compose_field("Content-Transfer-Encoding", encoding),
        )
    )
    # RFC 2046 5.1.1: the line end before a delimiter belongs to that, so what ends in one gets another.
    return head.encode() + b"\r\n" + body + b"\r\n"


def _encoding(body: bytes, *, utf8: bool) -> str:
    """What a part needs (RFC 2045 2.7, 2.8): `7bit`; `8bit` if the message may be; otherwise it has to be `encoded`."""
    if b"\0" in body or max(map(len, body.split(b"\n"))) > MAX_LINE + 1:  # with its CR
        return "encoded"
    if body.isascii():
        return "7bit"
    return "8bit" if utf8 else "encoded"


def boundary_between(seed: str, parts: Sequence[bytes]) -> str:
    """A delimiter that stands in none of the parts."""
    attempt = 0
    while True:
        boundary = f"={attempt}={hashlib.sha256(f'{seed} {attempt}'.encode()).hexdigest()[:32]}"
        if not any(boundary.encode() in each for each in parts):
            return boundary
        attempt += 1


_BOUNDARY = re.compile(rb'\r\n\tboundary="(=[=0-9a-f]{1,60})"\r\n')


def redact(notification: bytes) -> bytes | None:
    """One of our notifications without anything of the message's header but Message-ID and Date (RFC 8689 5).

    None if it is no notification with a header to redact.
    """
    found = _BOUNDARY.search(notification, 0, notification.find(b"\r\n\r\n") + 2)
    if found is None:
        return None
    delimiter = b"--" + found[1]
    pieces = notification.split(delimiter)
    if len(pieces) != 5:  # before, three parts, and behind
        return None
    kept = b"".join(_kept_fields(_decoded(pieces[3])))
    pieces[3] = b"\r\n" + header_part(kept, utf8=not notification.isascii())
    return delimiter.join(pieces)


def _decoded(part: bytes) -> bytes:
    """What one of our parts holds."""
    head, _, body = part.partition(b"\r\n\r\n")
    if head.endswith(b": quoted-printable"):
        return binascii.a2b_qp(body)
    return base64.b64decode(body) if head.endswith(b": base64") else body


def _kept_fields(header: bytes) -> Iterator[bytes]:
    keep = False
    for line in header.split(b"\r\n"):
        if not line.startswith((b" ", b"\t")):
            keep = line.lower().startswith((b"message-id:", b"date:"))
        if keep:
            yield line + b"\r\n"
