"""Frames between supervisor and workers, and the link that carries them."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.app import worker_link as link_module
from mailrider.app.worker_link import MAX_FRAME, FrameParser, WorkerLink, encode_frame
from mailrider.clock import SystemClock, after
from mailrider.errors import InvalidValue
from mailrider.model.event import Bug, Event
from tests.support.loops import LOOPS, eventually, run_clean

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

FRAMES = st.lists(st.tuples(st.text(), st.recursive(st.none() | st.integers() | st.text(), st.lists)))


@given(FRAMES, st.data())
def test_frames_come_out_as_they_went_in_however_they_are_cut(
    frames: list[tuple[str, Any]], data: st.DataObject
) -> None:
    octets = b"".join(encode_frame(kind, body) for kind, body in frames)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(octets)))))
    parser = FrameParser()
    found = [
        each
        for start, end in zip([0, *cuts], [*cuts, len(octets)], strict=True)
        for each in parser.feed(octets[start:end])
    ]
    assert found == frames


def test_a_frame_that_is_too_large_is_refused_before_it_is_read() -> None:
    with pytest.raises(InvalidValue, match="at most"):
        FrameParser().feed((MAX_FRAME + 1).to_bytes(4, "big"))


def test_a_frame_that_is_too_large_cannot_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_FRAME", 10)
    with pytest.raises(InvalidValue, match="at most 10 octets, and metrics would have"):
        encode_frame("metrics", "0123456789")


@pytest.mark.parametrize("text", ["{", "1", "[]", '["a"]', '["a", 1, 2]', "[1, 2]"])
def test_what_is_no_frame_is_refused(text: str) -> None:
    octets = text.encode()
    with pytest.raises(InvalidValue):
        FrameParser().feed(len(octets).to_bytes(4, "big") + octets)


def test_a_frame_of_octets_that_are_no_text_is_refused() -> None:
    with pytest.raises(InvalidValue, match="JSON"):
        FrameParser().feed(b"\x00\x00\x00\x01\xff")


async def _pair(emit: Callable[[Event], None]) -> tuple[WorkerLink, WorkerLink, list[Any]]:
    """Two ends, and what arrives at the second one."""
    ours, theirs = socket.socketpair()
    first, second, heard = WorkerLink(emit), WorkerLink(emit), list[Any]()
    second.on("word", heard.append)
    await first.open(ours)
    await second.open(theirs)
    return first, second, heard


def _run(
    scenario: Callable[[WorkerLink, WorkerLink, list[Any], list[Event]], Coroutine[Any, Any, None]], loop: str
) -> None:
    async def whole() -> None:
        events = list[Event]()
        first, second, heard = await _pair(events.append)
        await scenario(first, second, heard, events)
        first.close()
        second.close()
        async with after(SystemClock(), 200):
            await first.closed.wait()
            await second.closed.wait()

    run_clean(loop, whole())


@pytest.mark.parametrize("loop", LOOPS)
def test_what_one_end_sends_the_other_hears_in_order(loop: str) -> None:
    async def scenario(first: WorkerLink, second: WorkerLink, heard: list[Any], events: list[Event]) -> None:
        for number in range(3):
            first.send("word", {"number": number})
        await eventually(lambda: len(heard) == 3)
        assert heard == [{"number": 0}, {"number": 1}, {"number": 2}]
        assert events == []

    _run(scenario, loop)


def test_a_frame_is_not_kept_for_a_later_turn() -> None:
    async def whole() -> None:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        link = WorkerLink()
        await link.open(ours)
        link.send("word", "x")
        assert theirs.recv(100) == encode_frame("word", "x")
        link.close()
        theirs.close()
        await link.closed.wait()

    run_clean("asyncio", whole())


def test_what_is_sent_before_a_close_arrives() -> None:
    async def scenario(first: WorkerLink, second: WorkerLink, heard: list[Any], events: list[Event]) -> None:
        first.send("word", "last")
        first.close()
        await second.closed.wait()
        assert heard == ["last"]
        second.send("word", "to nobody")

    _run(scenario, "asyncio")


def test_a_kind_that_has_no_handler_goes_to_on_other_and_else_to_nobody() -> None:
    async def scenario(first: WorkerLink, second: WorkerLink, heard: list[Any], events: list[Event]) -> None:
        others = list[tuple[str, Any]]()
        first.send("strange", 1)
        first.send("word", 2)
        await eventually(lambda: heard == [2])
        second.on_other = lambda kind, body: others.append((kind, body))
        first.send("strange", 3)
        await eventually(lambda: others == [("strange", 3)])
        assert events == []

    _run(scenario, "asyncio")


def test_a_handler_that_fails_is_a_bug_and_ends_nothing() -> None:
    async def scenario(first: WorkerLink, second: WorkerLink, heard: list[Any], events: list[Event]) -> None:
        second.on("broken", lambda body: body["missing"])
        first.send("broken", {})
        first.send("word", "goes on")
        await eventually(lambda: heard == ["goes on"])
        (bug,) = events
        assert isinstance(bug, Bug)
        assert bug.where == "link: broken"

    _run(scenario, "asyncio")


def test_what_is_no_frame_ends_the_link() -> None:
    async def whole() -> None:
        ours, theirs = socket.socketpair()
        events: list[Event] = []
        link = WorkerLink(events.append)
        await link.open(ours)
        octets = json.dumps("no frame").encode()
        theirs.sendall(len(octets).to_bytes(4, "big") + octets)
        await link.closed.wait()
        assert [type(each) for each in events] == [Bug]
        theirs.close()

    run_clean("asyncio", whole())


def test_who_never_reads_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(link_module, "MAX_WAITING", 1000)

    async def whole() -> None:
        ours, theirs = socket.socketpair()
        first = WorkerLink()
        await first.open(ours)
        for _ in range(100):
            first.send("word", "x" * 10_000)
            await asyncio.sleep(0)
        await first.closed.wait()
        theirs.close()

    run_clean("asyncio", whole())


def test_a_link_that_was_never_open_may_be_closed() -> None:
    async def whole() -> None:
        link = WorkerLink()
        link.send("word")
        await asyncio.sleep(0)
        link.close()
        link.abort()

    run_clean("asyncio", whole())
