"""One small file over HTTPS, as RFC 8461 3.3 wants MTA-STS policies fetched.

aiohttp speaks the protocol; names are looked up by our own resolver, so that there is one view of DNS, and time is the
engine's clock.

What always holds: the certificate chains to the system's roots (or to `root_ca` alone, where given) and has the host's
name as a DNS-ID; status 200; `text/plain`; no larger than asked for; done within the time given. The connection goes to
an address that was judged by an `AddressGuard`; a host that is named by an address is never connected to.
No more than `MAX_RECEIVED` octets are heard, whatever they are.
What it never does: follow a redirect, keep a cookie, use a proxy or credentials from the environment, decompress,
cache, reuse a connection. Whatever goes wrong is a `FetchFailed` with a reason for people; all are temporary.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.http_exceptions import HttpProcessingError
from yarl import URL

from mailrider.clock import after
from mailrider.dns.answer import LookupFailed
from mailrider.dns.resolver import lookup_a, lookup_aaaa
from mailrider.dns.slots import SharedSlots
from mailrider.errors import ConfigError
from mailrider.files import read_regular
from mailrider.model.domain import Domain, owner_of
from mailrider.model.reply import clean_text
from mailrider.net.fetch import FetchFailed, FetchFailure
from mailrider.x509.verify_error import VerifyError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from ipaddress import IPv4Address, IPv6Address
    from typing import Any, Self

    from mailrider.clock import Clock
    from mailrider.dns.resolver import Resolver
    from mailrider.net.address_guard import AddressGuard

MAX_ADDRESSES = 6  # of one host, as for an MX host: a zone may list any number
MAX_FETCHES = 256  # under way at once, each a socket; further ones wait, without their time running
MAX_RECEIVED = 512 * 1024  # octets of one answer, whatever they are: header, chunk sizes, interim responses, body
MAX_FIELD = 64 * 1024  # octets of one header field: some hosts send a Content-Security-Policy of 34,000
MAX_ANSWER = 4 * 1024  # octets that are read of the answer to a POST
_CHUNK = 16 * 1024  # octets asked for at once
# What a body can be packed in (RFC 9110 8.4.1, and what is registered besides).
_USUAL_CODINGS = ("br", "compress", "deflate", "exi", "gzip", "zstd")
_CODINGS = frozenset((*_USUAL_CODINGS, "aes128gcm", "dcb", "dcz", "pack200-gzip", "x-compress", "x-gzip"))


class _HTTPSClient:
    """An HTTP client that does nothing by itself; open it with `async with`.

    Nothing is connected to that `guard` refuses. `root_ca` are PEM files that replace the system's roots. Opening
    raises `ConfigError` if one of them cannot be read.
    """

    headers: Mapping[str, str] = {}

    def __init__(
        self, resolver: Resolver, clock: Clock, *, guard: AddressGuard, root_ca: Sequence[Path | str] = ()
    ) -> None:
        self._addresses = _Addresses(resolver, guard)
        self._clock = clock
        self._root_ca = tuple(map(Path, root_ca))
        self._session: aiohttp.ClientSession | None = None

    async def __aenter__(self) -> Self:
        context = await asyncio.to_thread(_tls_context, self._root_ca)  # reads files, 20 ms
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                resolver=self._addresses, use_dns_cache=False, ssl=context, force_close=True, limit=0
            ),
            headers={"Accept-Encoding": "identity", "User-Agent": "mailrider", **self.headers},
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=None),  # ours is the Deadline of each request
            auto_decompress=False,
            trust_env=False,
            read_bufsize=_CHUNK,
            max_field_size=MAX_FIELD,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    @property
    def _opened(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the HTTP client is not open")
        return self._session


class HTTPSPoster(_HTTPSClient):
    """Posts small bodies to URLs that strangers name."""

    async def post(self, url: str, body: bytes, media_type: str, timeout: float) -> int:  # noqa: ASYNC109 # of the whole exchange
        """The status of the answer, of which at most `MAX_ANSWER` octets are read. Raises `FetchFailed`."""
        where, host = _target(url)
        try:
            async with (
                after(self._clock, timeout),
                self._opened.post(
                    where, data=body, headers={"Content-Type": media_type}, allow_redirects=False
                ) as response,
            ):
                await response.content.read(MAX_ANSWER)
                return response.status
        except TimeoutError as error:
            raise FetchFailed(host, FetchFailure.TIMEOUT, f"no answer in {timeout:g} s") from error
        except FetchFailed:
            raise
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise _translate(host, error) from error


def _target(url: str) -> tuple[URL, Domain]:
    """A URL as the HTTP client reads it, and its host. Raises `FetchFailed` for one that cannot be meant.

    A host that is an address, which `Domain` never is, would be connected to without a lookup, past the guard.
    """
    try:
        where = URL(url, encoded=True)
        host = Domain.parse(where.raw_host or "")
    except ValueError as error:
        raise FetchFailed(Domain("invalid"), FetchFailure.LOOKUP, f"no host in {clean_text(url)[:200]}") from error
    return where.with_host(host.ascii), host


class HTTPSFetcher(_HTTPSClient):
    """Fetches small files."""

    headers: Mapping[str, str] = {"Accept": "text/plain"}

    def __init__(
        self,
        resolver: Resolver,
        clock: Clock,
        *,
        guard: AddressGuard,
        port: int = 443,
        root_ca: Sequence[Path | str] = (),
    ) -> None:
        super().__init__(resolver, clock, guard=guard, root_ca=root_ca)
        self._port = port
        self._slots = SharedSlots(MAX_FETCHES)

    async def fetch(self, host: Domain, path: str, *, max_size: int, timeout: float) -> bytes:  # noqa: ASYNC109 # of the whole exchange
        """The body of https://`host``path`, at most `max_size` octets, within `timeout` seconds.

        Raises `FetchFailed`. Source: RFC 8461 3.3.
        """
        session = self._opened
        url = URL.build(scheme="https", host=host.ascii, port=self._port, path=path)
        async with self._slots.of(owner_of(host)):
            try:
                async with after(self._clock, timeout):
                    return await _get(session, host, url, max_size)
            except TimeoutError as error:
                raise FetchFailed(host, FetchFailure.TIMEOUT, f"no complete answer in {timeout:g} s") from error


async def _get(session: aiohttp.ClientSession, host: Domain, url: URL, max_size: int) -> bytes:
    try:
        # RFC 8461 3.3: redirects are not followed.
        async with session.get(url, allow_redirects=False) as response:
            _check_head(host, response, max_size)
            body = await _read_body(host, response, max_size)
    except FetchFailed:
        raise
    except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
        raise _translate(host, error) from error
    framed = response.content_length is not None or "chunked" in response.headers.get("Transfer-Encoding", "").lower()
    if not framed and not body.endswith(b"\n"):
        # Nothing but the end of the connection ends such a body, and that anybody on the path can bring about.
        raise FetchFailed(host, FetchFailure.PROTOCOL, "a body without a length may have been cut off in mid-line")
    return body


def _check_head(host: Domain, response: aiohttp.ClientResponse, max_size: int) -> None:
    if 300 <= response.status < 400:
        target = clean_text(response.headers.get("Location", "nowhere"))[:200]
        detail = f"redirects ({response.status}) are not followed: {target}"
        raise FetchFailed(host, FetchFailure.REDIRECT, detail, str(response.status))
    if response.status != 200:
        raise FetchFailed(host, FetchFailure.STATUS, f"status {response.status}, not 200", str(response.status))
    # RFC 8461 3.2: text/plain, whatever its parameters; hosts that let users upload files serve those as other types.
    media_type = response.headers.get("Content-Type", "none").partition(";")[0].strip()
    if media_type.lower() != "text/plain":
        detail = f"media type {clean_text(media_type)[:100]}, not text/plain"
        raise FetchFailed(host, FetchFailure.MEDIA_TYPE, detail)
    encoding = response.headers.get("Content-Encoding", "").strip()
    # What is no coding changes no octet: of many a file in S3 the charset is told here.
    if not _CODINGS.isdisjoint(encoding.lower().replace(",", " ").split()):
        detail = f"content encoding {clean_text(encoding)[:100]}, which was not asked for"
        raise FetchFailed(host, FetchFailure.ENCODING, detail)
    if (response.content_length or 0) > max_size:
        raise _too_large(host, max_size)


async def _read_body(host: Domain, response: aiohttp.ClientResponse, max_size: int) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_chunked(_CHUNK):
        body += chunk
        if len(body) > max_size:
            raise _too_large(host, max_size)
    return bytes(body)


def _too_large(host: Domain, max_size: int) -> FetchFailed:
    return FetchFailed(host, FetchFailure.TOO_LARGE, f"larger than {max_size} octets")


def _translate(host: Domain, error: Exception) -> FetchFailed:
    """A foreign exception as ours."""
    cause = error.os_error if isinstance(error, aiohttp.ClientConnectorDNSError) else error
    if isinstance(cause, FetchFailed):
        return cause
    if isinstance(cause, aiohttp.ClientConnectorCertificateError):
        why = getattr(cause.certificate_error, "verify_message", "") or str(cause.certificate_error)
        fault = VerifyError.of(getattr(cause.certificate_error, "verify_code", 0)).code
        return FetchFailed(host, FetchFailure.CERTIFICATE, f"certificate not valid: {clean_text(why)}", fault)
    if isinstance(cause, aiohttp.ClientSSLError):
        return FetchFailed(host, FetchFailure.TLS, f"TLS failed: {clean_text(str(cause.os_error))}")
    if isinstance(cause, aiohttp.ClientConnectorError):
        # asyncio's own words ("Connect call failed") are about the call, not the cause.
        why = os.strerror(cause.errno) if cause.errno else str(cause.os_error) or type(cause.os_error).__name__
        return FetchFailed(host, FetchFailure.CONNECT, f"no connection: {clean_text(why)}")
    detail = clean_text(_words(cause))[:200] or type(cause).__name__
    return FetchFailed(host, FetchFailure.PROTOCOL, f"the exchange failed: {detail}")


def _words(error: Exception) -> str:
    """What went wrong with an exchange. aiohttp adds a status of its own, 400, which no server sent."""
    if isinstance(error, aiohttp.ServerDisconnectedError):
        return "the connection was closed before the header of the answer was complete"
    if isinstance(error, aiohttp.ClientPayloadError):
        return "the body of the answer is not complete, or its length is wrong"
    if isinstance(error, aiohttp.ClientResponseError | HttpProcessingError):
        return error.message.partition("\n")[0].rstrip(":")
    return str(error)


class _Addresses(AbstractResolver):
    """Our resolver in aiohttp's shape. Raises `FetchFailed`, which is an `OSError`, as aiohttp expects."""

    def __init__(self, resolver: Resolver, guard: AddressGuard) -> None:
        self._resolver = resolver
        self._guard = guard

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        name = Domain(host)
        found = await self._lookup(name)
        allowed = [address for address in found if not self._guard.refusal(address)]
        if not allowed:
            detail = f"its address {found[0]} {self._guard.refusal(found[0])}"
            raise FetchFailed(name, FetchFailure.PROHIBITED, detail)
        return [_result(host, port, address) for address in allowed[:MAX_ADDRESSES]]

    async def close(self) -> None:
        """Nothing to release: the resolver is not ours."""

    async def _lookup(self, name: Domain) -> list[IPv4Address | IPv6Address]:
        """All addresses, families in turn, IPv6 first; a failed lookup removes only its own family."""
        six, four = await asyncio.gather(
            lookup_aaaa(self._resolver, name), lookup_a(self._resolver, name), return_exceptions=True
        )
        failures = [result for result in (six, four) if isinstance(result, BaseException)]
        for failure in failures:
            if not isinstance(failure, LookupFailed):
                raise failure
        sixes = () if isinstance(six, BaseException) else six.records
        fours = () if isinstance(four, BaseException) else four.records
        found = [address for pair in zip_longest(sixes, fours) for address in pair if address is not None]
        if found:
            return found
        if failures:
            raise FetchFailed(name, FetchFailure.LOOKUP, str(failures[0])) from failures[0]
        raise FetchFailed(name, FetchFailure.NO_ADDRESS, "the host has no address")


