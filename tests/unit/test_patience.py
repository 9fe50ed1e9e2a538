"""How long a client may take, on a clock that only we move."""

from __future__ import annotations

from mailrider.clock import STRETCH, Patience
from mailrider.testing.clock import FakeClock


class World:
    """A client that has ten seconds, and whose time has begun."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.ends = 0
        self.patience = Patience(self.clock, 10.0, self._end)
        self.patience.restart()

    def _end(self) -> None:
        self.ends += 1

    async def pass_time(self, seconds: float) -> bool:
        """True if the client's time is over then."""
        await self.clock.advance(seconds)
        assert self.ends == self.patience.is_over
        return self.patience.is_over


async def test_who_gets_nowhere_has_so_many_seconds_and_is_told_of_once() -> None:
    world = World()
    assert not await world.pass_time(9.9)
    assert await world.pass_time(0.2)
    assert await world.pass_time(100)


async def test_each_command_has_its_own_time() -> None:
    world = World()
    for _ in range(5):
        assert not await world.pass_time(9)
        world.patience.restart()
    assert await world.pass_time(10.1)


async def test_content_gives_time_for_every_64_kib_and_not_for_less() -> None:
    world = World()
    for _ in range(3):
        await world.pass_time(4)
        world.patience.note_content(STRETCH // 2)
    assert not await world.pass_time(5)
    world.patience.note_content(STRETCH // 2 - 1)
    assert await world.pass_time(1.1), "eight seconds of it came behind the last 64 KiB"


async def test_time_rests_while_we_work_and_begins_anew_behind_that() -> None:
    world = World()
    world.patience.is_working = True
    assert not await world.pass_time(1000)
    world.patience.is_working = False
    world.patience.restart()
    assert not await world.pass_time(9.9)
    assert await world.pass_time(0.2)


async def test_an_end_of_the_connection_is_the_end_of_the_timer() -> None:
    world = World()
    world.patience.stop()
    assert not await world.pass_time(1000)
    assert world.clock.pending == 0
