"""So many at once, shared by owners."""

from __future__ import annotations

import asyncio

import pytest

from mailrider.dns.slots import SharedSlots


async def settle() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


class Crowd:
    """Owners who take slots, and what they have."""

    def __init__(self, most: int) -> None:
        self.slots = SharedSlots(most)
        self.has: list[str] = []
        self.tasks: list[tuple[str, asyncio.Task[None]]] = []

    async def come(self, owner: str, count: int = 1) -> None:
        for _ in range(count):
            self.tasks.append((owner, asyncio.create_task(self._take(owner))))
        await settle()

    async def _take(self, owner: str) -> None:
        await self.slots.take(owner)
        self.has.append(owner)

    async def give_back(self, owner: str) -> None:
        self.has.remove(owner)
        self.slots.give_back(owner)
        await settle()

    async def leave(self) -> None:
        for _, task in self.tasks:
            task.cancel()
        await settle()
        while self.has:
            await self.give_back(self.has[0])


async def test_one_owner_takes_no_more_than_it_leaves_to_the_others() -> None:
    crowd = Crowd(8)
    await crowd.come("evil", 100)
    assert crowd.has == ["evil"] * 4
    await crowd.come("good", 2)
    assert crowd.has.count("good") == 2
    await crowd.leave()


async def test_all_slots_can_be_taken_and_never_more() -> None:
    crowd = Crowd(8)
    for number in range(20):
        await crowd.come(f"owner{number}")
    assert len(crowd.has) == 8
    await crowd.leave()


async def test_where_all_are_taken_each_owner_has_its_turn() -> None:
    crowd = Crowd(4)
    for number in range(4):
        await crowd.come(f"evil{number}", 50)
    await crowd.come("good")
    given_back = 0
    while "good" not in crowd.has:
        await crowd.give_back(crowd.has[0])
        given_back += 1
    assert given_back <= 5
    await crowd.leave()


async def test_who_does_not_wait_any_more_keeps_nothing() -> None:
    crowd = Crowd(2)
    await crowd.come("a", 3)
    crowd.tasks[1][1].cancel()
    await settle()
    await crowd.give_back("a")
    assert crowd.has == ["a"]
    await crowd.give_back("a")
    await crowd.come("b")
    assert crowd.has == ["b"]
    await crowd.leave()


async def test_who_goes_in_the_very_turn_of_its_slot_gives_it_back() -> None:
    crowd = Crowd(2)
    await crowd.come("a", 2)
    crowd.has.remove("a")
    crowd.slots.give_back("a")  # the second one has it, and does not know it yet
    crowd.tasks[1][1].cancel()
    await settle()
    assert crowd.has == []
    await crowd.come("b")
    await crowd.come("c")
    assert crowd.has == ["b", "c"]
    await crowd.leave()


async def test_a_slot_that_is_free_in_the_turn_in_which_those_who_wait_go_is_not_lost() -> None:
    crowd = Crowd(2)
    await crowd.come("a", 3)
    crowd.tasks[1][1].cancel()
    crowd.has.remove("a")
    crowd.slots.give_back("a")
    await settle()
    assert crowd.has == ["a"]
    crowd.tasks[2][1].cancel()
    await crowd.give_back("a")
    await crowd.come("b")
    assert crowd.has == ["b"]
    await crowd.leave()


async def test_a_slot_is_given_back_whatever_happens_with_it() -> None:
    slots = SharedSlots(1)
    with pytest.raises(ValueError, match="no"):
        async with slots.of("a"):
            raise ValueError("no")
    await slots.take("b")


class NotedOwner(str):
    """One that notes how often any of them is looked at."""

    __slots__ = ()
    looks = 0

    def __hash__(self) -> int:
        NotedOwner.looks += 1
        return super().__hash__()


async def test_thousands_that_wait_are_not_looked_at_one_by_one_when_a_slot_is_free() -> None:
    crowd = Crowd(8)
    for number in range(8):
        await crowd.come(f"first{number}")
    tasks = [asyncio.create_task(crowd.slots.take(NotedOwner(f"owner{number}"))) for number in range(3000)]
    await settle()
    before = NotedOwner.looks
    await crowd.give_back("first0")
    assert [task.done() for task in tasks].count(True) == 1
    assert NotedOwner.looks - before <= 2 * 8
    for task in tasks:
        task.cancel()
    await settle()
