"""The lab's MTA-STS policy hosts: one HTTPS server on loopback that is `mta-sts.<domain>` for any number of domains.

    async with LabSTS(ca, {"good.test": PolicyHost(policy("enforce", "mx.good.test"))}) as hosts:
        ... address records of mta-sts.good.test: hosts.address; https_port: hosts.port ...
        hosts["good.test"] = PolicyHost(fault=STSFault.ENDLESS)
        assert hosts.fetches("good.test") == 1

The certificate is chosen by SNI, the policy by the Host field, so each domain may be wrong in a way of its own, and may
change while the server runs. HTTP is written out by hand here, because most of what a lab needs is what a good HTTP
server refuses to do. `requests` has the latest request lines with their fields.
"""

from __future__ import annotations

import asyncio
import enum
import gzip
import ssl
import tempfile
from collections import Counter, deque
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mailrider.clock import SystemClock
from mailrider.lab.ca import Kind

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from mailrider.clock import Clock
    from mailrider.lab.ca import CA

MAX_REPORT = 1024 * 1024  # octets of a TLS report that are taken
REPORT_PATH = "/tlsrpt"  # where TLS reports are posted to (RFC 8460 5.4); answered with the `status` of the host
MAX_LOG = 1000  # requests remembered; a lab may run for days
MAX_ENDLESS = 64 * 1024 * 1024  # octets after which even endless bodies end: nobody should have read that much
_BLOCK = b"mx: mx.example.com\n" * 1024
_PREFIX = "mta-sts."


class STSFault(enum.StrEnum):
    """What a policy host does instead of serving its policy."""

    SILENT = "silent"
    """Takes the request and never answers."""
    CLOSE = "close"
    """Closes instead of answering."""
    GARBAGE = "garbage"
    """Answers with something that is not HTTP."""
    ENDLESS = "endless"
    """A body, chunked, without an end."""
    ENDLESS_HEADER = "endless-header"
    SLOW = "slow"
    """The policy, an octet a second."""
    PADDED = "padded"
    """An endless body, each of its octets a chunk with a kilobyte of extensions (RFC 9112 7.1.1)."""
    TOO_LARGE = "too-large"
    """A body with an honest Content-Length of 1 MiB."""
    SHORT = "short"
    """Half of the body that Content-Length promises, then close."""
    UNFRAMED = "unframed"
    """No Content-Length, no chunks: the connection's end ends the body."""
    COMPRESSED = "compressed"
    """A bomb: 10 MiB of spaces in 10 KiB of gzip, which nobody asked for."""


@dataclass(frozen=True, slots=True)
class PolicyHost:
    """How `mta-sts.<domain>` behaves. `delay` is in seconds; `location` is the target of a 3xx `status`."""

    body: bytes = b""
    certificate: Kind = Kind.VALID
    status: int = 200
    content_type: str = "text/plain"
    location: str = ""
    delay: float = 0.0
    fault: STSFault | None = None


def policy(mode: str, *mx: str, max_age: int = 604_800) -> bytes:
    """A policy file, without asking whether it makes sense."""
    lines = ["version: STSv1", f"mode: {mode}", *(f"mx: {pattern}" for pattern in mx), f"max_age: {max_age}"]
    return "".join(f"{line}\r\n" for line in lines).encode()


