"""Nobody reads the log: what is written waits, then is lost and counted, and nothing ever blocks."""

from __future__ import annotations

import os
import select
from typing import TYPE_CHECKING

import pytest

from mailrider.observe.unblocked_stream import AGAIN, UnblockedStream
from mailrider.testing.clock import FakeClock

if TYPE_CHECKING:
    from collections.abc import Iterator

LINE = "x" * 999 + "\n"


class Pipe:
    def __init__(self, most: int = 10_000) -> None:
        self.reader, self.writer = os.pipe()
        self.clock = FakeClock()
        self.stream = UnblockedStream(self.writer, self.clock, most=most)
        self.told: list[int] = []
        self.stream.on_recovery = self.told.append

    def read(self) -> str:
        """Everything that is in the pipe."""
        found = b""
        while select.select([self.reader], [], [], 0)[0]:
            found += os.read(self.reader, 1 << 20)
        return found.decode()

    def fill(self) -> None:
        """Write lines until one has to wait: the pipe takes no more of them whole."""
        while select.select([], [self.writer], [], 0)[1]:
            self.stream.write(LINE)
        self.stream.write(LINE)


@pytest.fixture
async def pipe() -> Iterator[Pipe]:  # type: ignore[misc]
    pipe = Pipe()
    yield pipe
    os.close(pipe.reader)
    os.close(pipe.writer)


async def test_where_somebody_reads_each_line_is_there_at_once(pipe: Pipe) -> None:
    pipe.stream.write("one\n")
    assert pipe.read() == "one\n"
    pipe.stream.write("two \udcff\n")
    assert pipe.read() == "two \\udcff\n"
    assert pipe.clock.pending == 0


async def test_what_nobody_reads_waits_and_comes_in_order(pipe: Pipe) -> None:
    pipe.fill()
    before = pipe.read()
    pipe.stream.write("the last\n")
    assert (before + pipe.read()).endswith("x\nthe last\n")
    assert pipe.told == []


async def test_a_reader_that_comes_back_gets_the_rest_without_a_further_line(pipe: Pipe) -> None:
    pipe.fill()
    pipe.stream.write("the last\n")
    await pipe.clock.advance(AGAIN * 3)
    text = pipe.read()
    await pipe.clock.advance(AGAIN)
    assert (text + pipe.read()).endswith("x\nthe last\n")
    assert pipe.clock.pending == 0


async def test_lines_beyond_the_bound_are_lost_counted_and_told(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(100):
        pipe.stream.write(LINE)
    lost = pipe.stream.lost
    assert 85 <= lost <= 95
    text = pipe.read()
    await pipe.clock.advance(AGAIN)
    assert set((text + pipe.read()).splitlines()) == {LINE.strip()}
    assert pipe.told == [lost]
    pipe.stream.write("well again\n")
    assert pipe.read() == "well again\n"
    assert pipe.told == [lost]


async def test_each_line_that_is_lost_counts_though_several_were_written_together(pipe: Pipe) -> None:
    pipe.fill()
    for _ in range(100):
        pipe.stream.write(LINE)
    before = pipe.stream.lost
    pipe.stream.write(LINE * 7)
    assert pipe.stream.lost == before + 7


async def test_a_reader_that_is_gone_takes_nothing_from_mail() -> None:
    pipe = Pipe()
    os.close(pipe.reader)
    pipe.stream.write("into nothing\n")
    assert pipe.stream.lost == 1
    os.close(pipe.writer)


async def test_at_the_end_a_reader_gets_what_is_left(pipe: Pipe) -> None:
    pipe.fill()
    pipe.stream.finish(0)
    text = pipe.read()
    pipe.stream.finish(0)
    assert (text + pipe.read()).endswith(LINE)
    assert pipe.stream.lost == 0
