"""A zone that makes validators work: many keys and many signatures of one key tag, none of which fits (KeyTrap).

Whoever tries each signature of the MX records with each key works for a second or more (CVE-2023-50387).
"""

from __future__ import annotations

from base64 import b64encode

from tests.peers.hierarchy import SignedZone

NAME = "keytrap.test"
MANY = 150
TAG = 4711


def keytrap_zone() -> SignedZone:
    """Properly signed, but for the MX records."""
    keys = [f"DNSKEY 256 3 8 {b64encode(_key(number)).decode()}" for number in range(MANY)]
    signatures = (b64encode(number.to_bytes(256)).decode() for number in range(1, MANY + 1))
    fakes = [
        f"{NAME}.\t300\tIN\tRRSIG\tMX 8 2 300 20350101000000 20200101000000 {TAG} {NAME}. {each}" for each in signatures
    ]
    genuine = rf"(?m)^{NAME}\.\t\d+\tIN\tRRSIG\tMX .*$"
    return SignedZone(
        NAME, {"@": ["MX 10 mx", *keys], "mx": ["A 127.9.9.9"]}, "RSASHA256", altered=(genuine, "\n".join(fakes))
    )


def _key(number: int) -> bytes:
    """An RSA key that nobody made, whose key tag (RFC 4034 appendix B) is `TAG`."""
    start, end = b"\3\1\0\1\x80" + number.to_bytes(2) + b"\x55" * 249, b"\0\1"
    base = sum(_words(bytes((1, 0, 3, 8)) + start + b"\0\0" + end))
    wanted = (TAG - base - (base >> 16)) & 0xFFFF
    fitting = next(fill for fill in (wanted, wanted - 1) if _fold(base + fill) == TAG)
    return start + fitting.to_bytes(2) + end


def _words(rdata: bytes) -> list[int]:
    return [int.from_bytes(rdata[at : at + 2]) for at in range(0, len(rdata), 2)]


def _fold(total: int) -> int:
    return (total + (total >> 16)) & 0xFFFF
