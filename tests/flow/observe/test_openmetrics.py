"""The counters over HTTP."""

from __future__ import annotations

import asyncio
from ipaddress import IPv4Address

import aiohttp
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from mailrider.clock import SystemClock
from mailrider.errors import ConfigError, LocalError, MailriderError
from mailrider.model.queue_event import MessageQueued
from mailrider.observe import openmetrics
from mailrider.observe.metrics import Metrics
from mailrider.observe.openmetrics import open_openmetrics
from mailrider.queue.message import Stats
from mailrider.settings.socket_address import Scheme, SocketAddress
from mailrider.testing.clock import FakeClock
from tests.support.loops import eventually

ANYWHERE = SocketAddress(Scheme.TCP, IPv4Address("127.0.0.1"), 0)
CLOCK = SystemClock()
OPENMETRICS = {"Accept": "application/openmetrics-text; version=1.0.0"}


async def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port}{path}", headers=headers) as response:
            return response.status, response.headers["Content-Type"], await response.text()


async def test_who_looks_gets_openmetrics_with_the_queue_as_it_is_now() -> None:
    metrics = Metrics()

    async def refresh() -> None:
        metrics.show_queue("main", Stats(7, 70, (), {}), CLOCK.now())

    metrics(MessageQueued("1", "a@example.org", 1, 10))
    async with open_openmetrics(ANYWHERE, metrics, CLOCK, refresh) as port:
        status, content_type, text = await get(port, **OPENMETRICS)
    assert status == 200
    assert content_type.startswith("application/openmetrics-text; version=1.0.0")
    families = text_string_to_metric_families(text)  # type: ignore[no-untyped-call]
    samples = {sample.name: sample.value for family in families for sample in family.samples}
    assert samples["mailrider_queued_messages_total"] == 1
    assert samples["mailrider_queue_messages"] == 7


async def test_older_programs_get_the_older_text() -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        status, content_type, _ = await get(port)
    assert (status, content_type.partition(";")[0]) == (200, "text/plain")


async def test_there_is_nothing_else() -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        assert (await get(port, "/"))[0] == 404


async def test_a_queue_that_cannot_be_asked_takes_nothing_from_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmetrics, "REFRESH", 0.05)
    metrics = Metrics()
    metrics(MessageQueued("1", "a@example.org", 1, 10))

    async def hang() -> None:
        await asyncio.sleep(30)

    async def fail() -> None:
        raise MailriderError("the store is gone")

    for refresh in (hang, fail):
        async with open_openmetrics(ANYWHERE, metrics, CLOCK, refresh) as port:
            assert "mailrider_queued_messages_total 1.0" in (await get(port))[2]


async def test_a_port_that_is_taken_is_told() -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        taken = SocketAddress(Scheme.TCP, IPv4Address("127.0.0.1"), port)
        with pytest.raises(LocalError, match="cannot listen on"):
            async with open_openmetrics(taken, Metrics(), CLOCK, _nothing):
                pass


@pytest.mark.parametrize("text", ["tls://127.0.0.1:1", "unix:///x", "tcp://localhost:1"])
async def test_only_an_address_and_a_port_will_do(text: str) -> None:
    with pytest.raises(ConfigError, match="expected tcp://ADDRESS:PORT"):
        async with open_openmetrics(SocketAddress.parse(text), Metrics(), CLOCK, _nothing):
            pass


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "127.0.0.1:9749", "[::1]:9749", "localhost:1", "mx.here.test", "MX.here.test.:80"]
)
async def test_it_may_be_asked_under_its_addresses_and_its_own_names(host: str) -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing, ["mx.here.test"]) as port:
        assert (await get(port, Host=host))[0] == 200


@pytest.mark.parametrize(
    "host", ["evil.test", "evil.test:9749", "mx.here.test.evil.test", "127.0.0.1.evil.test", "", "[evil.test]"]
)
async def test_a_web_page_cannot_read_the_counters_under_a_name_of_its_own(host: str) -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing, ["mx.here.test"]) as port:
        status, _, text = await get(port, Host=host)
    assert status == 421
    assert "mailrider_" not in text


@pytest.mark.parametrize("said", [b"", b"GET /metrics HTTP/1.1\r\nX: "])
async def test_who_does_not_finish_a_request_is_cut_off(said: bytes) -> None:
    clock = FakeClock()
    async with open_openmetrics(ANYWHERE, Metrics(), clock, _nothing) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        await eventually(lambda: clock.pending == 1)
        await clock.advance(openmetrics.LIFETIME)
        assert await _rest(reader) == b""
        writer.close()


# https://github.com/aio-libs/aiohttp/issues/7817
@pytest.mark.parametrize(
    "said", [b"JRMI\0\2K", b"EHLO x\r\n\r\n", b"GET /\0 HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\0\1\0\1\xfc"]
)
async def test_what_is_no_http_leaves_nothing_in_the_log(said: bytes, caplog: pytest.LogCaptureFixture) -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(said)
        writer.write_eof()
        assert (await _rest(reader)).startswith(b"HTTP/1.0 400 ")
        writer.close()
    assert not caplog.records


async def test_a_fault_of_ours_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def fail() -> None:
        raise ZeroDivisionError

    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, fail) as port:
        assert (await get(port))[0] == 500
    assert [record.name for record in caplog.records] == ["mailrider.openmetrics"]


# https://github.com/nmap/nmap/issues/1229
async def test_who_closes_his_half_behind_his_request_gets_the_answer() -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n")
        writer.write_eof()
        assert (await _rest(reader)).startswith(b"HTTP/1.0 200 OK\r\n")
        writer.close()


async def test_a_connection_carries_one_request() -> None:
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 2)
        assert (await _rest(reader)).count(b"HTTP/1.1 200") == 1
        writer.close()


async def test_one_client_has_its_share_of_connections_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmetrics, "MAX_CLIENT", 2)
    clock = FakeClock()
    async with open_openmetrics(ANYWHERE, Metrics(), clock, _nothing) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
        await eventually(lambda: clock.pending == 2)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert await _rest(reader) == b""
        reader_of_other, other = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        other.write(b"GET /metrics HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b" 200 " in await reader_of_other.readline()
        for each in (writer, other, *(writer for _, writer in silent)):
            each.close()
    assert clock.pending == 0


async def test_there_is_room_for_so_many_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(openmetrics, "MAX_CLIENTS", 1)
    async with open_openmetrics(ANYWHERE, Metrics(), CLOCK, _nothing) as port:
        _, silent = await asyncio.open_connection("127.0.0.1", port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))
        assert await _rest(reader) == b""
        silent.close()
        writer.close()


async def _rest(reader: asyncio.StreamReader) -> bytes:
    try:
        return await reader.read(-1)
    except ConnectionError:
        return b""


async def _nothing() -> None:
    pass
