"""The binding of libunbound, over a library that is Python: its life, its results, its refusals, a fork."""

from __future__ import annotations

import asyncio
import ctypes
import os
import socket
from ipaddress import ip_address
from typing import Any

import pytest

from mailrider.dns import unbound
from mailrider.dns.servers import ServerAddress
from mailrider.dns.unbound import (
    CLOSED,
    MAX_IN_FLIGHT,
    LibraryMissing,
    Upstreams,
    Validated,
    Validator,
    ValidatorUnusable,
    _Result,
    load_library,
)

ANCHOR = ". IN DS 1 8 2 00"
OVER_TLS = ServerAddress(ip_address("192.0.2.1"), tls_name="dns.test")
AWAY, HERE = ServerAddress(ip_address("192.0.2.1")), ServerAddress(ip_address("127.0.0.11"), 5353)
CONTEXT = 4711


class FakeLibrary:
    """Does what the library does, in one thread: what is asked stays open until `answer`."""

    version = "0.0"

    def __init__(self) -> None:
        self.options: list[tuple[str, str]] = []
        self.forwarders: list[str] = []
        self.anchors: list[str] = []
        self.refuses = ""
        self.context: int | None = CONTEXT
        self.deleted: list[int] = []
        self.freed: list[int] = []
        self.tls = 0
        self.ask_error = 0
        self.questions: list[tuple[str, int, int, Any]] = []
        self.ready: list[tuple[Any, int, int, int | None]] = []
        self.near, self.far = socket.socketpair()
        self.kept: list[object] = []
        self.asked = asyncio.Event()

    def close(self) -> None:
        self.near.close()
        self.far.close()

    def create(self) -> int | None:
        return self.context

    def delete(self, context: int) -> None:
        self.deleted.append(context)

    def set_log(self, context: int, out: object) -> int:
        return 0

    def set_option(self, context: int, name: bytes, value: bytes) -> int:
        self.options.append((name.decode(), value.decode()))
        return 1 if self.refuses and self.refuses in f"{name!r} {value!r}" else 0

    def set_forwarder(self, context: int, place: bytes) -> int:
        self.forwarders.append(place.decode())
        return 0

    def set_tls(self, context: int, on: int) -> int:
        self.tls = on
        return 0

    def add_anchor(self, context: int, anchor: bytes) -> int:
        self.anchors.append(anchor.decode())
        return 0

    def run_thread(self, context: int, on: int) -> int:
        return 1 if self.refuses == "a thread" else 0

    def descriptor(self, context: int) -> int:
        return self.near.fileno()

    def words(self, error: int) -> str:
        return f"error {error}"

    def ask(self, context: int, name: bytes, kind: int, _: int, number: int, callback: Any, __: object) -> int:
        if not self.ask_error:
            self.questions.append((name.decode(), kind, number, callback))
            self.asked.set()
        return self.ask_error

    async def wait_asked(self, name: str) -> None:
        """Until that has been asked last."""
        while self.questions[-1][0] != name:
            self.asked.clear()
            await self.asked.wait()

    def answer(self, error: int = 0, packet: bytes = b"", **fields: Any) -> None:
        """The oldest question has its result."""
        _, _, number, callback = self.questions.pop(0)
        address = None
        if not error:
            buffer = ctypes.create_string_buffer(packet, max(1, len(packet)))
            # As libunbound lays it out in memory.
            result = _Result(answer_packet=ctypes.addressof(buffer), answer_len=len(packet), **fields)
            self.kept += (buffer, result)
            address = ctypes.addressof(result)
        self.ready.append((callback, number, error, address))
        self.far.send(b"x")

    def process(self, context: int) -> int:
        self.near.recv(100)
        ready, self.ready = self.ready, []
        for callback, number, error, address in ready:
            callback(number, error, address)
        return 0

    def free(self, address: int) -> None:
        self.freed.append(address)


@pytest.fixture
def library() -> Any:
    made = FakeLibrary()
    yield made
    made.close()


