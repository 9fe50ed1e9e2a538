"""A DNS server between us and a forwarder that changes what passes: over UDP and TCP, on an address of its own."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

import dns.exception
import dns.flags
import dns.message
import dns.query
import dns.rdatatype
import dns.rrset

from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Change = Callable[[dns.message.Message], dns.message.Message | None]


def honest(message: dns.message.Message) -> dns.message.Message:
    """Change nothing."""
    return message


def with_ad(message: dns.message.Message) -> dns.message.Message:
    """Claim that all was validated, whatever it is."""
    message.flags |= dns.flags.AD
    return message


def stripped(message: dns.message.Message) -> dns.message.Message:
    """Take all that DNSSEC needs away, and claim that all was validated."""
    lost = (dns.rdatatype.RRSIG, dns.rdatatype.NSEC, dns.rdatatype.NSEC3)
    for section in (message.answer, message.authority, message.additional):
        section[:] = [rrset for rrset in section if rrset.rdtype not in lost]
    return with_ad(message)


def forged(message: dns.message.Message) -> dns.message.Message:
    """Another address for every name."""
    for number, rrset in enumerate(message.answer):
        if rrset.rdtype == dns.rdatatype.A:
            message.answer[number] = dns.rrset.from_text(rrset.name, rrset.ttl, "IN", "A", "192.0.2.66")
    return with_ad(message)


def silent(message: dns.message.Message) -> None:
    """No answer."""


class Liar:
    """`change` may be set at any time; `asked` counts questions."""

    def __init__(self, upstream: str, change: Change, address: str, port: int) -> None:
        self.upstream = upstream
        self.change = change
        self.address = address
        self.port = port
        self.asked = 0

    def answer(self, octets: bytes, *, tcp: bool) -> bytes | None:
        """What is sent back."""
        self.asked += 1
        query = dns.message.from_wire(octets)
        try:
            reply = (dns.query.tcp if tcp else dns.query.udp)(query, self.upstream, timeout=30)
        except (OSError, dns.exception.DNSException):
            return None
        changed = self.change(reply)
        return None if changed is None else changed.to_wire(max_size=65535)


@contextlib.contextmanager
def start_liar(upstream: str, change: Change = honest, *, address: str | None = None, port: int = 53) -> Iterator[Liar]:
    """A liar before that forwarder, while the block lasts."""
    liar = Liar(upstream, change, address or new_address(), port)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        socket.create_server((liar.address, port)) as listener,
    ):
        datagrams.bind((liar.address, port))
        threads = [
            threading.Thread(target=_serve_datagrams, args=(liar, datagrams)),
            threading.Thread(target=_serve_connections, args=(liar, listener)),
        ]
        for thread in threads:
            thread.start()
        try:
            yield liar
        finally:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", (liar.address, port))
            for thread in threads:
                thread.join()


def _serve_datagrams(liar: Liar, sock: socket.socket) -> None:
    while True:
        octets, whose = sock.recvfrom(65535)
        if not octets:
            return
        threading.Thread(target=_answer_datagram, args=(liar, sock, octets, whose)).start()


def _answer_datagram(liar: Liar, sock: socket.socket, octets: bytes, whose: tuple[str, int]) -> None:
    reply = liar.answer(octets, tcp=False)
    if reply is not None:
        with contextlib.suppress(OSError):
            sock.sendto(reply, whose)


def _serve_connections(liar: Liar, listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        threading.Thread(target=_answer_connection, args=(liar, connection)).start()


def _answer_connection(liar: Liar, connection: socket.socket) -> None:
    with connection, connection.makefile("rb") as incoming, contextlib.suppress(OSError):
        while length := incoming.read(2):
            reply = liar.answer(incoming.read(int.from_bytes(length)), tcp=True)
            if reply is None:
                return
            connection.sendall(len(reply).to_bytes(2) + reply)