class LabSTS:
    """The policy hosts of a table of mail domains; use it with `async with`."""

    def __init__(
        self,
        ca: CA,
        hosts: Mapping[str, PolicyHost] | None = None,
        address: str = "127.0.0.44",
        port: int = 0,
        *,
        clock: Clock | None = None,
    ) -> None:
        self.address = address
        self.port = port
        self._ca = ca
        self._hosts = dict(hosts or {})
        self._clock = clock or SystemClock()
        self.requests: deque[tuple[str, dict[str, str]]] = deque(maxlen=MAX_LOG)
        self.reports: deque[tuple[str, dict[str, str], bytes]] = deque(maxlen=MAX_LOG)
        """The TLS reports that came: mail domain, fields of the request, body."""
        self._fetches: Counter[str] = Counter()
        self._changed = asyncio.Event()
        self._contexts: dict[tuple[str, Kind], ssl.SSLContext] = {}
        self._server: asyncio.Server | None = None
        self._dialogues: set[asyncio.Task[None]] = set()

    def __setitem__(self, domain: str, host: PolicyHost) -> None:
        """Change what the policy host of a domain does, from the next connection on."""
        self._hosts[domain] = host

    def __delitem__(self, domain: str) -> None:
        """There is no such policy host any more: TLS fails."""
        del self._hosts[domain]

    def fetches(self, domain: str) -> int:
        """How many requests for the policy of that domain came in."""
        return self._fetches[domain]

    async def wait_fetched(self, domain: str, times: int = 1) -> None:
        """Wait until that many requests have come in."""
        while self._fetches[domain] < times:
            self._changed.clear()
            await self._changed.wait()

    async def wait_report(self, number: int = 1) -> tuple[str, dict[str, str], bytes]:
        """The TLS report of that number, from 1 on, once it is there."""
        while len(self.reports) < number:
            self._changed.clear()
            await self._changed.wait()
        return self.reports[number - 1]

    async def __aenter__(self) -> Self:
        front = _server_context()
        front.sni_callback = self._choose_certificate
        self._server = await asyncio.start_server(self._accept, self.address, self.port, ssl=front)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        dialogues = list(self._dialogues)
        for dialogue in dialogues:
            dialogue.cancel()
        await asyncio.gather(*dialogues, return_exceptions=True)
        await asyncio.sleep(0)  # the loop closes sockets in its next round

    # --- TLS ------------------------------------------------------------------------------------

    def _choose_certificate(self, connection: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> int | None:
        domain = (name or "").removeprefix(_PREFIX)
        host = self._hosts.get(domain)
        if host is None:
            return ssl.ALERT_DESCRIPTION_UNRECOGNIZED_NAME
        connection.context = self._context_of(domain, host.certificate)
        return None

    def _context_of(self, domain: str, kind: Kind) -> ssl.SSLContext:
        context = self._contexts.get((domain, kind))
        if context is None:
            context = _server_context()
            certificate = self._ca.issue([_PREFIX + domain], kind)
            with tempfile.TemporaryDirectory() as folder:  # ssl reads certificates from files only
                context.load_cert_chain(*certificate.write(Path(folder), "policy-host"))
            self._contexts[domain, kind] = context
        return context

    # --- HTTP -----------------------------------------------------------------------------------

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        dialogue = asyncio.create_task(self._serve(reader, writer))
        self._dialogues.add(dialogue)
        dialogue.add_done_callback(self._dialogues.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass  # the client has gone, or talks nonsense
        finally:
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request, fields = _read_head(await reader.readuntil(b"\r\n\r\n"))
        domain = fields.get("host", "").partition(":")[0].removeprefix(_PREFIX)
        host = self._hosts.get(domain, PolicyHost(status=421))
        if request.split(" ")[:2] == ["POST", REPORT_PATH]:
            size = min(int(fields.get("content-length", "0")), MAX_REPORT)
            self.reports.append((domain, fields, await reader.readexactly(size)))
        elif request.split(" ")[1:2] != ["/.well-known/mta-sts.txt"]:
            host = PolicyHost(b"no such file\n", status=404)
        self.requests.append((request, fields))
        self._fetches[domain] += 1
        self._changed.set()
        if host.delay:
            await self._clock.sleep(host.delay)
        await self._send(host, writer)
        writer.close()
        await writer.wait_closed()

    async def _send(self, host: PolicyHost, writer: asyncio.StreamWriter) -> None:
        head, body = _head(host), host.body
        match host.fault:
            case None:
                writer.write(_framed(head, body))
            case STSFault.SILENT:
                await asyncio.Event().wait()
            case STSFault.CLOSE:
                pass
            case STSFault.GARBAGE:
                writer.write(b"220 policy.example.com ESMTP\r\n\r\n")
            case STSFault.ENDLESS:
                writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                await _repeat(writer, b"%x\r\n%b\r\n" % (len(_BLOCK), _BLOCK))
            case STSFault.ENDLESS_HEADER:
                writer.write(head.encode())
                await _repeat(writer, b"X-Filler: " + b"x" * 1000 + b"\r\n")
            case STSFault.SLOW:
                await self._send_slowly(writer, _framed(head, body))
            case STSFault.PADDED:
                writer.write(f"{head}Transfer-Encoding: chunked\r\n\r\n".encode())
                await _repeat(writer, b"1;" + b"x" * 1000 + b"\r\n#\r\n")
            case STSFault.TOO_LARGE:
                writer.write(_framed(head, b"#" * (1 << 20)))
            case STSFault.SHORT:
                writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2])
            case STSFault.UNFRAMED:
                writer.write(head.encode() + b"\r\n" + body)
            case STSFault.COMPRESSED:
                writer.write(_framed(f"{head}Content-Encoding: gzip\r\n", gzip.compress(b" " * (10 << 20))))

    async def _send_slowly(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        for octet in data:
            writer.write(bytes([octet]))
            await writer.drain()
            await self._clock.sleep(1.0)


def _server_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.set_alpn_protocols(["http/1.1"])
    return context


def _read_head(data: bytes) -> tuple[str, dict[str, str]]:
    request, *lines = data.decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in lines if line)
    return request, {name.strip().lower(): value.strip() for name, _, value in pairs}


def _head(host: PolicyHost) -> str:
    location = f"Location: {host.location}\r\n" if host.location else ""
    media_type = f"Content-Type: {host.content_type}\r\n" if host.content_type else ""
    return f"HTTP/1.1 {host.status} Lab\r\nConnection: close\r\n{media_type}{location}"


def _framed(head: str, body: bytes) -> bytes:
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


async def _repeat(writer: asyncio.StreamWriter, data: bytes) -> None:
    for _ in range(MAX_ENDLESS // len(data)):
        writer.write(data)
        await writer.drain()
