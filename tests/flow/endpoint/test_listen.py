"""Where an endpoint listens: both families on one socket, and machines without IPv6."""

from __future__ import annotations

import asyncio
import errno
import socket
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.listening import bind
from mailrider.clock import SystemClock
from mailrider.config.loader import loads
from mailrider.endpoint.intake import Memory
from mailrider.endpoint.listener import ConnectionLimits, Endpoint
from mailrider.endpoint.service import Service
from mailrider.endpoint.sockets import Sockets, bind_socket
from mailrider.model.domain import Domain
from mailrider.model.endpoint_event import AddressLeftOut, ClientConnected
from mailrider.net.listen import NoIPv6
from mailrider.settings.socket_address import SocketAddress
from tests.flow.endpoint.running_endpoint import Client, Sink, welcome
from tests.support.loopback import free_port

if TYPE_CHECKING:
    from mailrider.model.event import Event


def endpoint(events: list[Event], *addresses: str) -> Endpoint:
    service = Service("smtp", Domain("x.test"), Sink(), welcome, SystemClock(), events.append, lambda _: "1", Memory())
    return Endpoint(service, list(map(SocketAddress.parse, addresses)), ConnectionLimits())


async def test_an_ipv4_client_of_a_dual_stack_socket_is_an_ipv4_client() -> None:
    events: list[Event] = []
    dual = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    both = endpoint(events, "tcp://0.0.0.0:25", "tcp://[::]:25")
    await both.open(lambda _: dual.dup())
    for host in ("127.0.0.1", "::1"):
        client = Client(*await asyncio.open_connection(host, dual.getsockname()[1]))
        assert await client.hear_codes(1) == [220]
        client.close()
    clients = [event.client for event in events if isinstance(event, ClientConnected)]
    assert clients == ["127.0.0.1", "::1"]
    await both.close(0)
    dual.close()


def no_ipv6(monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    real = socket.socket

    class WithoutIPv6(real):  # type: ignore[valid-type, misc]
        def __init__(self, family: int = -1, *rest: Any, **named: Any) -> None:
            if family == socket.AF_INET6 and how == "absent":
                raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
            super().__init__(family, *rest, **named)

        def bind(self, address: Any) -> None:
            if self.family == socket.AF_INET6:
                raise OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")
            super().bind(address)

    monkeypatch.setattr(socket, "socket", WithoutIPv6)


@pytest.mark.parametrize("how", ["absent", "off"])
async def test_without_ipv6_its_addresses_are_left_out_where_ipv4_is_there(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[Event] = []
    opened = endpoint(events, "tcp://0.0.0.0:0", "tcp://[::]:0")
    no_ipv6(monkeypatch, how)
    await opened.open(bind_socket)
    assert len(opened.ports) == 1
    (left_out,) = (event for event in events if isinstance(event, AddressLeftOut))
    assert (left_out.address, left_out.reason[:23]) == ("tcp://[::]:0", "cannot listen on [::]:0")
    await opened.close(0)


@pytest.mark.parametrize("addresses", [["tcp://[::]:0"], ["tcp://0.0.0.0:1024", "tcp://[::]:0"]])
async def test_and_are_an_error_where_it_is_not(addresses: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    no_ipv6(monkeypatch, "absent")
    with pytest.raises(NoIPv6, match="the kernel has no IPv6"):
        await endpoint([], *addresses).open(bind_socket)


@pytest.mark.parametrize(("addresses", "fits"), [("tcp://0.0.0.0:{0} tcp://[::]:{0}", True), ("tcp://[::]:{0}", False)])
def test_the_daemon_binds_what_is_left(addresses: str, fits: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    port = free_port()
    configuration = loads(f"hostname x.test\nsmtp {addresses.format(port)} {{\nreject\n}}")
    no_ipv6(monkeypatch, "absent")
    sockets = Sockets()
    if fits:
        bind(configuration, sockets)
    else:
        with pytest.raises(NoIPv6):
            bind(configuration, sockets)
    sockets.close()
