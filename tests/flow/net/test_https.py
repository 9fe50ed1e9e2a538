"""Fetching policies from policy hosts that do everything wrong: RFC 8461 3.3."""

from __future__ import annotations

import asyncio
import gc
import ssl
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.clock import SystemClock
from mailrider.dns.answer import Answer, LookupFailure, RecordType
from mailrider.errors import ConfigError
from mailrider.lab.ca import CA, Kind
from mailrider.lab.sts import LabSTS, PolicyHost, STSFault, policy
from mailrider.model.domain import Domain
from mailrider.mtasts.policy import MAX_POLICY_SIZE, WELL_KNOWN_PATH, STSMode, parse_policy, policy_host
from mailrider.net.address_guard import ANYWHERE, AddressGuard
from mailrider.net.fetch import FetchFailed, FetchFailure
from mailrider.net.https import MAX_ADDRESSES, MAX_FETCHES, MAX_RECEIVED, HTTPSFetcher, _tls_context
from mailrider.testing.clock import FakeClock
from mailrider.testing.resolver import FakeResolver, TableRow

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from mailrider.clock import Clock

GOOD = policy("enforce", "mx.good.test")
LOOPBACK = (ip_network("127.0.0.0/8"), ip_network("::1"))


@pytest.fixture(scope="module")
def ca() -> CA:
    return CA()


@pytest.fixture
async def hosts(ca: CA) -> AsyncIterator[LabSTS]:
    async with LabSTS(ca, {"good.test": PolicyHost(GOOD)}) as server:
        yield server
    gc.collect()  # a socket or transport that was left open warns now, and warnings are errors


class Fetching:
    """A fetcher whose resolver knows the lab."""

    def __init__(self, hosts: LabSTS, root: Path, clock: Clock | None = None) -> None:
        self.hosts = hosts
        self.resolver = FakeResolver()
        self.clock = clock or SystemClock()
        self.fetcher = HTTPSFetcher(self.resolver, self.clock, guard=ANYWHERE, port=hosts.port, root_ca=[root])

    async def __call__(self, domain: str = "good.test", *, timeout: float = 60.0) -> bytes:  # noqa: ASYNC109
        host = policy_host(Domain(domain))
        self.resolver.answers.setdefault((host.ascii, "A"), IPv4Address(self.hosts.address))
        return await self.fetcher.fetch(host, WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=timeout)


@pytest.fixture
async def fetch(hosts: LabSTS, ca: CA, tmp_path: Path) -> AsyncIterator[Fetching]:
    fetching = Fetching(hosts, ca.write_root(tmp_path))
    async with fetching.fetcher:
        yield fetching


async def test_a_good_host_serves_its_policy(fetch: Fetching) -> None:
    body = await fetch()
    assert body == GOOD
    assert parse_policy(body).mode is STSMode.ENFORCE
    assert fetch.hosts.fetches("good.test") == 1


FINE = {
    "parameters of the media type are ignored": PolicyHost(GOOD, content_type="text/plain; charset=utf-8; x=y"),
    "the media type's case is ignored": PolicyHost(GOOD, content_type="Text/Plain"),
    "a wildcard certificate": PolicyHost(GOOD, certificate=Kind.WILDCARD),
    "an RSA certificate": PolicyHost(GOOD, certificate=Kind.RSA),
    "a body that only the end of the connection ends, after a line end": PolicyHost(GOOD, fault=STSFault.UNFRAMED),
    # https://github.com/iprak/yahoofinance/pull/173, https://github.com/Rongronggg9/RSS-to-Telegram-Bot/issues/705
    "a header field of 34,000 octets": PolicyHost(
        GOOD, content_type=f"text/plain\r\nContent-Security-Policy: {'x' * 34_000}"
    ),
    # https://github.com/s3tools/s3cmd/pull/157, https://github.com/dondai44423/donsetch/issues/290
    "a charset in the place of a coding": PolicyHost(GOOD, content_type="text/plain\r\nContent-Encoding: UTF-8"),
    "an empty coding": PolicyHost(GOOD, content_type="text/plain\r\nContent-Encoding: "),
    "as large as allowed": PolicyHost(GOOD + b"x: ".ljust(MAX_POLICY_SIZE - len(GOOD) - 2, b"y") + b"\r\n"),
}


