"""What a worker tells the others without words, that its stores take no mail now; and what it is told at its start."""

from __future__ import annotations

import asyncio

from mailrider.app.worker import Orders, StoreTroubles, wait_for_orders
from mailrider.model.daemon_event import RunningAsRoot
from mailrider.model.queue_event import QueueAvailable, QueueHasSpace, QueueShort, QueueUnavailable

SHORT = QueueShort(1, 2)
UNAVAILABLE = QueueUnavailable("the disk is gone")


def test_who_has_any_trouble_refuses_until_all_of_it_is_over() -> None:
    told = list[bool]()
    troubles = StoreTroubles(told.append)
    for event in (SHORT, UNAVAILABLE, SHORT, QueueHasSpace(), QueueAvailable()):
        troubles(event)
    assert told == [True]
    troubles(QueueHasSpace())
    assert told == [True, False]


def test_an_end_without_a_beginning_changes_nothing() -> None:
    told = list[bool]()
    troubles = StoreTroubles(told.append)
    for event in (QueueHasSpace(), RunningAsRoot()):
        troubles(event)
    assert told == []


def test_it_listens_to_nothing_else() -> None:
    troubles = StoreTroubles(lambda _: None)
    assert troubles.listener_for(QueueShort) is troubles
    assert troubles.listener_for(QueueAvailable) is troubles
    assert troubles.listener_for(RunningAsRoot) is None


ORDERS = Orders(0, 2, 0, 10, 11, 12, 13, (), 5.0, "text", debug=False, journal=False, proven=False)


class Begun:
    """A worker that waits for its orders."""

    def __init__(self) -> None:
        self.orders: asyncio.Future[Orders] = asyncio.get_running_loop().create_future()
        self.told: asyncio.Queue[str] = asyncio.Queue()
        self.waits = asyncio.create_task(wait_for_orders(self.orders, self.told))


async def begun() -> Begun:
    it = Begun()
    for _ in range(5):
        await asyncio.sleep(0)
    return it


async def test_a_stop_before_the_orders_is_the_end() -> None:
    it = await begun()
    it.told.put_nowait("stop")
    assert await it.waits is None


async def test_a_stop_in_the_same_turn_as_the_orders_is_the_end() -> None:
    it = await begun()
    it.told.put_nowait("stop")
    it.orders.set_result(ORDERS)
    assert await it.waits is None


async def test_a_stop_just_after_the_orders_is_not_lost() -> None:
    it = await begun()
    it.orders.set_result(ORDERS)
    it.told.put_nowait("stop")
    assert await it.waits is None or it.told.get_nowait() == "stop"


async def test_a_stop_after_the_orders_is_left_to_what_comes_next() -> None:
    it = await begun()
    it.orders.set_result(ORDERS)
    assert await it.waits is ORDERS
    it.told.put_nowait("stop")
    for _ in range(5):
        await asyncio.sleep(0)
    assert it.told.get_nowait() == "stop"
