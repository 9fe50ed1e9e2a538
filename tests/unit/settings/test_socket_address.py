"""Where servers listen, as configurations write it."""

from __future__ import annotations

from ipaddress import ip_address
from pathlib import Path

import pytest

from mailrider.errors import InvalidValue
from mailrider.model.domain import Domain
from mailrider.settings.socket_address import SOCKET_ADDRESS, Scheme, SocketAddress

ADDRESSES = {
    "tcp://127.0.0.1:25": SocketAddress(Scheme.TCP, ip_address("127.0.0.1"), 25),
    "tls://[::1]:465": SocketAddress(Scheme.TLS, ip_address("::1"), 465),
    "tcp://smtp.example.org:587": SocketAddress(Scheme.TCP, Domain("smtp.example.org"), 587),
    "unix:///run/lmtp.sock": SocketAddress(Scheme.UNIX, path=Path("/run/lmtp.sock")),
}

NONE = (
    *("", "127.0.0.1:25", "tcp://127.0.0.1", "tcp://:25", "tcp://127.0.0.1:70000", "tcp://::1:25", "smtp://a.b:25"),
    *("unix://relative", "unix:///" + "x" * 107, "tcp://no_host!:25", "unix:///nul\0"),
)


@pytest.mark.parametrize(("text", "address"), ADDRESSES.items(), ids=ADDRESSES)
def test_addresses_are_read_and_written(text: str, address: SocketAddress) -> None:
    assert SocketAddress.parse(text) == address
    assert str(address) == text


@pytest.mark.parametrize("text", NONE)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(InvalidValue):
        SocketAddress.parse(text)


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("tcp://127.0.0.1:25", True),
        ("tls://[::1]:465", True),
        ("unix:///run/lmtp.sock", True),
        ("tcp://192.0.2.1:25", False),
        ("tcp://localhost:25", False),  # whatever a name leads to
    ],
)
def test_what_nobody_beyond_this_machine_reaches_is_local(text: str, is_local: bool) -> None:
    assert SocketAddress.parse(text).is_local is is_local


def test_settings_take_text_and_values() -> None:
    address = ADDRESSES["tcp://127.0.0.1:25"]
    assert SOCKET_ADDRESS.accept("tcp://127.0.0.1:25") == SOCKET_ADDRESS.accept(address) == address


@pytest.mark.parametrize(
    ("text", "brother"),
    [
        ("tcp://[::]:25", "tcp://0.0.0.0:25"),
        ("tls://[::]:465", "tls://0.0.0.0:465"),
        ("tcp://[::1]:25", None),
        ("tcp://0.0.0.0:25", None),
        ("unix:///run/x", None),
    ],
)
def test_all_addresses_of_ipv6_have_a_brother_of_ipv4(text: str, brother: str | None) -> None:
    expected = None if brother is None else SocketAddress.parse(brother)
    assert SocketAddress.parse(text).ipv4_counterpart == expected