@pytest.mark.parametrize("host", FINE.values(), ids=FINE)
async def test_what_a_policy_host_may_do(fetch: Fetching, host: PolicyHost) -> None:
    fetch.hosts["good.test"] = host
    assert await fetch() == host.body


FAULTS = {
    "status 404": (PolicyHost(GOOD, status=404), FetchFailure.STATUS, "status 404, not 200"),
    "status 500": (PolicyHost(GOOD, status=500), FetchFailure.STATUS, "status 500"),
    "status 204": (PolicyHost(status=204), FetchFailure.STATUS, "status 204"),
    "status 206": (PolicyHost(GOOD, status=206), FetchFailure.STATUS, "status 206"),
    "redirect 301": (
        PolicyHost(status=301, location="https://mta-sts.evil.test/.well-known/mta-sts.txt"),
        FetchFailure.REDIRECT,
        r"redirects \(301\) are not followed: https://mta-sts.evil.test",
    ),
    "redirect 302 to itself": (
        PolicyHost(GOOD, status=302, location="/.well-known/mta-sts.txt"),
        FetchFailure.REDIRECT,
        "redirects",
    ),
    "redirect without a target": (PolicyHost(status=308), FetchFailure.REDIRECT, "nowhere"),
    "text/html": (PolicyHost(GOOD, content_type="text/html"), FetchFailure.MEDIA_TYPE, "media type text/html"),
    "a media type that begins alike": (
        PolicyHost(GOOD, content_type="text/plainer"),
        FetchFailure.MEDIA_TYPE,
        "text/plainer",
    ),
    "no media type": (PolicyHost(GOOD, content_type=""), FetchFailure.MEDIA_TYPE, "media type none"),
    "too large, and says so": (
        PolicyHost(fault=STSFault.TOO_LARGE),
        FetchFailure.TOO_LARGE,
        "larger than 65536 octets",
    ),
    "an octet too large": (
        PolicyHost(b"y" * (MAX_POLICY_SIZE + 1)),
        FetchFailure.TOO_LARGE,
        "larger than 65536 octets",
    ),
    "too large, and does not say so": (
        PolicyHost(b"y\n" * MAX_POLICY_SIZE, fault=STSFault.UNFRAMED),
        FetchFailure.TOO_LARGE,
        "larger than 65536 octets",
    ),
    "an octet too large, and does not say so": (
        PolicyHost(b"y" * MAX_POLICY_SIZE + b"\n", fault=STSFault.UNFRAMED),
        FetchFailure.TOO_LARGE,
        "larger than 65536 octets",
    ),
    "endless": (PolicyHost(fault=STSFault.ENDLESS), FetchFailure.TOO_LARGE, "larger than 65536 octets"),
    "endless, and mostly not body": (PolicyHost(fault=STSFault.PADDED), FetchFailure.PROTOCOL, "the exchange failed"),
    "endless header": (PolicyHost(fault=STSFault.ENDLESS_HEADER), FetchFailure.PROTOCOL, "the exchange failed"),
    "a bomb": (PolicyHost(fault=STSFault.COMPRESSED), FetchFailure.ENCODING, "content encoding gzip"),
    "packed twice": (
        PolicyHost(GOOD, content_type="text/plain\r\nContent-Encoding: identity, BR"),
        FetchFailure.ENCODING,
        "content encoding identity, BR",
    ),
    "not HTTP": (PolicyHost(fault=STSFault.GARBAGE), FetchFailure.PROTOCOL, "the exchange failed: Bad status line$"),
    "closes instead of answering": (
        PolicyHost(fault=STSFault.CLOSE),
        FetchFailure.PROTOCOL,
        "the connection was closed before the header of the answer was complete$",
    ),
    "less than promised": (
        PolicyHost(GOOD, fault=STSFault.SHORT),
        FetchFailure.PROTOCOL,
        "the body of the answer is not complete, or its length is wrong$",
    ),
    "cut off in mid-line": (PolicyHost(GOOD[:-3], fault=STSFault.UNFRAMED), FetchFailure.PROTOCOL, "cut off"),
    "a certificate for another name": (
        PolicyHost(GOOD, certificate=Kind.WRONG_NAME),
        FetchFailure.CERTIFICATE,
        "certificate not valid: Hostname mismatch",
    ),
    "a name in the subject only": (
        PolicyHost(GOOD, certificate=Kind.NO_SAN),
        FetchFailure.CERTIFICATE,
        "certificate not valid",
    ),
    "an expired certificate": (
        PolicyHost(GOOD, certificate=Kind.EXPIRED),
        FetchFailure.CERTIFICATE,
        "certificate has expired",
    ),
    "a certificate from tomorrow": (
        PolicyHost(GOOD, certificate=Kind.NOT_YET_VALID),
        FetchFailure.CERTIFICATE,
        "not yet valid",
    ),
    "a self-signed certificate": (
        PolicyHost(GOOD, certificate=Kind.SELF_SIGNED),
        FetchFailure.CERTIFICATE,
        "self-signed",
    ),
    "a client's certificate": (
        PolicyHost(GOOD, certificate=Kind.CLIENT_AUTH_ONLY),
        FetchFailure.CERTIFICATE,
        "certificate purpose",
    ),
    "an intermediate that is no authority": (
        PolicyHost(GOOD, certificate=Kind.CA_FALSE_INTERMEDIATE),
        FetchFailure.CERTIFICATE,
        "certificate not valid",
    ),
}


