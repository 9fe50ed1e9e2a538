"""Just enough DER to find the public key of a certificate (X.690 8.1, RFC 5280 4.1).

DANE compares the octets of SubjectPublicKeyInfo as the server sent them (RFC 6698 2.1.2). Libraries decode a key and
encode it anew, which need not give the same octets, and refuse keys that they do not know; so the field is cut out
here, and nothing inside it is looked at. The bytes come from a stranger: every length is compared with what is there,
and nothing is read twice, so the work is bounded by a handful of steps.
"""

from __future__ import annotations

from mailrider.errors import InvalidValue

_INTEGER = 0x02
_SEQUENCE = 0x30
_VERSION = 0xA0  # [0] EXPLICIT
_MAX_LENGTH_OCTETS = 4  # 4 GiB: more than any certificate, and small enough to stay an ordinary integer


def subject_public_key_info(certificate: bytes) -> bytes:
    """That field of a DER certificate, as it stands; `InvalidValue` if this is none, or has octets behind its end."""
    at, end = _element(certificate, 0, len(certificate), _SEQUENCE, "the certificate")
    if end != len(certificate):
        raise InvalidValue(f"{len(certificate) - end} octets stand behind the certificate")
    at, end = _element(certificate, at, end, _SEQUENCE, "the part that is signed")
    if certificate[at : at + 1] == bytes((_VERSION,)):
        _, at = _element(certificate, at, end, _VERSION, "the version")
    _, at = _element(certificate, at, end, _INTEGER, "the serial number")
    for field in ("the signature algorithm", "the issuer", "the validity", "the subject"):
        _, at = _element(certificate, at, end, _SEQUENCE, field)
    _, after = _element(certificate, at, end, _SEQUENCE, "the public key")
    return certificate[at:after]


def _element(data: bytes, at: int, end: int, tag: int, what: str) -> tuple[int, int]:
    """Where the contents of the element at `at` begin, and where they end, which is where the next one begins."""
    if end - at < 2 or data[at] != tag:
        raise InvalidValue(f"{what} is missing")
    length = data[at + 1]
    body = at + 2
    if length & 0x80:
        octets = length & 0x7F
        if not 0 < octets <= _MAX_LENGTH_OCTETS:
            raise InvalidValue(f"the length of {what} is not DER")
        length = int.from_bytes(data[body : body + octets], "big")
        body += octets
    if body + length > end:
        raise InvalidValue(f"{what} is cut off")
    return body, body + length