def validator(library: Any, upstreams: Upstreams | None = None, **more: Any) -> Validator:
    return Validator(library, upstreams or Upstreams((AWAY,)), [ANCHOR], **more)


async def test_a_question_and_its_result_which_is_freed(library: Any) -> None:
    async with validator(library) as asks:
        asking = asyncio.create_task(asks.ask("mx.test", 15))
        await asyncio.sleep(0)
        assert library.questions[0][:2] == ("mx.test.", 15)
        library.answer(packet=b"\0\1", secure=1)
        assert await asking == Validated(b"\0\1", secure=True)
        assert len(library.freed) == 1
    assert library.deleted == [CONTEXT]


async def test_what_is_bogus_has_a_reason_that_can_be_shown(library: Any) -> None:
    async with validator(library) as asks:
        asking = asyncio.create_task(asks.ask("mx.test", 15))
        await asyncio.sleep(0)
        library.answer(bogus=1, why_bogus=b"bad\n\xff" + b"x" * 1000)
        answer = await asking
    assert (answer.bogus, answer.secure, len(answer.why)) == (True, False, unbound.MAX_WORDS)
    assert answer.why.startswith("bad??xxx")


@pytest.mark.parametrize("late", [True, False])
async def test_an_error_of_the_library_is_in_its_words(library: Any, late: bool) -> None:
    async with validator(library) as asks:
        library.ask_error = 0 if late else 5
        asking = asyncio.create_task(asks.ask("mx.test", 15))
        await asyncio.sleep(0)
        if late:
            library.answer(error=5)
        assert await asking == Validated(error="error 5")


async def test_a_result_that_is_none(library: Any) -> None:
    async with validator(library) as asks:
        asking = asyncio.create_task(asks.ask("mx.test", 15))
        await asyncio.sleep(0)
        *_, number, callback = library.questions.pop()
        library.ready.append((callback, number, 0, None))
        library.far.send(b"x")
        assert await asking == Validated(error="no result")


async def test_questions_that_were_given_up_still_bound_the_library_s_work(library: Any) -> None:
    async with validator(library) as asks:
        asking = [asyncio.create_task(asks.ask(f"mx{n}.test", 15)) for n in range(MAX_IN_FLIGHT)]
        one_more = asyncio.create_task(asks.ask("late.test", 15))
        await asyncio.sleep(0)
        for each in asking:
            each.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        assert len(library.questions) == MAX_IN_FLIGHT
        library.answer()
        await library.wait_asked("late.test.")
        for _ in range(MAX_IN_FLIGHT):
            library.answer()
        assert (await one_more).error == ""


async def test_one_owners_slow_names_leave_room_for_the_names_of_others(library: Any) -> None:
    async with validator(library) as asks:
        evil = [asyncio.create_task(asks.ask(f"n{n}.evil.test", 15)) for n in range(10 * MAX_IN_FLIGHT)]
        good = asyncio.create_task(asks.ask("good.test", 15))
        await asyncio.sleep(0)
        assert library.questions[-1][0] == "good.test."
        for each in (*evil, good):
            each.cancel()


async def test_many_results_at_once_leave_the_loop_its_turns(library: Any) -> None:
    async with validator(library) as asks:
        asking = [asyncio.create_task(asks.ask(f"mx{n}.test", 15)) for n in range(MAX_IN_FLIGHT)]
        await asyncio.sleep(0)
        for _ in asking:
            library.answer()
        await asyncio.wait([asking[0]])
        assert len(library.freed) < MAX_IN_FLIGHT
        await asyncio.gather(*asking)
        assert len(library.freed) == MAX_IN_FLIGHT


async def test_results_that_nobody_read_yet_are_freed_at_the_end(library: Any) -> None:
    async with validator(library) as asks:
        asking = [asyncio.create_task(asks.ask(f"mx{n}.test", 15)) for n in range(MAX_IN_FLIGHT)]
        await asyncio.sleep(0)
        for _ in asking:
            library.answer()
        await asyncio.wait([asking[0]])
    assert len(library.freed) == MAX_IN_FLIGHT
    assert (await asking[-1]) == CLOSED


