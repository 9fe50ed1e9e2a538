"""What tests of channels share: receivers that remember, a transport that is a list, TLS contexts."""

from __future__ import annotations

import asyncio
import tempfile
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.lab.ca import CA, Kind, LabCertificate
from mailrider.net.settings import TLSClientSettings
from mailrider.net.tls import make_client_context, make_server_context

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable

    from mailrider.net.channel import Channel
    from mailrider.net.pipe import Bytes

HOST = "mx.example.test"


class Recorder:
    """A receiver that keeps all it is told; `losses` has one entry, or something is wrong."""

    def __init__(self, channel: Channel | None = None) -> None:
        self.channel = channel
        self.chunks: list[bytes] = []
        self.losses: list[Exception | None] = []

    @property
    def data(self) -> bytes:
        return b"".join(self.chunks)

    @property
    def is_lost(self) -> bool:
        return bool(self.losses)

    def data_received(self, data: bytes) -> None:
        assert data, "never empty"
        assert not self.losses, "nothing comes after the end"
        self.chunks.append(data)

    def connection_lost(self, error: Exception | None) -> None:
        assert not self.losses, "the end comes once"
        self.losses.append(error)


class Wire(asyncio.Transport):
    """A transport that sends nothing: `sent` is what was written, in order, `full` makes it refuse more.

    The end is told from the event loop, as real transports do.
    """

    def __init__(self) -> None:
        super().__init__({"peername": ("192.0.2.1", 25), "sockname": ("192.0.2.2", 50000)})
        self.sent: list[bytes] = []
        self.full = False
        self.paused = False
        self.closed = self.aborted = False
        self.loop = asyncio.get_running_loop()
        self.protocol: asyncio.Protocol

    def carry(self, protocol: asyncio.Protocol) -> None:
        self.protocol = protocol
        protocol.connection_made(self)

    def fill(self) -> None:
        """The peer reads no more."""
        self.full = True
        self.protocol.pause_writing()

    def empty(self) -> None:
        """The peer has read."""
        self.full = False
        self.protocol.resume_writing()
        if self.closed:
            self.loop.call_soon(self.protocol.connection_lost, None)

    def write(self, data: Bytes) -> None:
        assert not self.paused or not self.closed
        self.sent.append(bytes(data))

    def writelines(self, list_of_data: list[bytes]) -> None:  # type: ignore[override]
        self.write(b"".join(list_of_data))

    def is_closing(self) -> bool:
        return self.closed

    def get_write_buffer_size(self) -> int:
        return sum(map(len, self.sent)) if self.full else 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            if not self.full:
                self.loop.call_soon(self.protocol.connection_lost, None)

    def abort(self) -> None:
        if not self.aborted:
            self.aborted = True
            if not self.closed or self.full:
                self.loop.call_soon(self.protocol.connection_lost, None)
            self.closed = True


async def settle(turns: int = 10) -> None:
    """Let what is due in the event loop run."""
    for _ in range(turns):
        await asyncio.sleep(0)


async def until(fact: Callable[[], object], turns: int = 100_000) -> None:
    """Turn the event loop until `fact()` holds; fails after so many turns."""
    for _ in range(turns):
        if fact():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never happened")


@cache
def authority() -> CA:
    return CA()


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()


def issued(kind: Kind = Kind.VALID) -> LabCertificate:
    """The certificate of `HOST`."""
    return _issued(kind)[0]


def files(kind: Kind = Kind.VALID) -> tuple[Path, Path]:
    """Its chain and key, as files."""
    return _issued(kind)[1]


@cache
def _issued(kind: Kind) -> tuple[LabCertificate, tuple[Path, Path]]:
    certificate = authority().issue([HOST], kind)
    return certificate, certificate.write(Path(_folder().name), kind)


@cache
def root_file() -> Path:
    return authority().write_root(Path(_folder().name))


@cache
def server_context(
    kind: Kind = Kind.VALID,
    protocols: tuple[str, str] = ("tls1.2", "tls1.3"),
    *,
    demand_client: bool = False,
) -> ssl.SSLContext:
    return make_server_context(
        *files(kind),
        protocols=protocols,
        client_ca=root_file() if demand_client else None,
        weak=kind is Kind.WEAK,
    )


@cache
def client_context(settings: TLSClientSettings | None = None) -> ssl.SSLContext:
    return make_client_context(settings or TLSClientSettings())
