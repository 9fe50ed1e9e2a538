"""Headers of the PROXY protocol, right and wrong, whole and octet by octet."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrider.errors import InvalidValue
from mailrider.net.proxy import MAX_BODY, MAX_LINE, ProxyHeader, parse_proxy_header

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
FOUR = bytes([192, 0, 2, 1, 198, 51, 100, 1, 0x30, 0x39, 0, 25])
SIX = bytes.fromhex("20010db8000000000000000000000001 20010db8000000000000000000000002 3039 0019")
MAPPED = bytes.fromhex("00000000000000000000ffffc0000201 20010db8000000000000000000000002 3039 0019")


def binary(command: int, family: int, body: bytes, length: int | None = None) -> bytes:
    return SIGNATURE + bytes([command, family]) + (len(body) if length is None else length).to_bytes(2, "big") + body


RIGHT = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 25\r\n", "192.0.2.1"),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 12345 25\r\n", "2001:db8::1"),
    (b"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.1 12345 25\r\n", "192.0.2.1"),
    (b"PROXY UNKNOWN\r\n", ""),
    (b"PROXY UNKNOWN ffff::1 whatever 1 2 3\r\n", ""),
    (binary(0x21, 0x11, FOUR), "192.0.2.1"),
    (binary(0x21, 0x11, FOUR + b"\x20\0\1x"), "192.0.2.1"),
    (binary(0x21, 0x21, SIX), "2001:db8::1"),
    (binary(0x21, 0x21, MAPPED), "192.0.2.1"),
    (binary(0x21, 0x00, b""), ""),
    (binary(0x21, 0x31, b"x" * 216), ""),
    (binary(0x20, 0x11, FOUR), ""),
    (binary(0x20, 0x00, b""), ""),
    (binary(0x21, 0x11, FOUR + b"x" * (MAX_BODY - 12)), "192.0.2.1"),
]


@pytest.mark.parametrize(("octets", "client"), RIGHT)
def test_a_header_names_the_client_and_ends_where_it_ends(octets: bytes, client: str) -> None:
    assert parse_proxy_header(octets + b"EHLO x\r\n") == ProxyHeader(len(octets), client)
    assert all(parse_proxy_header(octets[:size]) is None for size in range(len(octets)))


@pytest.mark.parametrize(
    "octets",
    [
        b"EHLO client.example\r\n",
        b"PROXYTCP4",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 12345\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.1 12345 -1\r\n",
        b"PROXY TCP4 192.0.2.1  198.51.100.1 12345 25\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 12345 25\r\n",
        b"PROXY TCP6 192.0.2.1 198.51.100.1 12345 25\r\n",
        b"PROXY TCP4 localhost 198.51.100.1 12345 25\r\n",
        b"PROXY TCP6 fe80::1%\x1b[31m 2001:db8::2 12345 25\r\n",
        b"PROXY TCP5 192.0.2.1 198.51.100.1 12345 25\r\n",
        b"PROXY \xff\r\n",
        b"PROXY \r\n",
        b"PROXY UNKNOWN " + b"x" * MAX_LINE,
        b"\r\n\r\nX",
        binary(0x11, 0x11, FOUR),
        binary(0x22, 0x11, FOUR),
        binary(0x21, 0x11, FOUR[:-1]),
        binary(0x21, 0x21, SIX[:-1]),
        binary(0x21, 0x12, FOUR),
        binary(0x21, 0x22, SIX),
        binary(0x21, 0x41, SIX),
        binary(0x21, 0x11, FOUR, MAX_BODY + 1),
    ],
)
def test_what_is_no_header_is_told_apart(octets: bytes) -> None:
    with pytest.raises(InvalidValue):
        parse_proxy_header(octets)


@given(st.sampled_from([b"", b"PROXY ", b"PROXY TCP4 ", SIGNATURE, SIGNATURE + b"\x21\x11"]), st.binary(max_size=300))
@example(b"PROXY TCP4 ", "1 2 ٣ ٤\r\n".encode())
def test_nothing_else_ever_happens(begin: bytes, rest: bytes) -> None:
    try:
        header = parse_proxy_header(begin + rest)
    except InvalidValue:
        return
    assert header is None or header.size <= len(begin + rest)