async def test_closing_ends_all_questions_those_too_that_wait_for_room(library: Any) -> None:
    asks = validator(library)
    async with asks:
        asking = [asyncio.create_task(asks.ask(f"mx{n}.test", 15)) for n in range(MAX_IN_FLIGHT + 5)]
        await asyncio.sleep(0)
    assert set(await asyncio.gather(*asking)) == {CLOSED}
    assert await asks.ask("mx.test", 15) == CLOSED
    await asks.aclose()
    assert library.deleted == [CONTEXT]


async def test_in_a_forked_child_the_library_is_left_alone(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = validator(library)
    async with asks:
        asking = asyncio.create_task(asks.ask("mx.test", 15))
        await asyncio.sleep(0)
        library.answer()
        monkeypatch.setattr(os, "getpid", lambda: -1)
        assert await asks.ask("mx.test", 15) == CLOSED
        await asyncio.sleep(0)
        assert not asking.done()
    assert await asking == CLOSED
    assert library.deleted == []
    assert library.freed == []


async def test_nor_is_it_waited_for_when_the_interpreter_ends(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    async with validator(library):
        monkeypatch.setattr("sys.is_finalizing", lambda: True)
    assert library.deleted == []


async def test_what_the_library_is_told_before_its_first_question(library: Any) -> None:
    async with validator(library, insecure=["corp.test"]):
        pass
    options = dict(library.options)
    assert options["harden-dnssec-stripped:"] == "yes"
    assert options["harden-algo-downgrade:"] == "no"
    assert options["domain-insecure:"] == "corp.test"
    assert ("local-zone:", "test. transparent") in library.options
    assert "do-not-query-localhost:" not in options
    assert "cache-max-ttl:" not in options
    assert library.forwarders == ["192.0.2.1@53"]
    assert library.anchors == [ANCHOR]
    assert not library.tls


async def test_a_forwarder_on_loopback_and_no_caches(library: Any) -> None:
    async with validator(library, Upstreams((HERE,)), caches=False):
        pass
    options = dict(library.options)
    assert options["do-not-query-localhost:"] == "no"
    assert options["cache-max-ttl:"] == "0"
    assert library.forwarders == ["127.0.0.11@5353"]


async def test_forwarders_over_tls_are_verified_by_name(library: Any) -> None:
    async with validator(library, Upstreams((OVER_TLS,), "/roots")):
        pass
    assert library.tls
    assert dict(library.options)["tls-cert-bundle:"] == "/roots"
    assert library.forwarders == ["192.0.2.1@53#dns.test"]


async def test_a_library_without_tls_says_so_before_anything_is_asked(library: Any) -> None:
    library.ask_error = 2
    with pytest.raises(ValidatorUnusable, match=r"cannot ask over TLS \(error 2\): Debian's is built without it"):
        await validator(library, Upstreams((OVER_TLS,), "/roots")).__aenter__()
    assert library.deleted == [CONTEXT]


@pytest.mark.parametrize(
    ("refuses", "message"),
    [("harden-glue", "libunbound 0.0 refused option harden-glue: yes: error 1"), ("a thread", "refused a thread")],
)
async def test_a_refusal_leaves_nothing_open(library: Any, refuses: str, message: str) -> None:
    library.refuses = refuses
    with pytest.raises(ValidatorUnusable, match=message):
        await validator(library).__aenter__()
    assert library.deleted == [CONTEXT]


async def test_no_context_and_no_roots_for_tls(library: Any) -> None:
    with pytest.raises(ValidatorUnusable, match="no file with the system's trusted certificates"):
        await validator(library, Upstreams((OVER_TLS,))).__aenter__()
    library.context = None
    with pytest.raises(ValidatorUnusable, match="made no context"):
        await validator(library).__aenter__()


def test_a_library_that_is_not_there_or_is_another_one() -> None:
    with pytest.raises(LibraryMissing, match=r"apt-get install libunbound8\): .*no-such-library"):
        load_library(["no-such-library.so", "libc.so.6"])
