"""The log of a worker on its way to the supervisor's: whole lines, all of them."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import pytest

from mailrider.clock import SystemClock
from mailrider.observe import log_relay as relay_module
from mailrider.observe.log_relay import MOMENT, LogRelay, make_pipe
from mailrider.observe.unblocked_stream import UnblockedStream
from mailrider.testing.clock import FakeClock
from tests.support.loops import eventually

if TYPE_CHECKING:
    from pathlib import Path

CLOCK = SystemClock()


async def test_only_whole_lines_are_written_on() -> None:
    reads, writes = make_pipe()
    written = list[str]()
    relay = LogRelay(reads, CLOCK, written.append)
    os.write(writes, b"one\ntwo\nthr")
    await eventually(lambda: "".join(written) == "one\ntwo\n")
    os.write(writes, b"ee\n\xff\n")
    await eventually(lambda: "".join(written) == "one\ntwo\nthree\n\\xff\n")
    os.write(writes, b"the last")
    os.close(writes)
    await relay.ended.wait()
    assert written[-1] == "the last\n"


async def test_lines_of_several_workers_do_not_mix() -> None:
    written = list[str]()
    ends = [make_pipe() for _ in range(2)]
    relays = [LogRelay(reads, CLOCK, written.append) for reads, _ in ends]
    for _ in range(3):
        for name, (_, writes) in zip(b"ab", ends, strict=True):
            os.write(writes, bytes([name]) * 2000)
            await asyncio.sleep(0)
    for _, writes in ends:
        os.write(writes, b"\n")
        os.close(writes)
    await asyncio.gather(*(each.ended.wait() for each in relays))
    assert sorted("".join(written).splitlines()) == ["a" * 6000, "b" * 6000]


async def test_after_a_reading_all_pipes_are_left_alone_until_the_same_moment() -> None:
    clock = FakeClock()
    written = list[str]()
    ends = [make_pipe() for _ in range(2)]
    relays = [LogRelay(reads, clock, written.append) for reads, _ in ends]
    for name, (_, writes) in zip(("a", "b"), ends, strict=True):
        os.write(writes, f"first of {name}\n".encode())
        await eventually(lambda: len(written) == 1)
        written.clear()
        await clock.advance(MOMENT / 4)
    for _, writes in ends:
        os.write(writes, b"one\n")
        os.write(writes, b"two\n")
    await asyncio.sleep(0.01)
    assert not written
    await clock.advance(MOMENT / 2)
    assert written == ["one\ntwo\n"] * 2
    await clock.advance(MOMENT)  # nothing came, so they are watched again
    os.write(ends[0][1], b"at once\n")
    await eventually(lambda: written[2:] == ["at once\n"])
    for relay, (_, writes) in zip(relays, ends, strict=True):
        os.close(writes)
        relay.close()


async def test_a_line_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "MAX_LINE", 10)
    reads, writes = make_pipe()
    written = list[str]()
    relay = LogRelay(reads, CLOCK, written.append)
    os.write(writes, b"short\n" + b"x" * 11)
    await eventually(lambda: written == ["short\n" + "x" * 11 + "\n"])
    relay.close()
    os.close(writes)


@pytest.mark.parametrize("pause", [False, True], ids=["while it watches", "between two readings"])
async def test_who_closes_it_has_what_was_written_before(pause: bool) -> None:
    reads, writes = make_pipe()
    written = list[str]()
    relay = LogRelay(reads, CLOCK, written.append)
    if pause:
        os.write(writes, b"first\n")
        await eventually(lambda: written)
    os.write(writes, b"line\nrest")
    relay.close()
    assert "".join(written).endswith("line\nrest\n")
    relay.close()
    os.close(writes)


async def test_a_worker_whose_supervisor_is_gone_writes_to_the_spare_descriptor(tmp_path: Path) -> None:
    reads, writes = make_pipe()
    with (tmp_path / "spare").open("wb") as spare:
        stream = UnblockedStream(writes, CLOCK, spare=spare.fileno())
        stream.write("to the supervisor\n")
        assert os.read(reads, 100) == b"to the supervisor\n"
        os.close(reads)
        stream.write("to the spare one\n")
        stream.write("and again\n")
    os.close(writes)
    assert (tmp_path / "spare").read_text() == "to the spare one\nand again\n"
    assert stream.lost == 0


async def test_a_pipe_whose_size_is_refused_is_a_pipe(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay_module, "SIZE", 1 << 40)
    for descriptor in make_pipe():
        os.close(descriptor)
