"""rspamd over HTTP: a server of ours that answers as rspamd does, or as it should not."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
from aiohttp import web

from mailrider.app.pipelines import open_checks
from mailrider.clock import SystemClock
from mailrider.endpoint.pipeline.check import (
    NOT_NOW,
    Arrival,
    CheckAction,
    CheckAvailable,
    CheckResult,
    CheckUnavailable,
    examine,
)
from mailrider.endpoint.pipeline.rspamd import MAX_ANSWER, RspamdCheck
from mailrider.endpoint.pipeline.settings import CheckSettings, RspamdOptions, RspamdSettings
from mailrider.model.event import WARNING, Event
from mailrider.model.reply import Reply
from mailrider.smtp.content import Content
from tests.support.queueing import MESSAGE, envelope

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable
    from pathlib import Path

ARRIVAL = Arrival("192.0.2.1", "client.example.com", "alice", "mx.example.org", "id1")
LARGE = MESSAGE + b"some text here\r\n" * 20_000


class FakeRspamd:
    """Answers with `answer`, a JSON value, or by a handler; keeps what it was asked."""

    def __init__(self, answer: Any, handler: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None):
        self.answer = answer
        self.handler = handler
        self.asked: list[tuple[web.Request, bytes]] = []

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request, await request.read()))
        if self.handler is not None:
            return await self.handler(request)
        return web.json_response(self.answer)

    @asynccontextmanager
    async def running(self, path: Path | None = None) -> AsyncIterator[str]:
        app = web.Application(client_max_size=1 << 24)
        app.router.add_post("/checkv2", self.handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        try:
            if path is not None:
                await web.UnixSite(runner, str(path)).start()
                yield f"unix://{path}"
            else:
                await web.TCPSite(runner, "127.0.0.1", 0).start()
                yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()


async def ask(url: str, message: bytes = MESSAGE, **options: Any) -> CheckResult:
    patient = {"timeout": "200s"} | options  # a busy machine takes its time
    settings = CheckSettings(rspamd=[RspamdSettings(url, RspamdOptions(**patient))])
    async with open_checks(settings, SystemClock()) as (check,):
        return await check.examine(envelope("b@example.net", "c@example.net"), Content.inspect(message), ARRIVAL)


@pytest.mark.parametrize(
    ("said", "action"),
    [
        ("no action", CheckAction.PASS),
        ("greylist", CheckAction.DEFER),
        ("soft reject", CheckAction.DEFER),
        ("add header", CheckAction.QUARANTINE),
        ("rewrite subject", CheckAction.QUARANTINE),
        ("quarantine", CheckAction.QUARANTINE),
        ("reject", CheckAction.REJECT),
        ("discard", CheckAction.REJECT),
    ],
)
async def test_its_actions_become_ours(said: str, action: CheckAction) -> None:
    async with FakeRspamd({"action": said, "score": 7.5}).running() as url:
        found = await ask(url)
    assert found.action is action
    if action is not CheckAction.PASS:
        assert found.reason == f"{said}, score 7.5"


async def test_the_operator_maps_actions_otherwise() -> None:
    async with FakeRspamd({"action": "reject"}).running() as url:
        assert (await ask(url, reject_action="quarantine")).action is CheckAction.QUARANTINE


async def test_it_is_told_who_sends_what_to_whom() -> None:
    server = FakeRspamd({"action": "no action"})
    async with server.running() as url:
        await ask(url, LARGE)
    ((request, body),) = server.asked
    headers = request.headers
    assert body == LARGE
    assert headers["Content-Length"] == str(len(LARGE))
    assert headers["From"] == "a@example.org"
    assert headers.getall("Rcpt") == ["b@example.net", "c@example.net"]
    told = [headers[each] for each in ("IP", "Helo", "User", "MTA-Name", "Queue-Id")]
    assert told == ["192.0.2.1", "client.example.com", "alice", "mx.example.org", "id1"]


async def test_a_unix_socket_serves_as_well(tmp_path: Path) -> None:
    async with FakeRspamd({"action": "reject"}).running(tmp_path / "rspamd.sock") as url:
        assert (await ask(url)).action is CheckAction.REJECT


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        ("reject", Reply.make(550, "5.7.1", "Gtube pattern")),
        ("soft reject", Reply.make(451, "4.7.1", "Gtube pattern")),
    ],
)
async def test_the_client_gets_its_words_for_clients(action: str, expected: Reply) -> None:
    answer = {"action": action, "messages": {"smtp_message": "Gtube\r\npattern"}, "symbols": {"SECRET": {}}}
    async with FakeRspamd(answer).running() as url:
        found = await ask(url)
    assert found.refusal == expected


async def _status(_: web.Request) -> web.StreamResponse:
    return web.Response(status=500, text="oops")


async def _redirect(_: web.Request) -> web.StreamResponse:
    raise web.HTTPTemporaryRedirect("/checkv2")


async def _huge(_: web.Request) -> web.StreamResponse:
    return web.Response(text=json.dumps({"action": "no action", "junk": "x" * MAX_ANSWER}))


async def _cut_off(request: web.Request) -> web.StreamResponse:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


async def _not_json(_: web.Request) -> web.StreamResponse:
    return web.Response(text="no action")


async def _deep(_: web.Request) -> web.StreamResponse:
    return web.Response(text="[" * 500_000)


async def _silent(_: web.Request) -> web.StreamResponse:
    await asyncio.sleep(30)
    return web.Response()


@pytest.mark.parametrize("handler", [_status, _redirect, _huge, _cut_off, _not_json, _deep, _silent])
async def test_without_a_word_of_it_the_message_is_deferred(
    handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
) -> None:
    async with FakeRspamd(None, handler).running() as url:
        found = await ask(url, timeout="300ms")
    assert found.action is CheckAction.DEFER
    assert found.refusal == NOT_NOW
    assert found.reason.startswith("no usable answer: ")


@pytest.mark.parametrize("answer", [{}, [], {"action": 3}, {"action": "explode"}, None])
async def test_an_answer_that_makes_no_sense_is_none(answer: Any) -> None:
    async with FakeRspamd(answer).running() as url:
        assert (await ask(url)).action is CheckAction.DEFER


async def test_what_happens_when_it_is_down_is_the_operators_choice() -> None:
    async with FakeRspamd(None).running() as url:
        pass
    assert (await ask(url)).action is CheckAction.DEFER
    assert (await ask(url, io_error_action="pass")).action is CheckAction.PASS
    assert (await ask(url, io_error_action="quarantine")).action is CheckAction.QUARANTINE


@pytest.mark.parametrize("action", [CheckAction.PASS, CheckAction.DEFER])
async def test_that_it_is_down_is_told_once_until_it_answers_again(action: CheckAction) -> None:
    rspamd, events = FakeRspamd({}), list[Event]()
    async with rspamd.running() as url:
        settings = CheckSettings(rspamd=[RspamdSettings(url, RspamdOptions(io_error_action=action))])
        async with open_checks(settings, SystemClock()) as checks:
            for answer in ({}, {}, {"action": "no action"}, {"action": "no action"}, {}):
                rspamd.answer = answer
                await examine(checks, envelope("b@example.net"), Content.inspect(MESSAGE), ARRIVAL, events.append)
    told = [each for each in events if isinstance(each, CheckUnavailable | CheckAvailable)]
    assert [type(each) for each in told] == [CheckUnavailable, CheckAvailable, CheckUnavailable]
    assert isinstance(told[0], CheckUnavailable)
    assert (told[0].check, told[0].action, told[0].level) == (f"rspamd {url}", action.value, WARNING)
    assert told[0].reason


async def test_a_check_that_is_not_open_defers() -> None:
    check = RspamdCheck("http://127.0.0.1:1", RspamdOptions(), SystemClock())
    found = await check.examine(envelope("b@example.net"), Content.inspect(MESSAGE), ARRIVAL)
    assert found.action is CheckAction.DEFER