def _result(host: str, port: int, address: IPv4Address | IPv6Address) -> ResolveResult:
    return ResolveResult(
        hostname=host,
        host=str(address),
        port=port,
        family=socket.AF_INET6 if address.version == 6 else socket.AF_INET,
        proto=socket.IPPROTO_TCP,
        flags=socket.AI_NUMERICHOST,
    )


class _BoundedTLS(ssl.SSLObject):
    """TLS that hears no more than `MAX_RECEIVED` octets.

    What a body may hold is bounded where it is read. What stands around it is not: aiohttp takes in interim responses
    (RFC 9110 15.2) as fast as they come, and lets nothing else have a turn meanwhile.
    """

    _received = 0

    def read(self, len: int = 1024, buffer: Any = None) -> Any:
        """See `ssl.SSLObject`: the octets; with a `buffer` their number."""
        data: Any = super().read(len, buffer)
        self._received += memoryview(data).nbytes if buffer is None else data
        if self._received > MAX_RECEIVED:
            raise ssl.SSLError(f"more than {MAX_RECEIVED} octets came")
        return data


def _tls_context(root_ca: Sequence[Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # verifies the chain and the host's name
    context.sslobject_class = _BoundedTLS
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.hostname_checks_common_name = False  # RFC 8461 3.3: the name is a DNS-ID
    context.set_alpn_protocols(["http/1.1"])
    if not root_ca:
        context.load_default_certs(ssl.Purpose.SERVER_AUTH)
    for path in root_ca:
        try:
            read_regular(path, 0)
            context.load_verify_locations(path)
        except OSError as error:  # ssl.SSLError is one
            raise ConfigError(f"root_ca: no certificates can be read from {path}: {error.strerror or error}") from error
    return context