@pytest.mark.parametrize(("host", "failure", "reason"), FAULTS.values(), ids=FAULTS)
async def test_what_a_policy_host_may_not_do(
    fetch: Fetching, host: PolicyHost, failure: FetchFailure, reason: str
) -> None:
    fetch.hosts["bad.test"] = host
    with pytest.raises(FetchFailed, match=reason) as failed:
        await fetch("bad.test")
    assert failed.value.failure is failure
    assert str(failed.value).startswith("https://mta-sts.bad.test: ")
    assert not failed.value.permanent
    # RFC 9112 9.3.1: a request is repeated once if the connection closed before any answer.
    assert fetch.hosts.fetches("bad.test") <= 1 + (host.fault is STSFault.CLOSE)
    assert await fetch() == GOOD  # and the next one is not disturbed


def test_no_more_is_heard_than_an_answer_may_have(ca: CA, tmp_path: Path) -> None:
    # Interim responses, which any number of may come, took the event loop for as long as they came.
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(*ca.issue(["mta-sts.good.test"]).write(tmp_path, "host"))
    ours, theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
    # An answer of megabytes would be as large as that on the wire: here TLS alone is asked what it hears.
    client = _tls_context([ca.write_root(tmp_path)]).wrap_bio(ours, theirs, server_hostname="mta-sts.good.test")
    server = server_context.wrap_bio(theirs, ours, server_side=True)
    for side in (client, server, client, server):
        with suppress(ssl.SSLWantReadError):
            side.do_handshake()
    interim = b"HTTP/1.1 103 Early Hints\r\n\r\n".ljust(16384)
    place = bytearray(16384)
    for number in range(MAX_RECEIVED // 16384):
        server.write(interim)
        heard = client.read(16384, place) if number % 2 else len(client.read(16384))
        assert heard == 16384
    server.write(b"!")
    with pytest.raises(ssl.SSLError, match="more than 524288 octets"):
        client.read(16384)


async def test_no_such_host_behind_the_name(fetch: Fetching) -> None:
    with pytest.raises(FetchFailed, match=r"TLS failed|no connection: ConnectionResetError"):
        await fetch("unknown.test")


async def test_a_host_that_speaks_no_tls(ca: CA, tmp_path: Path) -> None:
    async def plain(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(plain, "127.0.0.44", 0)
    resolver = FakeResolver({("mta-sts.plain.test", "A"): IPv4Address("127.0.0.44")})
    port, root = server.sockets[0].getsockname()[1], ca.write_root(tmp_path)
    async with HTTPSFetcher(resolver, SystemClock(), guard=ANYWHERE, port=port, root_ca=[root]) as fetcher:
        with pytest.raises(FetchFailed, match="TLS failed") as failed:
            await fetcher.fetch(Domain("mta-sts.plain.test"), "/", max_size=10, timeout=60)
    assert failed.value.failure is FetchFailure.TLS
    server.close()
    await server.wait_closed()
    gc.collect()


@pytest.mark.parametrize("fault", [STSFault.SILENT, STSFault.SLOW])
async def test_a_minute_is_all_that_a_policy_host_has(hosts: LabSTS, ca: CA, tmp_path: Path, fault: STSFault) -> None:
    clock = FakeClock()
    hosts["slow.test"] = PolicyHost(GOOD, fault=fault)
    fetching = Fetching(hosts, ca.write_root(tmp_path), clock)
    async with fetching.fetcher:
        waiting = asyncio.create_task(fetching("slow.test"))
        await hosts.wait_fetched("slow.test")
        await clock.advance(59.9)
        assert not waiting.done()
        await clock.advance(0.2)
        with pytest.raises(FetchFailed, match="no complete answer in 60 s") as failed:
            await waiting
    assert failed.value.failure is FetchFailure.TIMEOUT
    assert clock.pending == 0


async def test_a_host_that_takes_the_connection_and_never_speaks_tls(ca: CA, tmp_path: Path) -> None:
    clock = FakeClock()
    connected = asyncio.Event()

    async def never(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(never, "127.0.0.44", 0)
    resolver = FakeResolver({("mta-sts.mute.test", "A"): IPv4Address("127.0.0.44")})
    port = server.sockets[0].getsockname()[1]
    async with HTTPSFetcher(resolver, clock, guard=ANYWHERE, port=port, root_ca=[ca.write_root(tmp_path)]) as fetcher:
        waiting = asyncio.create_task(fetcher.fetch(Domain("mta-sts.mute.test"), "/", max_size=10, timeout=60))
        await connected.wait()
        await clock.advance(60)
        with pytest.raises(FetchFailed, match="no complete answer"):
            await waiting
    server.close()
    await server.wait_closed()
    gc.collect()


async def test_cancelling_a_fetch_leaves_nothing_behind(hosts: LabSTS, fetch: Fetching) -> None:
    hosts["slow.test"] = PolicyHost(GOOD, fault=STSFault.SILENT)
    waiting = asyncio.create_task(fetch("slow.test"))
    await hosts.wait_fetched("slow.test")
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    gc.collect()
    assert await fetch() == GOOD


async def test_fetches_do_not_wait_for_each_other(hosts: LabSTS, fetch: Fetching) -> None:
    hosts["slow.test"] = PolicyHost(GOOD, fault=STSFault.SILENT)
    waiting = [asyncio.create_task(fetch("slow.test")) for _ in range(20)]
    await hosts.wait_fetched("slow.test", 20)
    assert await fetch() == GOOD
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


async def test_slow_policy_hosts_of_one_owner_leave_room_for_others(hosts: LabSTS, fetch: Fetching) -> None:
    names = [f"n{number}.evil.test" for number in range(MAX_FETCHES)]
    for name in names:
        hosts[name] = PolicyHost(GOOD, fault=STSFault.SILENT)
    waiting = [asyncio.create_task(fetch(name)) for name in names]
    for name in names[:10]:
        await hosts.wait_fetched(name, 1)
    assert await fetch() == GOOD
    for each in waiting:
        each.cancel()
    await asyncio.gather(*waiting, return_exceptions=True)


# --- Names and addresses ------------------------------------------------------------------------

MTA_STS = "mta-sts.good.test"


async def test_no_address(fetch: Fetching) -> None:
    fetch.resolver.answers[MTA_STS, "A"] = TableRow()
    with pytest.raises(FetchFailed, match="the host has no address") as failed:
        await fetch()
    assert failed.value.failure is FetchFailure.NO_ADDRESS


async def test_dns_fails_for_one_family_only(fetch: Fetching) -> None:
    fetch.resolver.answers[MTA_STS, "AAAA"] = LookupFailure.SERVFAIL
    assert await fetch() == GOOD


async def test_dns_fails_for_one_family_and_the_other_has_nothing(fetch: Fetching) -> None:
    fetch.resolver.answers[MTA_STS, "AAAA"] = LookupFailure.TIMEOUT
    fetch.resolver.answers[MTA_STS, "A"] = TableRow()
    with pytest.raises(FetchFailed, match=r"AAAA lookup of mta-sts.good.test failed: time-out") as failed:
        await fetch()
    assert failed.value.failure is FetchFailure.LOOKUP


async def test_a_bug_in_the_resolver_is_not_taken_for_a_failed_lookup() -> None:
    class Buggy(FakeResolver):
        async def lookup(self, name: Domain, record_type: RecordType, *, fresh: bool = False) -> Answer[Any]:
            raise ZeroDivisionError

    async with HTTPSFetcher(Buggy(), SystemClock(), guard=ANYWHERE) as fetcher:
        with pytest.raises(ZeroDivisionError):
            await fetcher.fetch(Domain(MTA_STS), "/", max_size=1, timeout=60)


async def test_an_address_where_nobody_listens_is_followed_by_the_next(fetch: Fetching) -> None:
    fetch.resolver.answers[MTA_STS, "A"] = [IPv4Address("127.0.0.45"), IPv4Address(fetch.hosts.address)]
    assert await fetch() == GOOD


async def test_nobody_listens(fetch: Fetching) -> None:
    fetch.resolver.answers[MTA_STS, "A"] = IPv4Address("127.0.0.45")
    with pytest.raises(FetchFailed, match="no connection") as failed:
        await fetch()
    assert failed.value.failure is FetchFailure.CONNECT


async def test_at_most_six_addresses_are_tried(fetch: Fetching) -> None:
    dead = [IPv4Address(f"127.0.1.{last}") for last in range(1, MAX_ADDRESSES + 1)]
    fetch.resolver.answers[MTA_STS, "A"] = [*dead, IPv4Address(fetch.hosts.address)]
    with pytest.raises(FetchFailed, match="no connection"):
        await fetch()


async def test_a_cname_to_a_provider_changes_nothing_about_the_certificates_name(fetch: Fetching) -> None:
    # RFC 8461 3.3: the policy host may be a CNAME; the certificate is for mta-sts.<domain> all the same.
    fetch.resolver.answers["mta-sts.customer.test", "CNAME"] = Domain(MTA_STS)
    fetch.resolver.answers[MTA_STS, "A"] = IPv4Address(fetch.hosts.address)
    fetch.resolver.answers["mta-sts.customer.test", "A"] = TableRow([IPv4Address(fetch.hosts.address)])
    fetch.hosts["customer.test"] = PolicyHost(GOOD)
    assert await fetch("customer.test") == GOOD
    fetch.hosts["customer.test"] = PolicyHost(GOOD, certificate=Kind.WRONG_NAME)
    with pytest.raises(FetchFailed, match="Hostname mismatch"):
        await fetch("customer.test")


async def test_internationalized_and_odd_names(fetch: Fetching) -> None:
    for domain in (
        "xn--bcher-kva.test",
        "xn--a.test",
        "under_score.test",
        "a-.test".replace("-", "0"),
        "x" * 63 + ".test",
    ):
        fetch.hosts[domain] = PolicyHost(GOOD)
        assert await fetch(domain) == GOOD, domain


async def test_what_the_request_says(ca: CA, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine mta-sts.good.test login me password secret\n")
    (tmp_path / "netrc").chmod(0o600)
    async with LabSTS(ca, {"good.test": PolicyHost(GOOD)}) as hosts:
        fetching = Fetching(hosts, ca.write_root(tmp_path))
        async with fetching.fetcher:
            await fetching()
            await fetching()
        assert len(hosts.requests) == 2
        for request, fields in hosts.requests:
            assert request == "GET /.well-known/mta-sts.txt HTTP/1.1"
            assert fields == {
                "host": f"mta-sts.good.test:{hosts.port}",
                "accept": "text/plain",
                "accept-encoding": "identity",
                "user-agent": "mailrider",
                "connection": "close",
            }


PROHIBITED = {
    "an IPv4 address": ("A", [IPv4Address("127.0.0.44")]),
    "an IPv6 address": ("AAAA", [IPv6Address("::1")]),
    "an IPv4 address in IPv6 clothes": ("AAAA", [IPv6Address("::ffff:127.0.0.44")]),
    "an IPv4 address behind NAT64": ("AAAA", [IPv6Address("64:ff9b::127.0.0.44")]),
    "an IPv4 address in 6to4": ("AAAA", [IPv6Address("2002:7f00:2c::1")]),
}


@pytest.mark.parametrize(("kind", "addresses"), PROHIBITED.values(), ids=PROHIBITED)
async def test_a_prohibited_address_is_never_connected_to(
    hosts: LabSTS, ca: CA, tmp_path: Path, kind: str, addresses: list[IPv4Address | IPv6Address]
) -> None:
    resolver = FakeResolver({(MTA_STS, kind): addresses})
    guard = AddressGuard(prohibited=LOOPBACK)
    root = ca.write_root(tmp_path)
    async with HTTPSFetcher(resolver, SystemClock(), guard=guard, port=hosts.port, root_ca=[root]) as fetcher:
        with pytest.raises(FetchFailed, match=r"is in prohibited_addresses") as failed:
            await fetcher.fetch(Domain(MTA_STS), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=60)
    assert failed.value.failure is FetchFailure.PROHIBITED
    assert hosts.fetches("good.test") == 0


async def test_a_prohibited_address_among_others_is_passed_over(hosts: LabSTS, ca: CA, tmp_path: Path) -> None:
    addresses = [IPv4Address("127.9.9.9"), IPv4Address(hosts.address)]
    resolver = FakeResolver({(MTA_STS, "A"): addresses})
    guard = AddressGuard(LOOPBACK, (ip_network("127.9.0.0/16"),))
    root = ca.write_root(tmp_path)
    async with HTTPSFetcher(resolver, SystemClock(), guard=guard, port=hosts.port, root_ca=[root]) as fetcher:
        body = await fetcher.fetch(Domain(MTA_STS), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=60)
    assert body == GOOD


async def test_a_policy_host_in_a_private_network_is_connected_to_only_where_that_is_allowed(
    hosts: LabSTS, ca: CA, tmp_path: Path
) -> None:
    resolver = FakeResolver({(MTA_STS, "A"): IPv4Address(hosts.address)})
    root = ca.write_root(tmp_path)
    got: list[object] = []
    for guard in (AddressGuard(), AddressGuard(LOOPBACK)):
        async with HTTPSFetcher(resolver, SystemClock(), guard=guard, port=hosts.port, root_ca=[root]) as fetcher:
            try:
                got.append(await fetcher.fetch(Domain(MTA_STS), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=60))
            except FetchFailed as failed:
                got.append(failed.failure)
    assert got == [FetchFailure.PROHIBITED, GOOD]
    assert hosts.fetches("good.test") == 1


# --- Roots --------------------------------------------------------------------------------------


async def test_the_systems_roots_do_not_trust_the_lab(hosts: LabSTS) -> None:
    resolver = FakeResolver({(MTA_STS, "A"): IPv4Address(hosts.address)})
    async with HTTPSFetcher(resolver, SystemClock(), guard=ANYWHERE, port=hosts.port) as fetcher:
        with pytest.raises(FetchFailed, match=r"self-signed certificate in certificate chain|local issuer"):
            await fetcher.fetch(Domain(MTA_STS), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=60)


async def test_any_of_several_roots_will_do(hosts: LabSTS, ca: CA, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    roots = [CA().write_root(tmp_path / "other"), ca.write_root(tmp_path)]
    resolver = FakeResolver({(MTA_STS, "A"): IPv4Address(hosts.address)})
    async with HTTPSFetcher(resolver, SystemClock(), guard=ANYWHERE, port=hosts.port, root_ca=roots) as fetcher:
        assert await fetcher.fetch(Domain(MTA_STS), WELL_KNOWN_PATH, max_size=MAX_POLICY_SIZE, timeout=60) == GOOD


@pytest.mark.parametrize("content", [None, b"", b"not a certificate"])
async def test_roots_that_cannot_be_read_are_a_configuration_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "roots.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=r"roots\.pem"):
        await HTTPSFetcher(FakeResolver(), SystemClock(), guard=ANYWHERE, root_ca=[path]).__aenter__()


async def test_a_fetcher_that_is_not_open_fetches_nothing() -> None:
    fetcher = HTTPSFetcher(FakeResolver(), SystemClock(), guard=ANYWHERE)
    with pytest.raises(RuntimeError, match="not open"):
        await fetcher.fetch(Domain(MTA_STS), "/", max_size=1, timeout=1)
    await fetcher.__aexit__()
