"""Shards as one queue: lists are merged, numbers are added, an id says where to look first."""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrider.queue.message import FRESH, DestinationCount, Entry, RecipientState, Stats
from mailrider.queue.sqlite.file import FILE
from mailrider.queue.sqlite.shards import added, likely_first, merged, shard_location, shards_in

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def entry(message: int, id: int) -> Entry:
    return Entry(
        message, id, NOW, "a@example.org", f"{id}@example.net", "example.net", RecipientState.QUEUED, NOW, 1, FRESH
    )


def pages_of(entries: Sequence[Entry]) -> Callable[[int, int], Awaitable[Sequence[Entry]]]:
    async def page(after: int, limit: int) -> Sequence[Entry]:
        return [each for each in entries if each.recipient_id > after][:limit]

    return page


async def listed(shards: Sequence[Sequence[Entry]], step: int) -> list[Entry]:
    return [each async for each in merged([pages_of(each) for each in shards], step)]


@given(
    st.lists(st.sets(st.integers(min_value=1, max_value=100), max_size=30), max_size=5),
    st.integers(min_value=1, max_value=7),
)
def test_a_merged_list_has_everything_once_in_the_order_of_ids(shards: list[set[int]], step: int) -> None:
    # Recipients in different shards may have the same id: their messages have not.
    entries = [[entry(id * 10 + shard, id) for id in sorted(ids)] for shard, ids in enumerate(shards)]
    found = asyncio.run(listed(entries, step))
    order = [(each.recipient_id, each.message_id) for each in found]
    assert order == sorted((each.recipient_id, each.message_id) for part in entries for each in part)
    assert len(set(order)) == len(order)


async def test_no_more_than_a_page_of_each_shard_is_read_ahead() -> None:
    read: list[int] = []

    async def page(after: int, limit: int) -> Sequence[Entry]:
        read.append(after)
        return [entry(id, id) for id in range(after + 1, after + 1 + limit)]

    entries = merged([page, page], 10)
    async for each in entries:
        if each.recipient_id == 5:
            break
    await entries.aclose()
    assert read == [0, 0]


def count(destination: str, queued: int, **more: Any) -> DestinationCount:
    values: dict[str, Any] = {"active": 0, "held": 0, "in_doubt": 0, "oldest": NOW, "next_due": None} | more
    return DestinationCount(destination, queued, **values)


def test_numbers_of_shards_are_added_and_the_largest_destinations_of_all_come_first() -> None:
    earlier, later = NOW - timedelta(hours=1), NOW + timedelta(hours=1)
    one = Stats(2, 10, (count("a.example", 3), count("b.example", 2, next_due=later)), {"old": 1, "new": 4}, NOW)
    other = Stats(
        1,
        5,
        (count("b.example", 1, held=1, active=1, in_doubt=1, oldest=earlier, next_due=NOW), count("c.example", 1)),
        {"old": 2, "new": 2},
        earlier,
    )
    assert added([one, other], 2) == Stats(
        3,
        15,
        (
            count("b.example", 3, held=1, active=1, in_doubt=1, oldest=earlier, next_due=NOW),
            count("a.example", 3),
        ),
        {"old": 3, "new": 6},
        earlier,
    )
    assert added([], 5) == Stats(0, 0, (), {}, None)


def test_an_id_says_where_to_look_first() -> None:
    shards = [0, 1, 3]
    assert list(likely_first(5 << 11 | 3, shards)) == [3, 0, 1]
    assert list(likely_first(5 << 11 | 2, shards)) == [0, 1, 3]
    assert list(likely_first(5 << 11 | 1500, shards)) == [0, 1, 3], "those beside the workers add to shard 0"


def test_shards_are_what_holds_a_store(tmp_path: Path) -> None:
    assert shards_in(tmp_path / "q") == []
    for name in ("shard-01", "shard-12", "shard-100", "shard-2", "shard-9999", "shard-07", "other"):
        (tmp_path / name).mkdir()
        if name != "shard-07":
            (tmp_path / name / FILE).touch()
    assert shards_in(tmp_path) == [1, 12, 100]
    (tmp_path / FILE).touch()
    (tmp_path / "shard-07" / f"{FILE}.damaged-20260101T000000Z").touch()
    assert shards_in(tmp_path) == [0, 1, 7, 12, 100]
    assert [shard_location(tmp_path, each) for each in (0, 7)] == [tmp_path, tmp_path / "shard-07"]


@pytest.mark.parametrize("number", random.Random(1).sample(range(1, 1024), 5))
def test_a_shard_is_found_under_the_name_that_it_is_made_with(tmp_path: Path, number: int) -> None:
    made = shard_location(tmp_path, number)
    made.mkdir()
    (made / FILE).touch()
    assert shards_in(tmp_path) == [number]
